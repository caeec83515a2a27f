"""What keeps a live stream going when an output of it cannot be written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Sink, Summary
from edgecnn.stream.outputs import WriteFailed

__all__ = ["Enduring"]

log = logging.getLogger(__name__)

# how long nothing has to fail before that is told: a disk at its edge takes every other frame
CALM_S = 10.0


class Enduring:
    """A sink that may fail to write: it goes without some frames, and is asked again with the next one.

    When a disk is full, the frames of a file can wait, and ending with an error is best; those of a camera
    cannot, and its other outputs are as good as before. At the end, what is missing is an error.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._failure: WriteFailed | None = None
        self._failed_s = 0.0
        self._since = self._missing = 0

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one frame, or count it."""
        try:
            self._sink.write(frame, result, annotated)
        except WriteFailed as error:
            if self._since == 0:
                log.warning("%s; the stream goes on", error)
            self._failure = error
            self._failed_s = time.monotonic()
            self._since += 1
            self._missing += 1
            return
        if self._failure and self._since and time.monotonic() - self._failed_s >= CALM_S:
            log.warning("%s: written again, without %d frames", self._failure.output, self._since)
            self._since = 0

    def close(self, summary: Summary) -> None:
        """Close the sink.

        Raises:
            WriteFailed: Frames are not in the output, or it cannot be finished.
        """
        reasons = [self._failure.reason] if self._failure else []
        try:
            self._sink.close(summary)
        except WriteFailed as error:
            if self._failure is None:
                raise
            reasons.append(error.reason)
        if self._failure is not None:
            lacking = f"{self._missing} frames are not in it"
            raise WriteFailed(self._failure.output, "; ".join(map(str, dict.fromkeys([*reasons, lacking]))))
