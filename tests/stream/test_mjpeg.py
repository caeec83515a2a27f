from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream.mjpeg import PART_BYTES_MAX, MjpegCapture, open_mjpeg
from tests.stream.servers import jpeg

KIND = "multipart/x-mixed-replace"


def part(data: bytes, length: int | None = None, name: bytes = b"--next") -> bytes:
    count = len(data) if length is None else length
    head = b"Content-Type: image/jpeg\r\n" + (b"" if count < 0 else b"Content-Length: %d\r\n" % count)
    return name + b"\r\n" + head + b"\r\n" + data + b"\r\n"


def shapes(stream: bytes, boundary: str = "next") -> list[tuple[int, ...]]:
    headers = Message()
    headers["Content-Type"] = f'{KIND}; boundary="{boundary}"'
    capture, found = MjpegCapture(io.BytesIO(stream), headers), []
    while True:
        ok, image = capture.read()
        if not ok or image is None:
            return found
        found.append(image.shape)


ONE, OTHER = jpeg(1), jpeg(2, (64, 80))
BOTH = [(96, 128, 3), (64, 80, 3)]


@pytest.mark.parametrize("boundary", ["next", "--next"])
def test_pictures_of_any_size(boundary: str) -> None:
    assert shapes(part(ONE) + part(OTHER), boundary) == BOTH


def test_cameras_that_do_not_tell_the_length() -> None:
    assert shapes(part(ONE, -1) + part(OTHER, -1)) == BOTH


@pytest.mark.parametrize(
    "spoilt",
    [
        part(b"no picture"),
        part(ONE[: len(ONE) // 2]),  # would decode, with grey in the place of what is missing
        part(b"\xff\xd8 no picture \xff\xd9"),
        part(b""),
        b"--next\r\nContent-Length: 2\r\nX: y\r\n\r\nab\r\n",
    ],
)
def test_what_is_no_whole_picture_is_passed_over(spoilt: bytes) -> None:
    assert shapes(part(ONE) + spoilt + part(OTHER)) == BOTH


@pytest.mark.parametrize(
    "end", [b"", b"--next", part(ONE)[:-900], part(b"", PART_BYTES_MAX + 1), b"\0" * 100_000]
)
def test_ends(end: bytes) -> None:
    assert shapes(part(ONE) + end) == BOTH[:1]


@contextmanager
def answering(code: int, kind: str, login: str | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = None if login is None else f"Basic {base64.b64encode(login.encode()).decode()}"
            if expected is not None and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(part(ONE))

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/video"
        finally:
            server.shutdown()
            thread.join()


def test_user_and_password_are_given() -> None:
    with answering(200, f"{KIND}; boundary=next", "me@home:a/b") as place:
        capture = open_mjpeg(f"http://me%40home:a%2Fb@{place}", 5)
        assert capture is not None
        assert capture.read()[0]
        capture.release()
        with pytest.raises(DeviceUnavailable, match="it answers with 401"):
            open_mjpeg(f"http://me:wrong@{place}", 5)


def test_something_else_is_left_to_others() -> None:
    with answering(200, "video/mp4") as place:
        assert open_mjpeg(f"http://{place}", 5) is None


def test_error_of_the_server() -> None:
    with answering(404, "text/html") as place, pytest.raises(DeviceUnavailable, match="answers with 404"):
        open_mjpeg(f"http://{place}", 5)


def test_nobody_there() -> None:
    with answering(200, "text/html") as place:
        pass
    with pytest.raises(DeviceUnavailable, match=r"it does not answer \(.*refused"):
        open_mjpeg(f"http://{place}", 5)
