"""The kiosk: its program as others talk to it."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from skimage import data as photographs
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import edgecnn
from edgecnn.errors import EngineError
from edgecnn.results import Result
from edgecnn.stream.base import Image
from edgecnn.vision.opencv import cv2
from edgecnn.web.access import TOKEN_VARIABLE, Place
from tests.paths import ROOT
from tests.stream.fakes import classes, detections, picture
from tests.web.fakes import PATIENCE_S, until
from tests.web.test_pages import open_files

PROGRAM = ROOT / "examples" / "kiosk" / "kiosk.py"
TOKEN = "a-token-of-the-tests"


def example(path: Path) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kiosk = example(PROGRAM)


def jpeg(image: Image) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


FRAME = jpeg(picture(100))


def found(image: Image) -> Result:
    """As many boxes as the picture is bright."""
    return detections(round(float(image.mean()) / 100))


def opened(predict: Any = found, host: str = "127.0.0.1", workers: int = 1) -> Any:
    return kiosk.Kiosk(predict, "net.edge on ort", Place(host, 0), workers)


def authority(to: Any) -> str:
    return f"127.0.0.1:{urlsplit(to.url).port}"


@contextmanager
def viewer(to: Any, **headers: str) -> Iterator[ClientConnection]:
    """A connection that was welcomed."""
    url = f"ws://{authority(to)}/frames"
    with connect(url, additional_headers=headers, open_timeout=PATIENCE_S) as connection:
        assert json.loads(connection.recv(PATIENCE_S)) == {"about": "net.edge on ort"}
        yield connection


def viewers(count: int, to: Any, stack: ExitStack) -> list[ClientConnection]:
    """So many of them."""
    return [stack.enter_context(viewer(to)) for _ in range(count)]


def stranger(to: Any, said: bytes = b"") -> socket.socket:
    """A connection of somebody who writes bytes as they like."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(to.url).port), timeout=PATIENCE_S)
    connection.sendall(said)
    return connection


def handshaken(to: Any) -> socket.socket:
    """A WebSocket of a stranger."""
    connection = stranger(
        to,
        b"GET /frames HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


def masked(message: bytes) -> bytes:
    """A binary message as a client sends it."""
    return b"\x82\xfe" + len(message).to_bytes(2, "big") + bytes(4) + message


def answer(connection: ClientConnection, message: str | bytes) -> Any:
    connection.send(message)
    return json.loads(connection.recv(PATIENCE_S))


def get(to: Any, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    """One request of HTTP."""
    try:
        with urlopen(Request(f"http://{authority(to)}{path}", headers=headers), timeout=PATIENCE_S) as got:
            return got.status, dict(got.headers), got.read().decode()
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_a_picture_is_answered_with_its_face() -> None:
    photo = jpeg(photographs.astronaut()[..., ::-1].copy())
    with edgecnn.load("face", min_size=80) as predict, opened(predict) as to, viewer(to) as connection:
        said = answer(connection, photo)
    assert set(said) == {"detections", "timing_ms"}
    assert said["timing_ms"]["infer"] > 0
    best = said["detections"][0]
    assert best["label"] == "face"
    # her face: about x 175..275, y 65..190
    np.testing.assert_allclose(best["box"], [170, 70, 280, 180], atol=40)


def test_keys_are_those_of_the_results() -> None:
    with opened() as to, viewer(to) as connection:
        said = answer(connection, FRAME)
    assert said == {**detections(1).to_json(), "timing_ms": {"infer": 1.0}}
    with opened(lambda image: classes(0.7)) as to, viewer(to) as connection:
        assert answer(connection, FRAME) == {**classes(0.7).to_json(), "timing_ms": {}}


def claimed(width: int, height: int) -> bytes:
    """A small JPEG that says that it is large."""
    place = FRAME.index(b"\xff\xc0") + 5
    return FRAME[:place] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + FRAME[place + 4 :]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("text", "frame: not a JPEG; send one as a binary message"),
        (b"", "frame: not a JPEG; send one as a binary message"),
        (b"\xff\xd8\xff", "frame: the JPEG is cut short (the file ends before the image does)"),
        (bytes(range(256)) * 64, "frame: not a JPEG; send one as a binary message"),
        (cv2.imencode(".png", picture(1))[1].tobytes(), "frame: not a JPEG; send one as a binary message"),
        (FRAME[:-20], "frame: the JPEG is cut short (the file ends before the image does)"),
        (claimed(1921, 1080), "frame: 1921×1080 px are more than the 2073600 pixels allowed"),
        (claimed(65535, 65535), "frame: 65535×65535 px are more than the 2073600 pixels allowed"),
    ],
)
def test_what_is_no_picture_is_answered_in_a_line(message: str | bytes, reason: str) -> None:
    with opened() as to, viewer(to) as connection:
        assert answer(connection, message) == {"error": reason}
        assert len(answer(connection, FRAME)["detections"]) == 1


