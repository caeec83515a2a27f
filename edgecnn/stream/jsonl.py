"""One line of JSON a frame, each in the file before the next frame is written; the file may be rotated."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from edgecnn.paths import cannot_write
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, SourceEvent, Summary
from edgecnn.stream.outputs import WriteFailed, json_text, make_parent

__all__ = ["KEPT", "JsonlSink", "frame_line"]

KEPT = 5
LONGEST_LINE = 2**20


def frame_line(frame: Frame, result: Result) -> dict[str, Any]:
    """What is told of a frame: its number, time and source, the result, and what it took."""
    return {
        "frame": frame.index,
        "time": round(frame.time_s, 3),
        "source": frame.source,
        **result.to_json(),
        "timing_ms": result.timing_ms,
    }


class JsonlSink:
    """Writes ``{"frame", "time", "source", "detections" | "classes" | "tensors", "timing_ms"}`` a frame.

    Each line is handed to the operating system at once: it outlives a program that is killed, but
    the system writes it to the disk when it likes, so a loss of power may cost the latest lines. Of a
    line that does not fit on the disk nothing is left, and the next one is tried again. The last line is
    ``{"summary": {…}}``; where it is missing, the program was killed, or the disk is full. Scores that
    are not finite are null. What happens to a live source comes in between, ``{"event": {…}}``.

    A file that is rotated becomes ``NAME.1`` before it would grow beyond its limit, the one before that
    ``NAME.2``, and so on; no line is ever divided between two.
    """

    def __init__(self, path: str, max_bytes: int | None = None, keep: int = KEPT) -> None:
        """Open the file: one that is rotated goes on where it ended, any other replaces an older one.

        Args:
            path: A file, or ``-`` for standard output, which cannot be rotated.
            max_bytes: Rotate before it gets larger; only a single line may be longer.
            keep: How many of the older files stay.

        Raises:
            InputError: The file cannot be written.
            Unavailable: The disk is full.
        """
        self._name = "standard output" if path == "-" else path
        self._path, self._max_bytes, self._keep = Path(path), max_bytes, keep
        # standard output is looked up at each line; a file is None between two that are rotated
        self._standard = path == "-"
        self._file = None if self._standard else _open(self._path, go_on=max_bytes is not None)
        self._bytes = 0 if max_bytes is None else self._path.stat().st_size
        self._failing = self._torn = self._closed = False
        self._lost_events = 0
        self._writing = threading.Lock()

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one line.

        Raises:
            WriteFailed: The disk is full or broken; nothing of the line is in the file.
        """
        self._failing = True
        self._line(frame_line(frame, result))
        self._failing = False

    def note(self, event: SourceEvent) -> None:
        """Write what happened to a live source; called in the thread that reads it."""
        if not self._closed:
            try:
                self._line({"event": event.to_json()})
            except BrokenPipeError:
                pass  # the next frame's line tells of it
            except WriteFailed:
                self._lost_events += 1

    def close(self, summary: Summary) -> None:
        """Write the summary, unless the frame before it could not be written.

        Raises:
            WriteFailed: It cannot be written, or an event could not.
        """
        self._closed = True
        try:
            if not self._failing:
                self._line({"summary": summary.to_json()})
            if self._lost_events:
                raise WriteFailed(self._name, f"{self._lost_events} events are not in it")
        finally:
            if self._file is not None:
                self._file.close()

    def _line(self, value: dict[str, Any]) -> None:
        line = json_text(value) + "\n"  # ASCII
        with self._writing:
            try:
                if self._torn:
                    raise OSError(errno.EIO, "a line before it is torn")
                if self._max_bytes is not None and 0 < self._bytes > self._max_bytes - len(line):
                    self._rotate()
                self._put(line)
            except BrokenPipeError:
                raise
            except OSError as error:
                self._torn |= self._standard
                raise WriteFailed(self._name, error.strerror) from error
            self._bytes += len(line)

    def _put(self, line: str) -> None:
        """Write all of a line or, where that can be had, nothing of it."""
        if self._standard:
            sys.stdout.write(line)
            sys.stdout.flush()
            return
        if self._file is None:
            self._file = self._path.open("wb", buffering=0)
        left = memoryview(line.encode())
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._torn = True
            with suppress(OSError):
                self._file.truncate(self._bytes)
                self._file.seek(self._bytes)
                self._torn = False
            raise

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        names = [self._path]
        while len(names) <= self._keep and names[-1].exists():
            names.append(_numbered(self._path, len(names)))
        # the oldest first: killed in between, no file has replaced one that was not moved yet
        for older in reversed(range(1, len(names))):
            names[older - 1].replace(names[older])
        self._bytes = 0


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _open(path: Path, *, go_on: bool) -> FileIO:
    make_parent(path)
    try:
        if go_on and path.exists():
            _cut_torn_line(path)
        return path.open("ab" if go_on else "wb", buffering=0)
    except OSError as error:
        raise cannot_write(path, error) from error


def _cut_torn_line(path: Path) -> None:
    """Remove a last line that has no end: the program was killed, or the disk full, while it was written."""
    with path.open("rb+") as file:
        start = max(file.seek(0, os.SEEK_END) - LONGEST_LINE, 0)
        file.seek(start)
        file.truncate(start + file.read().rfind(b"\n") + 1)
