"""What is said on standard error, and one line there that is written over while something goes on.

Nothing fails because of what cannot be said: it is left out. A library for the line would weigh as much on
a device as all of edgecnn.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["StatusLine", "note", "progress_text", "status_line"]

CLEAR = "\r\x1b[2K"
REFRESH_S = 0.1
BAR_WIDTH = 24


class StatusLine:
    """Shows one text after another on standard error, at most ten a second.

    Attributes:
        visible: Standard error is a terminal and the line is wanted; else nothing is written.
    """

    def __init__(self, visible: bool) -> None:
        self.visible = visible and sys.stderr.isatty()
        self._text = ""
        self._written_s = float("-inf")

    def show(self, text: str) -> None:
        """Replace what stands there; a text that comes too soon after another is left out."""
        now = time.monotonic()
        if self.visible and text != self._text and now - self._written_s >= REFRESH_S:
            self._text, self._written_s = text, now
            _write(self._shown())

    def above(self, text: str) -> None:
        """Write a line that stays, above the one that does not."""
        _write(f"{CLEAR if self._text else ''}{text}\n{self._shown()}")

    def clear(self) -> None:
        """Leave an empty line behind."""
        if self._text:
            _write(CLEAR)
        self._text = ""

    def _shown(self) -> str:
        if not self._text:
            return ""
        width = shutil.get_terminal_size().columns - 1
        return CLEAR + (self._text if len(self._text) <= width else self._text[: width - 1] + "…")


def _write(text: str) -> None:
    with suppress(OSError):  # its reader went away, or it is a file on a full disk
        sys.stderr.write(text)
        sys.stderr.flush()


_current = StatusLine(False)


@contextmanager
def status_line(visible: bool = True) -> Iterator[StatusLine]:
    """A line that is gone at the end; `note` writes above it."""
    global _current
    before, _current = _current, StatusLine(visible)
    try:
        yield _current
    finally:
        _current.clear()
        _current = before


def note(text: str) -> None:
    """Write a line to standard error, above the one that is there."""
    _current.above(text)


def progress_text(what: str, done: int, total: int, seconds: float) -> str:
    """What is under way, with a bar and the time left where a total is known."""
    if total <= 0:
        return f"{what} …"
    share = min(done / total, 1.0)
    filled = round(share * BAR_WIDTH)
    left = f", {_clock(seconds * (1 - share) / share)} left" if 0 < share < 1 else ""
    return f"{what} {'█' * filled}{'░' * (BAR_WIDTH - filled)} {done}/{total}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
