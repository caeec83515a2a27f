"""One line of JSON a frame, each on disk before the next frame is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from edgecnn.errors import InputError
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Summary
from edgecnn.stream.outputs import make_parent, write_failed

__all__ = ["JsonlSink"]


class JsonlSink:
    """Writes ``{"frame", "time", "source", "detections" | "classes" | "tensors", "timing_ms"}`` a frame.

    The last line is ``{"summary": {…}}``; where it is missing, the program was killed.
    """

    def __init__(self, path: str) -> None:
        """Open the file, replacing an older one.

        Args:
            path: A file, or ``-`` for standard output.

        Raises:
            InputError: The file cannot be written.
        """
        self._path = path
        self._file: TextIO = sys.stdout if path == "-" else _open(Path(path))
        self._broken = False

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

    def close(self, summary: Summary) -> None:
        """Write the summary, unless a line before it could not be written."""
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
            # ASCII: a file name that is not valid UTF-8 must not break the line
            self._file.write(json.dumps(value) + "\n")
            self._file.flush()
        except BrokenPipeError:
            self._broken = True
            raise
        except OSError as error:
            self._broken = True
            raise write_failed(self._path, error) from error


def _open(path: Path) -> TextIO:
    make_parent(path)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