def test_messages_that_are_too_large_end_the_connection() -> None:
    with opened() as to, viewer(to) as connection:
        with pytest.raises(ConnectionClosedError) as ended:
            answer(connection, b"\xff" * (kiosk.MESSAGE_BYTES_MAX + 1))
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1009
        with viewer(to) as another:
            assert (
                len(answer(another, FRAME + bytes(kiosk.MESSAGE_BYTES_MAX - len(FRAME)))["detections"]) == 1
            )


def test_an_engine_that_fails_costs_a_picture() -> None:
    def predict(image: Image) -> Result:
        if image.mean() > 150:
            raise EngineError("ort: out of memory")
        return found(image)

    with opened(predict) as to, viewer(to) as connection:
        assert answer(connection, jpeg(picture(200))) == {"error": "ort: out of memory"}
        assert len(answer(connection, FRAME)["detections"]) == 1


def test_a_mistake_ends_the_connection_and_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with opened(lambda image: 1 / 0) as to, viewer(to) as connection:
        with pytest.raises(ConnectionClosedError) as ended:
            answer(connection, FRAME)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1011
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"],
)
def test_pages_of_other_sites_are_refused(origin: str) -> None:
    with opened() as to:
        with pytest.raises(InvalidStatus) as refused, viewer(to, Origin=origin):
            pass
        assert refused.value.response.status_code == 403
        with viewer(to, Origin=f"http://{authority(to)}"), viewer(to):
            pass


def test_other_names_of_this_machine_are_refused() -> None:
    with opened() as to:
        status, _, text = get(to, Host="evil.example")
        assert (status, text) == (
            403, "403 Forbidden: this name is not one of this server; open it as localhost\n",
        )  # fmt: skip
        assert get(to, Host=f"localhost:{urlsplit(to.url).port}")[0] == 200


def test_page_has_all_that_it_needs_in_it() -> None:
    with opened() as to:
        status, headers, text = get(to)
        assert get(to, "/page.js")[0] == get(to, "/../kiosk.py")[0] == 404
        assert get(to, "/frames")[0] == 426
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert (headers["Permissions-Policy"], headers["Server"]) == ("camera=(self)", "edgecnn")
    assert "{page." not in text
    addresses = re.findall(r"(?:src|href)=[\"']?([^\"'> ]*)", text)
    assert {address.split(",")[0] for address in addresses} == {"data:image/svg+xml"}


def test_token_is_asked_for_on_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(host="0.0.0.0") as to:
        assert urlsplit(to.url).query.startswith("token=")
        assert get(to)[0] == 403
        assert get(to, f"/?{urlsplit(to.url).query}", Host="any.example")[0] == 200
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with opened(host="0.0.0.0") as to:
        assert TOKEN not in to.url
        with pytest.raises(InvalidStatus), viewer(to):
            pass
        status, headers, _ = get(to, f"/?token={TOKEN}")
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        assert (status, set(attributes)) == (200, {"Path=/", "HttpOnly", "SameSite=Strict"})
        assert get(to, Cookie=cookie)[0] == 200
        with viewer(to, Cookie=cookie):
            pass


def test_many_viewers_share_one_predictor_and_take_turns() -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def predict(image: Image) -> Result:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1
        return found(image)

    with opened(predict, workers=2) as to, ExitStack() as stack:
        six = viewers(6, to, stack)
        for _ in range(3):
            for number, each in enumerate(six):
                each.send(jpeg(picture(40 * number)))
            counts = [len(json.loads(each.recv(PATIENCE_S))["detections"]) for each in six]
            assert counts == [0, 0, 1, 1, 2, 2]
    assert most == 2


