"""Outputs that cannot be written for a while, of a camera and of a file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn.errors import Unavailable
from edgecnn.results import Result
from edgecnn.stream import Frame, JsonlSink, Sink, StillSink, Summary, VideoSink, run_stream
from edgecnn.stream.base import Image
from edgecnn.stream.outputs import WriteFailed
from tests.stream.fakes import Frames, Memory, detections, pictures


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
    return run_stream(lambda image: detections(1), Frames(pictures(10), live=live), sinks)


def numbers(sink: Memory) -> list[int]:
    return [frame.index for frame in sink.frames]


def test_a_camera_goes_on_and_the_end_tells_what_is_missing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.stream.enduring.CALM_S", 0.0)
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


def test_a_disk_at_its_edge_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WriteFailed, match="5 frames are not in it"):
        run(True, Failing(range(1, 10, 2)))
    assert [record.getMessage() for record in caplog.records] == [
        "out: writing failed (No space left on device); check the space and the disk; the stream goes on"
    ]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("No space left on device", "No space left on device; 3 frames are not in it"),
        (
            "the video cannot be read back",
            "No space left on device; the video cannot be read back; 3 frames are not in it",
        ),
    ],
)
def test_what_is_missing_is_told_also_when_closing_fails(reason: str, told: str) -> None:
    class Unfinished(Failing):
        def close(self, summary: Summary) -> None:
            raise WriteFailed("out", reason)

    with pytest.raises(WriteFailed) as raised:
        run(True, Unfinished(range(3, 6)))
    assert str(raised.value) == f"out: writing failed ({told}); check the space and the disk"


def test_a_sink_that_hangs_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Hanging(Memory):
        def close(self, summary: Summary) -> None:
            raise KeyboardInterrupt

    run(True, Hanging())
    assert [record.getMessage() for record in caplog.records] == ["Hanging was not closed: interrupted again"]


def opened(path: Path) -> Sink:
    if path.suffix == ".jsonl":
        return JsonlSink(str(path), max_bytes=200)
    return StillSink(path) if path.suffix == ".png" else VideoSink(path, 10, segment_s=0.2)


def remove(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder)


def replace_by_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder)
    folder.touch()


def take_all_inodes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "touch", touch)


def make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for change in ("touch", "replace", "unlink", "write_bytes"):
        monkeypatch.setattr(Path, change, refuse)


@pytest.mark.parametrize("name", ["best.png", "v.mp4", "v.mkv", "o.jsonl"])
@pytest.mark.parametrize("lose", [remove, replace_by_a_file, take_all_inodes, make_read_only])
def test_a_camera_outlives_the_place_of_an_output(
    tmp_path: Path,
    name: str,
    lose: Callable[[Path, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, other, seen = tmp_path / "out", Memory(), []

    def predict(image: Image) -> Result:
        seen.append(1)
        if len(seen) == 4:
            lose(folder, monkeypatch)
        # each one surer than the one before
        return detections(1, len(seen) / 10)

    def stream(sink: Sink) -> None:
        run_stream(predict, Frames(pictures(10), live=True), [sink, other])

    if (name, lose) == ("o.jsonl", take_all_inodes):  # a rotated file is not made in that way
        stream(opened(folder / name))
    else:
        with pytest.raises(WriteFailed, match=r"frames are not in it\); check the space and the disk$"):
            stream(opened(folder / name))
    assert numbers(other) == list(range(10))


@pytest.mark.parametrize("name", ["best.png", "v.mp4", "v.mkv"])
def test_a_place_that_cannot_be_written_at_the_start_is_an_error_there(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    take_all_inodes(tmp_path, monkeypatch)
    with pytest.raises(Unavailable, match=r"cannot be written \(No space left on device\); free some space"):
        opened(tmp_path / name)


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
