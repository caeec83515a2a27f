"""Several sources at once, folders that are watched, raw frames in a pipe."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable, InputError, MediaError
from edgecnn.stream import Frame, open_source, open_sources, run_stream
from edgecnn.stream.base import Source
from edgecnn.stream.pipe import PipeSource
from edgecnn.stream.several import SeveralSources
from edgecnn.stream.watched import WatchedFolder
from tests.stream.fakes import Memory, detections, picture, pictures, write_picture, write_video


class Lost(Source):
    """Gives some pictures, then fails."""

    name = "lost"

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield Frame(index, picture(index), 0.0, self.name)
        raise DeviceUnavailable("lost: the cable was pulled")


def test_each_source_keeps_its_order_and_gets_its_turn(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{name}.avi", count=6) for name in "abc"]
    sink = Memory()
    with open_sources(paths) as source:
        assert (source.name, source.frames_announced, source.paths) == ("3 sources", 18, tuple(paths))
        summary = run_stream(lambda image: detections(1), source, [sink], workers=2)
    assert summary.frames == 18
    for path in paths:
        assert [frame.index for frame in sink.frames if frame.source == str(path)] == list(range(6))
    # nobody is a whole video ahead
    assert {frame.source for frame in sink.frames[:12]} == {str(path) for path in paths}


def test_one_that_fails_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    sink = Memory()
    with SeveralSources([Lost(2), open_source(pictures(9))]) as source:
        assert run_stream(lambda image: detections(1), source, [sink]).frames == 11
    assert [record.getMessage() for record in caplog.records] == [
        "lost: the cable was pulled; the other sources go on"
    ]


def test_all_that_fail_are_an_error() -> None:
    with SeveralSources([Lost(1), Lost(2)]) as source, pytest.raises(DeviceUnavailable, match="cable"):
        run_stream(lambda image: detections(1), source)


def test_one_that_cannot_be_opened_closes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Source, "close", lambda self: closed.append(self.name))
    write_picture(tmp_path / "a.png")
    with pytest.raises(MediaError, match="nope"):
        open_sources([tmp_path / "a.png", tmp_path / "nope"])
    assert closed == [str(tmp_path / "a.png")]


def test_counts_are_those_of_all() -> None:
    one, other = Lost(1), Lost(1)
    with SeveralSources([one, other]) as source:
        one.dropped, other.dropped, one.reconnects, other.skipped = 3, 4, 1, 2
        assert (source.dropped, source.reconnects, source.skipped) == (7, 1, 2)
        heard: list[object] = []
        source.listen(heard.append)
        assert [member._listeners for member in source.members] == [[heard.append]] * 2


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[WatchedFolder, list[Frame]]]:
    """A watched folder and the frames that came of it, read in another thread."""
    source = open_source(f"watch://{tmp_path}")
    assert isinstance(source, WatchedFolder)
    reading = _Collected(source)
    reading.start()
    yield source, reading.frames
    source.close()
    reading.join(5)
    assert not reading.is_alive()


class _Collected(threading.Thread):
    def __init__(self, source: Source) -> None:
        super().__init__(daemon=True)
        self.frames: list[Frame] = []
        self._from = source

    def run(self) -> None:
        for frame in self._from:
            self.frames.append(frame)


def wait_for(frames: list[Frame], count: int) -> list[str]:
    end = time.monotonic() + 10
    while len(frames) < count and time.monotonic() < end:
        time.sleep(0.01)
    return [Path(frame.source).name for frame in frames]


def test_pictures_are_taken_as_they_come(tmp_path: Path, watched: tuple[WatchedFolder, list[Frame]]) -> None:
    _, frames = watched
    write_picture(tmp_path / "b.png", 10)
    assert wait_for(frames, 1) == ["b.png"]
    write_picture(tmp_path / "a.jpg", 20)
    (tmp_path / "notes.txt").write_text("no picture")
    write_picture(tmp_path / ".hidden.png", 30)
    assert wait_for(frames, 2) == ["b.png", "a.jpg"]
    write_picture(tmp_path / "b.png", 40)
    assert wait_for(frames, 3) == ["b.png", "a.jpg", "b.png"]
    assert [round(float(frame.image.mean())) for frame in frames] == [10, 20, 40]
    time.sleep(0.6)
    assert len(frames) == 3


def test_picture_that_is_being_written_is_waited_for(
    tmp_path: Path, watched: tuple[WatchedFolder, list[Frame]]
) -> None:
    source, frames = watched
    whole = write_picture(tmp_path / "elsewhere" / "a.png", 10).read_bytes()
    with (tmp_path / "a.png").open("wb") as file:
        for byte in range(0, len(whole), max(len(whole) // 6, 1)):
            file.write(whole[byte : byte + max(len(whole) // 6, 1)])
            file.flush()
            time.sleep(0.1)
    assert wait_for(frames, 1) == ["a.png"]
    assert source.skipped == 0


def test_picture_that_cannot_be_read_is_skipped(
    tmp_path: Path, watched: tuple[WatchedFolder, list[Frame]]
) -> None:
    source, frames = watched
    (tmp_path / "a.png").write_text("no picture")
    end = time.monotonic() + 10
    while source.skipped == 0 and time.monotonic() < end:
        time.sleep(0.01)
    write_picture(tmp_path / "b.png", 10)
    assert wait_for(frames, 1) == ["b.png"]
    assert source.skipped == 1


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be watched"):
        open_source(f"watch://{tmp_path}/nope")


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as here, os.fdopen(writing, "wb", buffering=0) as there:
        yield here, there


def test_raw_frames(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    here, there = pipe
    frames = pictures(3)
    writing = threading.Thread(target=lambda: (there.write(frames.tobytes()), there.close()))
    writing.start()
    with PipeSource((48, 64), here) as source:
        found = list(source)
    writing.join()
    assert [frame.index for frame in found] == [0, 1, 2]
    np.testing.assert_array_equal([frame.image for frame in found], frames)


def test_raw_frame_that_is_cut_short(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    here, there = pipe
    there.write(pictures(1).tobytes() + b"123")
    there.close()
    with PipeSource((48, 64), here) as source:
        next(source)
        with pytest.raises(MediaError, match=r"within frame 1 \(9213 of 9216 bytes are missing"):
            next(source)


def test_silent_pipe_can_be_closed(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    with PipeSource((48, 64), pipe[0]) as source:
        reading = _Collected(source)
        reading.start()
    reading.join(5)
    assert not reading.is_alive()


@pytest.mark.parametrize("size_hw", [None, (0, 4), (4, 40_000)])
def test_raw_frames_need_a_size(size_hw: tuple[int, int] | None, pipe: tuple[BinaryIO, BinaryIO]) -> None:
    with pytest.raises(InputError, match="source -: "):
        PipeSource(size_hw, pipe[0])
