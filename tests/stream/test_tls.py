"""Certificates of servers that are good, of another host, expired, and of an authority that nobody trusts."""

from __future__ import annotations

import functools
import gc
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import DeviceUnavailable, InputError, Unavailable
from edgecnn.stream import open_source, outbox, tls
from edgecnn.stream.network import open_outboxes
from edgecnn.stream.tls import authorities_file, trusted
from tests.stream.certificates import Authority
from tests.stream.fakes import write_video
from tests.stream.receivers import broker, hook, until
from tests.stream.servers import MjpegServer
from tests.stream.test_outbox import IMAGE, SUMMARY, write

REFUSED = {
    "of another host": "IP address mismatch, certificate is not valid for '127.0.0.1'; use a name that it was",
    "expired": "certificate has expired; renew it, or set the clock of this machine",
    "of another authority": "; name the file of its authority (PEM) in SSL_CERT_FILE",
}


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this machine trusts, as its operator has said."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.path))
    monkeypatch.setattr(outbox, "CLOSE_S", 0.5)
    return made


def test_a_webhook_with_a_certificate_of_ones_own_authority(authority: Authority, tmp_path: Path) -> None:
    with hook() as server:
        server.stop()
        server.tls = authority.show("good").context()
        server.start()
        [sink] = open_outboxes(open_source(IMAGE), webhook=server.url, spool=str(tmp_path / "spool"))
        write(sink, 0, 1)
        until(lambda: server.frames == [0, 1])
        sink.close(SUMMARY)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_webhook_that_is_refused_says_what_to_do_and_gets_all_once_that_is_done(
    authority: Authority, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with hook() as server:
        server.stop()
        server.tls = authority.show(kind).context()
        server.start()
        [sink] = open_outboxes(open_source(IMAGE), webhook=server.url, spool=str(tmp_path / "spool"))
        write(sink, 0)
        until(lambda: REFUSED[kind] in caplog.text)
        assert server.requests == []
        server.stop()
        server.tls = authority.show("good").context()
        server.start()
        until(lambda: server.frames == [0])
        sink.close(SUMMARY)
    assert "se/cret" not in caplog.text
    assert "_ssl.c" not in caplog.text


# paho-mqtt leaves a connection whose handshake failed to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["good", *REFUSED])
def test_a_broker(authority: Authority, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    shown = authority.show(kind)
    with broker(tmp_path, shown.certificate, shown.key) as server:
        assert server.url.startswith("mqtts://")
        [sink] = open_outboxes(open_source(IMAGE), mqtt=server.url, spool=str(tmp_path / "spool"))
        write(sink, 0)
        if kind == "good":
            until(lambda: server.frames == [0])
        else:
            until(lambda: REFUSED[kind] in caplog.text)
            assert server.payloads == []
        sink.close(SUMMARY)
    caplog.clear()  # whose records hold the error, and that the connection
    gc.collect()


class _Motion(MjpegServer):
    """Motion JPEG over TLS."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")

    def serve(self, client: Any) -> None:
        with self._tls.wrap_socket(client, server_side=True) as wrapped:
            super().serve(wrapped)


@pytest.mark.parametrize("kind", ["good", *REFUSED])
def test_motion_jpeg(authority: Authority, kind: str) -> None:
    with _Motion(authority.show(kind).context()) as server:
        if kind == "good":
            with open_source(server.url) as source:
                assert next(source).image.shape == (96, 128, 3)
        else:
            with pytest.raises(
                DeviceUnavailable, match=r"https://127\.0\.0\.1:\d+/video: its certificate is"
            ) as no:
                open_source(server.url)
            assert REFUSED[kind] in str(no.value)


@contextmanager
def serving(folder: Path, *contexts: ssl.SSLContext) -> Iterator[str]:
    """The URL of a folder; each connection is shown the next certificate, and all others the last one."""
    waiting = list(contexts)

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, address: Any) -> None:
            context = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            with context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, address)

        def handle_error(self, *arguments: object) -> None:
            pass

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_video_behind_tls(authority: Authority, tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", count=8)
    with serving(tmp_path, authority.show("good").context()) as url, open_source(f"{url}/v.avi") as source:
        assert len(list(source)) == 8


@pytest.mark.parametrize("kind", ["expired", "of another authority"])
def test_a_video_whose_server_is_another_one_when_ffmpeg_comes(
    authority: Authority, tmp_path: Path, kind: str
) -> None:
    write_video(tmp_path / "v.avi")
    contexts = (authority.show("good").context(), authority.show(kind).context())
    with (
        serving(tmp_path, *contexts) as url,
        pytest.raises(DeviceUnavailable, match="does not answer with a"),
    ):
        open_source(f"{url}/v.avi")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be used \(No such file or directory\)"),
        (b"x", r"cannot be used \(no certificates in PEM\)"),
    ],
)
@pytest.mark.parametrize("option", ["webhook https://host/", "mqtt mqtts://host/topic"])
def test_a_file_of_authorities_that_is_none(
    option: str, content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "authorities.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(named))
    if content:
        named.write_bytes(content)
    kind, url = option.split()
    with pytest.raises(InputError, match=rf"SSL_CERT_FILE: .*authorities\.pem: {message}"):
        open_outboxes(open_source(IMAGE), **{kind: url}, spool=str(tmp_path / "spool"))  # type: ignore[arg-type]


def test_who_is_trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = trusted()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert authorities_file() == str(authority.path)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setattr(tls, "FILES", (str(authority.path),))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: ssl.DefaultVerifyPaths(*[None] * 6))
    assert authorities_file() == str(authority.path)
    monkeypatch.setattr(tls, "FILES", ())
    with pytest.raises(Unavailable, match=r"name one \(PEM\) in SSL_CERT_FILE"):
        authorities_file()
