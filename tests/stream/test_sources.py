from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable, InputError, MediaError
from edgecnn.stream import Frame, open_source
from edgecnn.stream.base import Image
from tests.paths import data
from tests.stream.fakes import picture, pictures, write_picture, write_video


def frames_of(where: Any) -> list[Frame]:
    with open_source(where) as source:
        return list(source)


def test_image(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "one.png", 77)
    with open_source(path) as source:
        assert (source.fps, source.live, source.frames_announced, source.root) == (None, False, 1, None)
        [frame] = source
    assert (frame.index, frame.time_s, frame.source) == (0, 0.0, str(path))
    np.testing.assert_array_equal(frame.image, picture(77))


def test_folder_is_sorted_recursive_and_blind_to_case(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpg", "sub/c.Bmp", ".hidden/d.png", "notes.txt"]
    for name in names[:-1]:
        write_picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(str(tmp_path)) as source:
        assert source.root == tmp_path
        assert source.frames_announced == 3
        found = [(f.index, Path(f.source).relative_to(tmp_path).as_posix()) for f in source]
        assert source.skipped == 0
    assert found == [(0, "a.jpg"), (1, "b.PNG"), (2, "sub/c.Bmp")]


def test_folder_skips_and_counts_what_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("edgecnn"), "propagate", True)
    write_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not a picture")
    write_picture(tmp_path / "c.png")
    with open_source(tmp_path) as source:
        found = [(f.index, Path(f.source).name) for f in source]
        assert source.skipped == 1
    assert found == [(0, "a.png"), (1, "c.png")]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "b.png" in record.getMessage()


def test_folder_without_a_readable_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a picture")
    with open_source(tmp_path) as source, pytest.raises(MediaError, match="none of its 1 images can be read"):
        next(source)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no image"):
        open_source(tmp_path)


def test_video_time_is_index_over_fps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", count=6, fps=10)
    with open_source(path) as source:
        assert source.fps == 10
        assert not source.live
        frames = list(source)
    assert [f.index for f in frames] == [0, 1, 2, 3, 4, 5]
    assert [f.time_s for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert {f.source for f in frames} == {str(path)}
    assert [int(f.image.mean().round()) for f in frames] == pytest.approx([0, 10, 20, 30, 40, 50], abs=2)


def test_container_that_lies_about_its_length_ends_normally() -> None:
    with open_source(data("video/tree.avi")) as source:
        assert source.frames_announced == 444
        assert sum(1 for _ in source) == 68


def test_zero_byte_video(tmp_path: Path) -> None:
    path = tmp_path / "zero.mp4"
    path.touch()
    with pytest.raises(MediaError, match=r"zero\.mp4: .*empty"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_file_that_is_neither(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text("just words\n" * 50)
    with pytest.raises(MediaError, match=f"text{suffix}: not a"):
        open_source(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="nope: no such file or folder"):
        open_source(tmp_path / "nope")


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="not a file or folder"):
        open_source(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("array", [picture(3), pictures(1)])
def test_array_of_one(array: Image) -> None:
    [frame] = frames_of(array)
    assert (frame.index, frame.time_s, frame.source) == (0, 0.0, "frames")
    assert frame.image.shape == (48, 64, 3)


def test_array_of_several() -> None:
    assert [int(f.image[0, 0, 0]) for f in frames_of(pictures(4))] == [0, 10, 20, 30]


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_array_of_another_kind(array: Any) -> None:
    with pytest.raises(InputError, match="frames are uint8"):
        open_source(array)


def test_empty_array() -> None:
    with pytest.raises(MediaError, match="holds no frame"):
        open_source(np.zeros((0, 4, 4, 3), np.uint8))


def test_iterable_is_read_one_frame_at_a_time() -> None:
    taken = []

    def generate() -> Iterator[Image]:
        for i in range(100):
            taken.append(i)
            yield picture(i)

    with open_source(generate()) as source:
        assert [next(source).index, next(source).index] == [0, 1]
    assert taken == [0, 1]


def test_iterable_of_something_else() -> None:
    with open_source(["a.jpg"]) as source, pytest.raises(InputError):  # type: ignore[list-item]
        next(source)


@pytest.mark.parametrize("where", ["ftp://user:secret@10.0.0.1/s", "file:///a.png"])
def test_schemes_are_refused_without_repeating_a_password(where: str) -> None:
    with pytest.raises(InputError, match=r"is not supported; give csi://, rtsp://") as raised:
        open_source(where)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("where", [True, 1.5, None, ""])
def test_what_is_no_source(where: Any) -> None:
    with pytest.raises(InputError, match="source: "):
        open_source(where)


@pytest.mark.parametrize("where", [63, "63", "/dev/video63"])
def test_absent_camera(where: int | str) -> None:
    with pytest.raises(DeviceUnavailable, match="camera:63: /dev/video63 does not exist; check"):
        open_source(where)


def test_negative_camera() -> None:
    with pytest.raises(InputError, match="there is no -1"):
        open_source(-1)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), 1e9])
def test_time_limit_that_is_none(timeout_s: float) -> None:
    with pytest.raises(InputError, match="timeout_s: "):
        open_source(0, timeout_s=timeout_s)
