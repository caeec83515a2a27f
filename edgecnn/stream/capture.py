"""A source read in a thread of its own, a few frames ahead of what takes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from edgecnn.stream.base import Frame, Source

__all__ = ["Capture", "Captured", "read"]

JOIN_S = 2.0


@dataclass(frozen=True, eq=False)
class Captured:
    """A frame, and when (``time.perf_counter``) the source was asked for it and gave it."""

    frame: Frame
    asked_s: float
    came_s: float


def read(source: Source) -> Captured | None:
    """Wait for the next frame of a source; None at its end."""
    asked = time.perf_counter()
    frame = next(source, None)
    return None if frame is None else Captured(frame, asked, time.perf_counter())


class Capture:
    """Reads a source in a thread.

    What is live comes when it comes: where nobody took the frames in time, the oldest one is given up
    and counted. Of everything else each frame waits until there is room for it.

    Attributes:
        dropped: Frames that were given up.
    """

    def __init__(self, source: Source, ahead: int) -> None:
        """Begin to read.

        Args:
            source: Read until its end, an error of it, or `close`.
            ahead: How many frames may wait.
        """
        self._source = source
        self._ahead = ahead
        self._waiting: deque[Captured] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._read_all, name=f"read {source.name}", daemon=True)
        self._thread.start()

    def take(self) -> Captured | None:
        """Wait for the oldest frame that is kept; None at the end, and when it is closed.

        Raises:
            EdgeCnnError: What the source raised, once the frames before that are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._closed)
            if self._closed:
                return None
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Read no further; a read that hangs is waited for no longer than some seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(JOIN_S)

    def _read_all(self) -> None:
        try:
            while self._has_room() and (captured := read(self._source)) is not None:
                self._keep(captured)
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait for room; False when it is closed."""
        if not self._source.live:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) < self._ahead or self._closed)
        return not self._closed

    def _keep(self, captured: Captured) -> None:
        with self._changed:
            if len(self._waiting) == self._ahead:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(captured)
            self._changed.notify_all()
