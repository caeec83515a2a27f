"""What keeps a live stream going when an output of it cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Sink, Summary
from edgecnn.stream.outputs import WriteFailed

__all__ = ["Enduring"]

log = logging.getLogger(__name__)


class Enduring:
    """A sink that may fail to write: it goes without some frames, and is asked again with the next one.

    When a disk is full, the frames of a file can wait, and ending with an error is best; those of a camera
    cannot, and its other outputs are as good as before. At the end, what is missing is an error.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._failure: WriteFailed | None = None
        self._since = self._missing = 0

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one frame, or count it."""
        try:
            self._sink.write(frame, result, annotated)
        except WriteFailed as error:
            if self._since == 0:
                log.warning("%s; the stream goes on", error)
            self._failure = error
            self._since += 1
            self._missing += 1
            return
        if self._failure and self._since:
            log.warning("%s: written again, without %d frames", self._failure.output, self._since)
            self._since = 0

    def close(self, summary: Summary) -> None:
        """Close the sink.

        Raises:
            WriteFailed: Frames are not in the output.
        """
        self._sink.close(summary)
        if self._failure is not None:
            lacking = f"{self._failure.reason}; {self._missing} frames are not in it"
            raise WriteFailed(self._failure.output, lacking)
