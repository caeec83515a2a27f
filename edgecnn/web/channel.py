"""All that the view knows of one source."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from edgecnn.results import Classification, Detections, Result
from edgecnn.stream.base import Frame, Image, Source, SourceEvent
from edgecnn.web.history import History
from edgecnn.web.picture import Newest

__all__ = ["Channel"]

CLASSES_SHOWN = 20
EVENTS_KEPT = 6

Class = tuple[int, str]


class Channel:
    """Its newest picture, its health and its counts; told by the stream, asked by viewers.

    Attributes:
        newest: Gives the picture.
    """

    def __init__(self, source: Source) -> None:
        self.newest = Newest()
        self._source = source
        self._history = History()
        self._lock = threading.Lock()
        self._frames = 0
        self._frame: Frame | None = None
        self._came_s = time.monotonic()
        self._events: deque[SourceEvent] = deque(maxlen=EVENTS_KEPT)
        self._lost_s: float | None = None
        self._now: Counter[Class] = Counter()
        self._total: Counter[Class] = Counter()

    def add(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Take a frame and what was found on it."""
        timing = result.timing_ms
        self._history.add(timing["total"] - timing["wait"] - timing["read"])
        now = Counter(_classes(result))
        with self._lock:
            self._frames += 1
            self._frame = frame
            self._came_s = time.monotonic()
            self._now = now
            self._total.update(now)
        self.newest.put(annotated)

    def note(self, event: SourceEvent) -> None:
        """Take what happened to the source."""
        lost = event.state == "lost"
        self._history.mark(lost)
        with self._lock:
            self._lost_s = time.monotonic() if lost else None
            self._events.append(event)

    def brief(self) -> dict[str, Any]:
        """Its name and state, for a list of sources."""
        with self._lock:
            lost, frames = self._lost_s is not None, self._frames
        return {"name": self._source.name, "state": "lost" if lost else "up" if frames else "waiting"}

    def to_json(self) -> dict[str, Any]:
        """Everything but the picture. Times are ages in seconds: clocks of viewers may be wrong."""
        now_s = time.monotonic()
        live = self._source.live
        with self._lock:
            frame, lost_s = self._frame, self._lost_s
            figures = {
                "frames": self._frames,
                # frames of a camera are numbered as they come, those that nobody took too
                "dropped": frame.index + 1 - self._frames if live and frame is not None else 0,
                "age_s": round(now_s - self._came_s, 1),
                "lost_s": None if lost_s is None else round(now_s - lost_s, 1),
                "events": [event.to_json() for event in reversed(self._events)],
                "classes": self._counts(),
            }
        return {
            **self.brief(),
            "live": live,
            "index": None if frame is None else frame.index,
            "size_hw": None if frame is None else frame.image.shape[:2],
            "announced": self._source.frames_announced,
            "reconnects": self._source.reconnects,
            **figures,
            **self._history.to_json(),
        }

    def _counts(self) -> list[dict[str, Any]]:
        if not self._total:
            return []
        from edgecnn.vision.drawing import class_color

        return [
            {
                "label": label,
                "color": "#{2:02x}{1:02x}{0:02x}".format(*class_color(class_id)),
                "now": self._now[class_id, label],
                "total": total,
            }
            for (class_id, label), total in self._total.most_common(CLASSES_SHOWN)
        ]


def _classes(result: Result) -> list[Class]:
    """One for each box; of the classes of a whole frame the best one."""
    if isinstance(result, Detections):
        return list(zip(result.class_ids.tolist(), result.labels))
    if isinstance(result, Classification):
        return list(zip(result.class_ids.tolist(), result.labels))[:1]
    return []
