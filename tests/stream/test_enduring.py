"""Outputs that cannot be written for a while, of a camera and of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edgecnn.results import Result
from edgecnn.stream import Frame, Source, Summary, run_stream
from edgecnn.stream.base import Image
from edgecnn.stream.outputs import WriteFailed
from tests.stream.fakes import Memory, detections, picture


class Frames(Source):
    """Ten of them, one after the other."""

    name, ahead = "camera:0", False

    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self.live = live

    def _read(self) -> Iterator[Frame]:
        for number in range(10):
            yield Frame(number, picture(number), 0.0, self.name)


class Failing(Memory):
    """Takes all frames but some."""

    def __init__(self, failing: range, error: Exception | None = None) -> None:
        super().__init__()
        self._failing = failing
        self._error = error or WriteFailed("out", "No space left on device")

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        if frame.index in self._failing:
            raise self._error
        super().write(frame, result, annotated)


def run(live: bool, *sinks: Failing | Memory) -> Summary:
    return run_stream(lambda image: detections(1), Frames(live=live), sinks)


def numbers(sink: Memory) -> list[int]:
    return [frame.index for frame in sink.frames]


def test_a_camera_goes_on_and_the_end_tells_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    failing, other = Failing(range(3, 6)), Memory()
    message = r"^out: writing failed \(No space left on device; 3 frames are not in it\); check the space"
    with pytest.raises(WriteFailed, match=message):
        run(True, failing, other)
    assert numbers(failing) == [0, 1, 2, 6, 7, 8, 9]
    assert numbers(other) == list(range(10))
    assert failing.summary is not None
    assert failing.summary.frames == 10
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "out: writing failed (No space left on device); check the space and the disk; the stream goes on",
        "out: written again, without 3 frames",
    ]


def test_a_file_ends_at_once() -> None:
    failing, other = Failing(range(3, 6)), Memory()
    with pytest.raises(WriteFailed, match=r"^out: writing failed \(No space left on device\)"):
        run(False, failing, other)
    assert numbers(other) == [0, 1, 2]


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("a mistake")])
def test_other_failures_end_a_camera_too(error: Exception) -> None:
    failing = Failing(range(3, 6), error)
    with pytest.raises(type(error)):
        run(True, failing)
    assert numbers(failing) == [0, 1, 2]
