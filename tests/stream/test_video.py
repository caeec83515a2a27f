"""Video that goes on for months: segments, and programs that are killed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from edgecnn.errors import InputError
from edgecnn.stream import Frame, Summary, VideoSink
from edgecnn.vision.video import VideoReader
from tests.stream.fakes import detections, picture
from tests.stream.killed import write_until_killed

SUMMARY = Summary(frames=1, dropped=0, fps=1.0, p50_ms=1.0, p95_ms=1.0, reconnects=0, seconds=1.0)


def write(sink: VideoSink, count: int, size_hw: tuple[int, int] = (48, 64)) -> None:
    for number in range(count):
        drawn = partial(picture, 5 * number, size_hw)
        sink.write(Frame(number, drawn(), number / 10, "camera:0"), detections(0), drawn)


def frames(path: Path) -> int:
    with VideoReader(path) as video:
        return sum(1 for _ in video)


def segments(folder: Path) -> dict[str, int]:
    return {path.name: frames(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_segments_hold_every_frame_once(tmp_path: Path, suffix: str) -> None:
    sink = VideoSink(tmp_path / f"v{suffix}", 10, segment_s=1)
    write(sink, 25)
    sink.close(SUMMARY)
    assert segments(tmp_path) == {f"v-00000{n}{suffix}": count for n, count in ((1, 10), (2, 10), (3, 5))}


def test_segments_go_on_after_those_of_an_earlier_run(tmp_path: Path) -> None:
    for count in (10, 5):
        sink = VideoSink(tmp_path / "v.avi", 10, segment_s=1)
        write(sink, count)
        sink.close(SUMMARY)
    assert segments(tmp_path) == {"v-000001.avi": 10, "v-000002.avi": 5}


def test_only_the_newest_segments_stay_and_other_files_too(tmp_path: Path) -> None:
    for other in ("v.avi", "v-1.avi", "w-000001.avi", "v-000001.mp4"):
        (tmp_path / other).write_bytes(b"mine")
    sink = VideoSink(tmp_path / "v.avi", 10, segment_s=1, keep=2)
    write(sink, 50)
    sink.close(SUMMARY)
    found = {path.name for path in tmp_path.iterdir() if path.read_bytes() != b"mine"}
    assert found == {"v-000003.avi", "v-000004.avi", "v-000005.avi"}
    assert len(list(tmp_path.iterdir())) == 7


def test_each_segment_has_the_size_of_its_first_frame(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "v.avi", None, segment_s=1)
    write(sink, 25)
    write(sink, 5, (96, 128))
    sink.close(SUMMARY)
    with VideoReader(tmp_path / "v-000002.avi") as video:
        assert video.size_hw == (96, 128)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_matroska_lacks_a_quarter_of_a_megabyte(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "v.mkv"
    last = write_until_killed(f"VideoSink(Path({str(path)!r}), 10)", seed, least=200)
    # of these small pictures, FFmpeg's buffer holds some 80, and a group of 12 is written at once
    assert last - 100 <= frames(path) <= last + 2


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_segments_before_the_last_are_whole(tmp_path: Path, seed: int) -> None:
    last = write_until_killed(f"VideoSink(Path({str(tmp_path / 'v.mp4')!r}), 10, 2)", seed, least=60)
    whole = [path for path in sorted(tmp_path.iterdir()) if not path.name.startswith(".")]
    assert [frames(path) for path in whole] == [20] * len(whole)
    assert last - 20 < 20 * len(whole) <= last + 1


def test_matroska_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "v.mkv").mkdir()
    with pytest.raises(InputError, match=r"v\.mkv: cannot be written \(Is a directory\)"):
        write(VideoSink(tmp_path / "v.mkv", 10), 1)
