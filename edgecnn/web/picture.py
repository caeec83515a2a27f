"""The newest frame as a JPEG: made when somebody asks for it, and once for all who do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from edgecnn.stream.base import Image

__all__ = ["Newest", "Picture"]

PICTURES_PER_S_MAX = 25.0
# of the time of one core: a small device needs its cores for the model
SHARE_MAX = 0.25
JPEG_QUALITY = 85


class Picture(NamedTuple):
    """A picture and the number of its frame, counted from 1."""

    number: int
    jpeg: bytes


class Newest:
    """Keeps the newest frame; drawing and encoding happen in the thread of whoever asks.

    However many ask, a frame is encoded once, there are no more than `PICTURES_PER_S_MAX`, and making them
    takes no more than `SHARE_MAX` of a core. Who is slow misses frames.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._annotated: Callable[[], Image] | None = None
        self._making = threading.Lock()
        self._made = Picture(0, b"")
        self._next_s = 0.0

    def put(self, annotated: Callable[[], Image]) -> None:
        """Take the next frame; does not wait for anybody."""
        with self._changed:
            self._number += 1
            self._annotated = annotated
            self._changed.notify_all()

    def get(self, after: int, wait_s: float) -> Picture | None:
        """Give a picture that is not older than others were given.

        Args:
            after: The number of the picture that the caller has; another one is given.
            wait_s: How long to wait for it.

        Returns:
            The picture; None where no other frame came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number not in (0, after), wait_s)
        with self._making:
            if self._made.number == after:
                time.sleep(max(self._next_s - time.monotonic(), 0))
            if time.monotonic() >= self._next_s:
                self._make()
            return self._made if self._made.number not in (0, after) else None

    def close(self) -> None:
        """Let go of the frame, and of all who wait for the next one."""
        with self._changed:
            self._number += 1
            self._annotated = None
            self._changed.notify_all()

    def _make(self) -> None:
        with self._changed:
            number, annotated = self._number, self._annotated
        if annotated is None or number == self._made.number:
            return
        from edgecnn.vision.opencv import cv2

        start = time.monotonic()
        _, data = cv2.imencode(".jpg", annotated(), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        self._made = Picture(number, data.tobytes())
        self._next_s = start + max(1 / PICTURES_PER_S_MAX, (time.monotonic() - start) / SHARE_MAX)
