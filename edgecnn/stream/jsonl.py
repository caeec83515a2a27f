"""One line of JSON a frame, each in the file before the next frame is read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from edgecnn.errors import InputError
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, SourceEvent, Summary
from edgecnn.stream.outputs import json_text, make_parent, write_failed

__all__ = ["JsonlSink"]


class JsonlSink:
    """Writes ``{"frame", "time", "source", "detections" | "classes" | "tensors", "timing_ms"}`` a frame.

    Each line is handed to the operating system at once: it outlives a program that is killed, but
    the system writes it to the disk when it likes, so a loss of power may cost the latest lines. The
    last line is ``{"summary": {…}}``; where it is missing, the program was killed. Scores that are
    not finite are null. What happens to a live source comes in between, ``{"event": {…}}``.
    """

    def __init__(self, path: str) -> None:
        """Open the file, replacing an older one.

        Args:
            path: A file, or ``-`` for standard output.

        Raises:
            InputError: The file cannot be written.
        """
        self._name = "standard output" if path == "-" else path
        self._file: TextIO = sys.stdout if path == "-" else _open(Path(path))
        self._broken = self._closed = False
        self._writing = threading.Lock()

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one line."""
        self._line(
            {
                "frame": frame.index,
                "time": round(frame.time_s, 3),
                "source": frame.source,
                **result.to_json(),
                "timing_ms": result.timing_ms,
            }
        )

    def note(self, event: SourceEvent) -> None:
        """Write what happened to a live source; called in the thread that reads it."""
        if not self._closed:
            self._line({"event": event.to_json()})

    def close(self, summary: Summary) -> None:
        """Write the summary, unless a line before it could not be written."""
        self._closed = True
        try:
            if not self._broken:
                self._line({"summary": summary.to_json()})
        finally:
            if self._file is not sys.stdout:
                # what is still buffered fails once more on a full disk, which was reported
                with suppress(OSError):
                    self._file.close()

    def _line(self, value: dict[str, Any]) -> None:
        try:
            with self._writing:
                self._file.write(json_text(value) + "\n")
                self._file.flush()
        except BrokenPipeError:
            self._broken = True
            raise
        except OSError as error:
            self._broken = True
            raise write_failed(self._name, error.strerror) from error


def _open(path: Path) -> TextIO:
    make_parent(path)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
