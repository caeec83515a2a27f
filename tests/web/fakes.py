"""A stream that a test moves on by hand, and requests as somebody makes them who is no browser."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgecnn.results import Result
from edgecnn.stream import Frame, Summary
from edgecnn.stream.base import Image, Source
from edgecnn.vision.drawing import draw
from edgecnn.web import WebSink
from tests.stream.fakes import detections, picture

SUMMARY = Summary(0, 0, 0.0, None, None, 0, 0.0)
TIMING_MS = {"read": 1.0, "wait": 2.0, "total": 8.0}
PATIENCE_S = 20.0


class Camera(Source):
    """A live source whose frames a test hands out itself."""

    live = True

    def __init__(self, name: str = "camera:0") -> None:
        self.name = name
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        yield from ()


class Show:
    """A sink with a source, for as long as a block lasts."""

    def __init__(self, where: str = "0", source: Source | None = None, about: str = "face on ort") -> None:
        self.source = source or Camera()
        self.sink = WebSink(where, self.source, about)
        self.drawn = 0
        self.index = 0

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.sink.url)
        return parts.hostname or "", parts.port or 0

    def frame(
        self, result: Result | None = None, image: Image | None = None, source: str = "camera:0"
    ) -> None:
        """Have the next frame written."""
        found = replace(detections(1) if result is None else result, timing_ms=TIMING_MS)
        frame = Frame(self.index, picture(100, (96, 128)) if image is None else image, 0.0, source)
        self.index += 1

        def annotated() -> Image:
            self.drawn += 1
            return draw(frame.image, found)

        self.sink.write(frame, found, annotated)

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request in a connection of its own."""
        host, port = self.place
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        try:
            connection.request(
                method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def state(self, source: int = 0) -> Any:
        """The figures."""
        status, _, body = self.get(f"/state.json?source={source}")
        assert status == 200
        return json.loads(body)

    def connect(self) -> socket.socket:
        """A connection on which nothing was said yet."""
        return socket.create_connection(self.place, timeout=PATIENCE_S)

    def __enter__(self) -> Show:
        return self

    def __exit__(self, *exception: object) -> None:
        self.sink.close(SUMMARY)


@contextmanager
def moving(show: Show, fps: float = 20.0) -> Iterator[None]:
    """Frames go on in another thread, with a box that moves to the right."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(1 / fps):
            image = picture(100, (96, 128))
            found = detections(1)
            left = show.index * 4 % 100
            show.frame(replace(found, boxes=np.array([[left, 20, left + 20, 60]], np.float32)), image)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def until(true: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something."""
    end_s = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)
