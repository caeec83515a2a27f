"""A source read in a thread of its own, a few frames ahead of what takes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from edgecnn.stream.base import Frame, Source

__all__ = ["Capture", "Captured", "read"]

log = logging.getLogger(__name__)

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
    """Reads a source in a thread, or several in a thread each.

    What is live comes when it comes: where nobody took the frames in time, the oldest one is given up
    and counted. Of everything else each frame waits until there is room for it. Of several sources the frames
    are given in turn, and one that fails does not end the others.
    """

    def __init__(self, source: Source, ahead: int) -> None:
        """Begin to read.

        Args:
            source: Read until its end, an error of it, or `close`.
            ahead: How many frames may wait; of what is live, it is only the newest one.
        """
        self._changed = threading.Condition()
        self._closed = False
        self._lanes = [_Lane(member, 1 if member.live else ahead) for member in source.members]
        self._turn = 0
        for lane in self._lanes:
            lane.thread = threading.Thread(
                target=self._read_all, args=(lane,), name=f"read {lane.source.name}", daemon=True
            )
            lane.thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were given up."""
        return sum(lane.dropped for lane in self._lanes)

    def take(self) -> Captured | None:
        """Wait for the oldest frame that is kept; None at the end, and when it is closed.

        Raises:
            EdgeCnnError: What the source raised, once the frames before that are taken; of several sources,
                when all have ended so.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or any(lane.waiting for lane in self._lanes)
                    or all(lane.ended for lane in self._lanes)
                )
            )
            if self._closed:
                return None
            for _ in self._lanes:
                lane = self._lanes[self._turn % len(self._lanes)]
                self._turn += 1
                if lane.waiting:
                    self._changed.notify_all()
                    return lane.waiting.popleft()
            errors = [lane.error for lane in self._lanes if lane.error is not None]
            if len(errors) == len(self._lanes):
                raise errors[0]
            return None

    def close(self) -> None:
        """Read no further; a read that hangs is waited for no longer than some seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + JOIN_S
        for lane in self._lanes:
            lane.thread.join(max(end - time.monotonic(), 0))

    def _read_all(self, lane: _Lane) -> None:
        try:
            while self._has_room(lane) and (captured := read(lane.source)) is not None:
                self._keep(lane, captured)
        except BaseException as error:
            lane.error = error
            if len(self._lanes) > 1 and not self._closed:
                log.warning("%s; the other sources go on", error)
        with self._changed:
            lane.ended = True
            self._changed.notify_all()

    def _has_room(self, lane: _Lane) -> bool:
        """Wait for room; False when it is closed."""
        if not lane.source.live:
            with self._changed:
                self._changed.wait_for(lambda: len(lane.waiting) < lane.ahead or self._closed)
        return not self._closed

    def _keep(self, lane: _Lane, captured: Captured) -> None:
        with self._changed:
            if len(lane.waiting) == lane.ahead:
                lane.waiting.popleft()
                lane.dropped += 1
            lane.waiting.append(captured)
            self._changed.notify_all()


class _Lane:
    """A source, and what waits of it."""

    thread: threading.Thread

    def __init__(self, source: Source, ahead: int) -> None:
        self.source = source
        self.ahead = ahead
        self.waiting: deque[Captured] = deque()
        self.dropped = 0
        self.ended = False
        self.error: BaseException | None = None
