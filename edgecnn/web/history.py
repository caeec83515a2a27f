"""Frames and latencies of the last two minutes, second by second."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["SECONDS_KEPT", "History"]

SECONDS_KEPT = 120
SECONDS_OF_NOW = 3


@dataclass
class _Second:
    number: int
    lost: bool
    latencies_ms: list[float] = field(default_factory=list)
    frames: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None

    def end(self) -> None:
        """Keep figures instead of the list: nothing is added any more."""
        self.frames = len(self.latencies_ms)
        if self.frames:
            self.p50_ms, self.p95_ms = np.percentile(self.latencies_ms, (50, 95)).round(2).tolist()
        self.latencies_ms = []


class History:
    """Counts what happens, in buckets of a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lost = False
        self._seconds = deque([_Second(int(clock()), False)], maxlen=SECONDS_KEPT + 1)

    def add(self, latency_ms: float) -> None:
        """Count a frame."""
        with self._lock:
            self._running().latencies_ms.append(latency_ms)

    def mark(self, lost: bool) -> None:
        """Note that the source is lost from now on, or back."""
        with self._lock:
            self._running().lost |= lost
            self._lost = lost

    def to_json(self) -> dict[str, Any]:
        """Whole seconds, the oldest first, and the means of the latest ones."""
        with self._lock:
            self._running()
            seconds = list(self._seconds)[:-1]
        latest = seconds[-SECONDS_OF_NOW:]
        frames = sum(second.frames for second in latest)
        return {
            "fps": round(frames / len(latest), 1) if latest else None,
            "p50_ms": _mean([second.p50_ms for second in latest]),
            "p95_ms": _mean([second.p95_ms for second in latest]),
            "seconds": {
                name: [getattr(second, name) for second in seconds]
                for name in ("frames", "p50_ms", "p95_ms", "lost")
            },
        }

    def _running(self) -> _Second:
        """The second that it is now; those that passed without a frame are filled in."""
        now = int(self._clock())
        last = self._seconds[-1]
        if now > last.number:
            last.end()
            for number in range(max(last.number + 1, now - SECONDS_KEPT), now + 1):
                self._seconds.append(_Second(number, self._lost))
        return self._seconds[-1]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None
