"""The line at the bottom of a terminal, read as a terminal would show it."""

from __future__ import annotations

import errno
import io
from types import SimpleNamespace

import pytest

from edgecnn.cli import _line
from edgecnn.cli._line import CLEAR, note, progress_text, status_line


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """Its lines, the last one after what was cleared."""
        return [line.split(CLEAR)[-1] for line in self.getvalue().split("\n")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(_line, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setattr(_line, "REFRESH_S", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    return made


def test_each_text_takes_the_place_of_the_one_before(terminal: Terminal) -> None:
    with status_line() as line:
        line.show("frame 1")
        line.show("frame 2")
        assert terminal.screen() == ["frame 2"]
    assert terminal.screen() == [""]


def test_notes_stay_above(terminal: Terminal) -> None:
    with status_line() as line:
        line.show("frame 1")
        note("a warning")
        assert terminal.screen() == ["a warning", "frame 1"]
    note("after")
    assert terminal.screen() == ["a warning", "after", ""]


def test_what_cannot_be_written_is_left_out(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with status_line() as line:
        with monkeypatch.context() as patched:
            patched.setattr(terminal, "write", full)
            line.show("frame 1")
            note("a warning")
        line.show("frame 2")
        assert terminal.screen() == ["frame 2"]


def test_long_texts_are_cut_to_the_width(terminal: Terminal) -> None:
    with status_line() as line:
        line.show("x" * 100)
        assert terminal.screen() == ["x" * 38 + "…"]


def test_texts_that_come_too_soon_are_left_out(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_line, "REFRESH_S", 60.0)
    with status_line() as line:
        line.show("frame 1")
        line.show("frame 2")
        assert terminal.screen() == ["frame 1"]


@pytest.mark.parametrize("visible", [True, False])
def test_nothing_is_written_where_nobody_looks(capsys: pytest.CaptureFixture[str], visible: bool) -> None:
    with status_line(visible) as line:
        line.show("frame 1")
        note("a warning")
    assert capsys.readouterr().err == "a warning\n"


def test_not_wanted_on_a_terminal(terminal: Terminal) -> None:
    with status_line(False) as line:
        line.show("frame 1")
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 0, 5.0, "work …"),
        (0, 4, 5.0, "work ░░░░░░░░░░░░░░░░░░░░░░░░ 0/4"),
        (1, 4, 5.0, "work ██████░░░░░░░░░░░░░░░░░░ 1/4, 0:15 left"),
        (1, 1001, 6.0, "work ░░░░░░░░░░░░░░░░░░░░░░░░ 1/1001, 1:40:00 left"),
        (4, 4, 5.0, "work ████████████████████████ 4/4"),
    ],
)
def test_progress(done: int, total: int, seconds: float, text: str) -> None:
    assert progress_text("work", done, total, seconds) == text
