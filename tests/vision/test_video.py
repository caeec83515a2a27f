from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import InputError, MediaError
from edgecnn.vision import VideoReader, check_frame, sample_frames
from edgecnn.vision.opencv import cv2
from tests.paths import data


@pytest.fixture
def clip(tmp_path: Any) -> Any:
    """30 frames of 48×64 at 10 per second; frame k is gray of 8 k."""
    path = tmp_path / "clip 7.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for k in range(30):
        writer.write(np.full((48, 64, 3), 8 * k, np.uint8))
    writer.release()
    return path


def numbers(frames: Any) -> list[int]:
    return [round(float(frame.mean()) / 8) for frame in frames]


def test_frames_in_order(clip: Any) -> None:
    with VideoReader(clip) as video:
        assert video.size_hw == (48, 64)
        assert video.fps == pytest.approx(10)
        assert video.announced_frames == 30
        frames = list(video)
        assert list(video) == []
    assert numbers(frames) == list(range(30))
    check_frame(frames[0])
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(frames))


def test_iterating_goes_on_where_it_stopped(clip: Any) -> None:
    with VideoReader(clip) as video:
        first = next(iter(video))
        assert video.skip()
        assert numbers([first, next(iter(video))]) == [0, 2]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (2, [0, 29]), (4, [0, 10, 19, 29]), (30, list(range(30))), (500, list(range(30)))],
)
def test_samples_are_spread_evenly(clip: Any, count: Any, expected: Any) -> None:
    assert numbers(sample_frames(clip, count)) == expected


def test_samples_of_none_are_refused(clip: Any) -> None:
    with pytest.raises(InputError, match="cannot sample 0 frames"):
        sample_frames(clip, 0)


def test_a_container_that_announces_too_much_ends_where_it_ends() -> None:
    path = data("video/tree.avi")
    with VideoReader(path) as video:
        assert video.announced_frames == 444
        assert sum(1 for _ in video) == 68
    frames = sample_frames(path, 5)
    assert len(frames) == 5
    assert len({frame.tobytes() for frame in frames}) == 5


def test_a_video_cut_short_ends_at_what_decodes(clip: Any) -> None:
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    with VideoReader(clip) as video:
        assert 1 <= sum(1 for _ in video) < 30


@pytest.mark.parametrize("name", ["a.mp4", "clip_001.avi"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", r"the file is empty \(0 bytes\)"), (b"this is not a video" * 50, "not a video that can be read")],
)
def test_what_is_not_a_video_is_refused(tmp_path: Any, name: Any, content: Any, message: Any) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MediaError, match=f"{name}: {message}") as raised:
        VideoReader(path)
    assert "\n" not in str(raised.value)


def test_missing_files_and_folders_are_refused(tmp_path: Any) -> None:
    with pytest.raises(MediaError, match=r"gone.mp4: cannot be read \(No such file or directory\)"):
        VideoReader(tmp_path / "gone.mp4")
    with pytest.raises(MediaError, match="a folder, not a video"):
        VideoReader(tmp_path)


def test_a_video_without_frames_is_refused(clip: Any) -> None:
    whole = clip.read_bytes()
    clip.write_bytes(whole[: whole.index(b"movi") + 4])
    with pytest.raises(MediaError, match=r"no frame of it decodes|not a video"):
        VideoReader(clip)


def test_a_video_that_claims_to_be_enormous_is_refused(clip: Any) -> None:
    whole = bytearray(clip.read_bytes())
    strf = whole.index(b"strf") + 8  # a BITMAPINFOHEADER
    whole[strf + 4 : strf + 12] = struct.pack("<ii", 16_000, 12_000)
    for start in re.finditer(b"\xff\xc0", bytes(whole)):  # and each frame, a JPEG
        whole[start.end() + 3 : start.end() + 7] = struct.pack(">HH", 12_000, 16_000)
    clip.write_bytes(whole)
    with pytest.raises(MediaError, match=r"clip 7\.avi: 12000×16000 px is more than the"):
        VideoReader(clip)


@pytest.mark.parametrize("text", ["frames: none\n" * 20, "ein Wörterbuch\n" * 400, "short"])
def test_text_is_not_a_video(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.avi").write_text(text, encoding="utf-8")
    with pytest.raises(MediaError, match=r"notes\.avi: not a video that can be read"):
        VideoReader(tmp_path / "notes.avi")