def test_pictures_that_come_without_waiting_are_answered_in_their_order() -> None:
    with opened() as to, viewer(to) as connection:
        for number in range(40):
            connection.send(jpeg(picture(100 * (number % 3))))
        answers = [json.loads(connection.recv(PATIENCE_S)) for _ in range(40)]
    assert [len(each["detections"]) for each in answers] == [number % 3 for number in range(40)]


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiosk, "VIEWERS_MAX", 2)
    with opened() as to, ExitStack() as stack:
        (stays,) = viewers(1, to, stack)
        with viewer(to), connect(f"ws://{authority(to)}/frames") as refused:
            with pytest.raises(ConnectionClosedError):
                refused.recv(PATIENCE_S)
            assert refused.close_code == 1013
            assert refused.close_reason == "too many are looking; try again later"
        until(lambda: len(to._viewers) == 1)
        (comes,) = viewers(1, to, stack)
        assert answer(stays, FRAME) == answer(comes, FRAME)


def vanish(connection: socket.socket) -> None:
    """Close with a reset, as a program that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def test_20_viewers_that_connect_and_vanish_leave_nothing() -> None:
    with opened() as to, viewer(to) as stays:
        assert answer(stays, FRAME)
        threads, files = threading.active_count(), open_files()
        for _ in range(3):
            gone = [stranger(to, b"GET /frames HTTP/1.1\r\nHost: loc"[: 10 * number]) for number in range(5)]
            gone += [handshaken(to) for _ in range(15)]
            for number, each in enumerate(gone[5:]):
                each.sendall(masked(FRAME)[: None if number % 2 else 50 * number])
            for number, each in enumerate(gone):
                vanish(each) if number % 3 else each.close()
        until(lambda: threading.active_count() <= threads and open_files() <= files)
        assert answer(stays, FRAME)


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\0\1\0",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"x" * 20000,
    ],
)
def test_what_is_no_request_is_not_told_of(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with opened() as to:
        stranger(to, said).close()
        assert get(to)[0] == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_who_reads_no_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiosk, "SEND_S", 1)
    with opened(lambda image: detections(2000)) as to:
        talks = handshaken(to)
        talks.sendall(masked(FRAME) * 200)
        until(lambda: any(each.protocol_mutex.locked() for each in to._viewers))
        threading.Event().wait(0.5)  # long enough for it to run into what was not read
    talks.close()


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that are ended after the test."""
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for program in programs:
        program.kill()
        program.communicate()


def start(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_program_ends_with_130(number: int, running: list[subprocess.Popen[str]]) -> None:
    program = start("--port", "0")
    running.append(program)
    assert program.stdout is not None
    url = program.stdout.readline().split()[2]
    with connect(f"{url.replace('http', 'ws')}frames") as connection:
        assert json.loads(connection.recv(PATIENCE_S)) == {"about": "face on ort"}
        program.send_signal(number)
        _, said = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, said) == (130, "kiosk: interrupted\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.edge",), "kiosk: nowhere.edge: "),
        (("--port", "65536"), "kiosk: 127.0.0.1:65536: cannot be listened on ("),
        (("face", "--host", "nowhere.invalid"), "kiosk: nowhere.invalid:8090: cannot be listened on ("),
    ],
)
def test_program_says_what_is_wrong_in_a_line(
    words: tuple[str, ...], said: str, running: list[subprocess.Popen[str]]
) -> None:
    program = start(*words)
    running.append(program)
    out, error = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(said)


def test_port_in_use(running: list[subprocess.Popen[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = start("--port", str(port))
        running.append(program)
        _, error = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 2
    assert re.fullmatch(
        rf"kiosk: 127.0.0.1:{port}: cannot be listened on \(.*in use.*\); take another address or port\n",
        error,
    )


def test_websockets_that_are_not_installed() -> None:
    code = f"import sys, runpy; sys.modules['websockets'] = None; runpy.run_path({str(PROGRAM)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert done.stderr.endswith("; try: pip install 'websockets>=15'\n")


def test_bundle_without_a_decoder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = SimpleNamespace(spec=SimpleNamespace(task="tensors"), close=lambda: None)
    monkeypatch.setattr(edgecnn, "load", lambda bundle: tensors)
    assert kiosk.main(["net.edge"]) == 2
    assert capsys.readouterr().err == "kiosk: net.edge: gives tensors; take a detector or a classifier\n"
