"""What HTTP clients get, also those that misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from edgecnn.errors import InputError, Unavailable
from edgecnn.results import Detections, Tensors
from edgecnn.stream.base import Source, SourceEvent
from edgecnn.vision.opencv import cv2
from edgecnn.web import WebSink, server
from edgecnn.web.access import TOKEN_VARIABLE
from tests.stream.fakes import classes, detections
from tests.web.fakes import PATIENCE_S, SUMMARY, Camera, Show, moving, until

TOKEN = "a-token-of-the-tests"
PATHS = ["/", "/state.json", "/picture.jpg"]


def threads() -> int:
    return sum(thread.name.startswith("web") for thread in threading.enumerate())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_page_has_all_that_it_needs_in_it() -> None:
    with Show() as show:
        status, headers, body = show.get("/")
    text = body.decode()
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    addresses = re.findall(r"(?:src|href)=[\"']?([^\"'> ]*)", text)
    assert {address.split(",")[0] for address in addresses} == {"data:image/svg+xml"}
    assert "{page." not in text
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    import base64

    for tag in ("script", "style"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_headers_of_every_answer(path: str) -> None:
    with Show() as show:
        show.frame()
        _, headers, _ = show.get(path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Server"] == "edgecnn"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_figures() -> None:
    with Show() as show:
        first = show.state()["source"]
        assert (first["state"], first["index"], first["classes"]) == ("waiting", None, [])
        show.frame(detections(2))
        show.index += 3  # the camera's frames that nobody took
        show.frame(detections(1))
        show.sink.note(SourceEvent("camera:0", "lost", "no frame for 4 s", 5.0))
        found = show.state()
    assert found["about"] == "face on ort"
    assert found["sources"] == [{"name": "camera:0", "state": "lost"}]
    source = found["source"]
    assert source["size_hw"] == [96, 128]
    assert (source["frames"], source["index"], source["dropped"], source["reconnects"]) == (2, 4, 3, 0)
    assert source["classes"] == [{"label": "thing", "color": "#2ed660", "now": 1, "total": 3}]
    assert source["events"][0]["reason"] == "no frame for 4 s"
    assert source["lost_s"] >= 0


def test_of_the_classes_of_a_frame_the_best_one_is_counted() -> None:
    with Show() as show:
        show.frame(classes(0.7))
        show.frame(Tensors({"out": np.zeros(3, np.float32)}))
        show.frame(Detections.empty())
        (found,) = show.state()["source"]["classes"]
    assert (found["label"], found["now"], found["total"]) == ("thing", 0, 1)


def test_picture_is_the_annotated_frame() -> None:
    with Show() as show:
        show.frame()
        status, headers, body = show.get("/picture.jpg")
        assert (status, headers["Content-Type"], headers["X-Edgecnn-Number"]) == (200, "image/jpeg", "1")
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (96, 128, 3)
        assert image.reshape(-1, 3).std(axis=0).max() > 5  # the frame is even, the box is not
        assert show.get("/picture.jpg?after=1")[::2] == (204, b"")
        assert show.drawn == 1


@pytest.mark.parametrize(
    "query", ["source=9", "source=-1", "source=x", "after=%C2%B2", f"after={'9' * 5000}", "=&&;"]
)
def test_nonsense_in_the_query(query: str) -> None:
    with Show() as show:
        show.frame()
        assert show.get(f"/picture.jpg?{query}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/page.js", "/../etc/passwd", "/%2e%2e/etc/passwd", "/./", "/static/", "/index.html"]
)
def test_there_are_no_other_files(path: str) -> None:
    with Show() as show:
        assert show.get(path)[0] == 404


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(path: str) -> None:
    with Show() as show:
        show.frame()
        status, headers, body = show.get(path, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 100


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"])
def test_other_methods(method: str) -> None:
    with Show() as show:
        status, headers, _ = show.get("/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_other_names_of_this_machine_are_refused(path: str) -> None:
    with Show() as show:
        assert show.get(path, Host="evil.example")[0] == 403
        assert show.get("/", Host=f"localhost:{show.place[1]}")[0] == 200


def test_token_is_asked_for_and_remembered_in_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with Show() as show:
        assert TOKEN not in show.sink.url
        show.frame()
        for path in PATHS:
            assert show.get(path)[0] == 403
            assert show.get(f"{path}?token=wrong")[0] == 403
        status, headers, _ = show.get(f"/?token={TOKEN}")
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        assert (status, set(attributes)) == (200, {"Path=/", "HttpOnly", "SameSite=Strict"})
        for path in PATHS:
            status, headers, _ = show.get(path, Cookie=cookie)
            assert (status, headers.get("Set-Cookie")) == (200, None)


def test_other_hosts_get_a_token_that_is_made_up() -> None:
    with Show("0.0.0.0:0") as show:
        parts = urlsplit(show.sink.url)
        assert parts.query.startswith("token=")
        show.sink.url = f"http://127.0.0.1:{parts.port}/"
        assert show.get("/", Host="any.example")[0] == 403
        assert show.get(f"/?{parts.query}", Host="any.example")[0] == 200


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with Show("[::1]:0") as show:
        assert show.get("/")[0] == 200


def test_port_in_use() -> None:
    with (
        Show() as show,
        pytest.raises(Unavailable, match=r"^--web 127.0.0.1:\d+: the port is in use; take another"),
    ):
        WebSink(str(show.place[1]), Camera(), "")


@pytest.mark.parametrize("where", ["192.0.2.1:0", "nowhere.invalid:0", "a..b:0"])
def test_places_that_are_not_here(where: str) -> None:
    with pytest.raises(InputError, match=r"cannot be listened on .*give an address of this machine"):
        WebSink(where, Camera(), "")


def answer_to(show: Show, request: bytes) -> bytes:
    with show.connect() as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 8300, 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 0),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    ],
)
def test_what_is_no_request(request_bytes: bytes, status: int) -> None:
    with Show() as show:
        answer = answer_to(show, request_bytes)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode() if status else b"")
        assert show.get("/")[0] == 200


def test_several_requests_in_one_connection() -> None:
    request = b"GET /state.json HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    with Show() as show:
        answer = answer_to(show, request % b"" + request % b"" + request % b"Connection: close\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_request_that_trickles_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.3)
    with Show() as show, show.connect() as slow:
        start_s = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start_s < PATIENCE_S:
                slow.sendall(b"G")
                time.sleep(0.05)


def test_connection_on_which_nothing_is_said_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.2)
    with Show() as show, show.connect() as silent:
        assert silent.recv(1) == b""
        until(lambda: threads() == 1)


def test_too_many_are_told_so_and_then_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(server, "TURNED_AWAY_MAX", 2)
    with Show() as show:
        connections = [show.connect() for _ in range(3)]
        until(lambda: threads() == 4)
        status, headers, body = show.get("/")
        assert (status, headers["Connection"]) == (503, "close")
        assert b"too many" in body
        until(lambda: threads() == 4)
        connections += [show.connect() for _ in range(2)]
        until(lambda: threads() == 6)
        with show.connect() as cut:
            assert cut.recv(1) == b""
        for connection in connections:
            connection.close()
        until(lambda: threads() == 1)
        assert show.get("/")[0] == 200


def test_20_viewers_that_connect_and_vanish_leave_nothing() -> None:
    requests = [
        b"GET /picture.jpg?after=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(20)
    ]
    with Show() as show, moving(show):
        show.get("/picture.jpg")
        until(lambda: threads() == 1)
        before = open_files()
        for _ in range(3):
            viewers = [show.connect() for _ in requests]
            for number, (viewer, request) in enumerate(zip(viewers, requests)):
                viewer.sendall(request[: None if number % 2 else 20])
            for viewer in viewers[::2]:
                viewer.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )  # close with a reset
            for viewer in viewers:
                viewer.close()
        until(lambda: threads() == 1)
        assert open_files() == before


def test_viewers_that_read_nothing_do_not_hold_the_stream_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SEND_S", 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    with Show() as show:
        viewers = [show.connect() for _ in range(8)]
        show.frame(image=noise)
        for viewer in viewers:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            viewer.sendall(b"GET /picture.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        until(lambda: show.drawn)
        before = show.index
        for _ in range(1000):
            show.frame()
        assert show.index == before + 1000
        assert show.drawn < 50  # they were not drawn for those who do not take them
        until(lambda: threads() == 1)  # given up, one after the other
        for viewer in viewers:
            viewer.close()


def test_closing_ends_all_threads_and_connections() -> None:
    show = Show()
    show.frame()
    viewers = [show.connect() for _ in range(10)]
    for viewer in viewers[::2]:
        viewer.sendall(b"GET /picture.jpg?after=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: threads() == 11)
    show.sink.close(SUMMARY)
    assert threads() == 0
    assert all(viewer.recv(1) in (b"", b"H") for viewer in viewers)
    for viewer in viewers:
        viewer.close()
    with pytest.raises(ConnectionRefusedError):
        show.connect()


class Both(Source):
    """Two cameras as one."""

    name = "2 sources"

    def __init__(self, *members: Source) -> None:
        self._members = members
        super().__init__()

    @property
    def members(self) -> tuple[Source, ...]:
        return self._members

    _read = Camera._read


def test_each_source_has_its_own_picture_and_figures() -> None:
    with Show(source=Both(Camera("camera:0"), Camera("camera:1"))) as show:
        show.frame(detections(1), source="camera:0")
        show.frame(detections(2), source="camera:1")
        show.sink.note(SourceEvent("camera:1", "lost", "why", 5.0))
        found = [show.state(number) for number in (0, 1)]
        pictures = [show.get(f"/picture.jpg?source={number}")[2] for number in (0, 1)]
    assert found[0]["sources"] == [{"name": "camera:0", "state": "up"}, {"name": "camera:1", "state": "lost"}]
    assert [each["source"]["classes"][0]["total"] for each in found] == [1, 2]
    assert pictures[0] != pictures[1]


def test_names_of_files_do_not_matter() -> None:
    with Show() as show:
        show.frame(source="photos/a.jpg")
        assert json.dumps(show.state()["source"]["frames"]) == "1"
