"""Samples: from every kind of source, through the preprocessing of the runtime."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.calibration import draw_samples
from edgecnn.errors import InputError, MediaError
from edgecnn.vision.geometry import fit
from edgecnn.vision.opencv import cv2
from tests.paths import data

PHOTO = ModelSpec(task="classification", size_hw=(12, 10), resize="letterbox", color="rgb")
FRAMES = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)


def folder(path: Path) -> Path:
    for i, frame in enumerate(FRAMES):
        cv2.imwrite(str(path / f"{i}.png"), frame)
    return path


def archive(path: Path) -> Path:
    np.savez(path / "frames.npz", frames=FRAMES, other=np.zeros(3))
    return path / "frames.npz"


SOURCES: dict[str, Callable[[Path], object]] = {
    "folder": folder,
    "npz": archive,
    "array": lambda path: FRAMES,
    "iterator": lambda path: iter(FRAMES),
    "list": lambda path: list(FRAMES),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_same_frames_same_samples(kind: str, tmp_path: Path) -> None:
    samples = draw_samples(SOURCES[kind](tmp_path), PHOTO, 32)  # type: ignore[arg-type]
    expected = np.stack([fit(frame, PHOTO)[0] for frame in FRAMES])
    np.testing.assert_array_equal(samples.images, expected)
    assert not samples.generated


def test_frames_are_taken_evenly_over_the_source() -> None:
    samples = draw_samples(FRAMES, PHOTO, 3)
    expected = np.stack([fit(FRAMES[i], PHOTO)[0] for i in (0, 2, 5)])
    np.testing.assert_array_equal(samples.images, expected)


def test_lists_are_taken_evenly_too() -> None:
    frames = [np.full((4, 4, 3), i, np.uint8) for i in range(100)]
    samples = draw_samples(frames, ModelSpec(task="tensors", size_hw=(1, 1)), 4)
    assert samples.images.ravel()[::3].tolist() == [0, 33, 66, 99]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "frame 1: "),
        (np.zeros((9, 9), np.uint8), "frame 1: "),
        (np.zeros((9, 9, 4), np.uint8), "frame 1: .*'rgba'"),
    ],
)
def test_each_frame_is_checked(frame: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_samples([np.zeros((9, 9, 3), np.uint8), frame], PHOTO)  # type: ignore[list-item]


def test_frame_that_is_too_small_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((5, 5, 3), np.uint8))
    spec = ModelSpec(task="window_detection", size_hw=(8, 8))
    with pytest.raises(InputError, match=r"tiny\.png: a frame of 5×5 px .* smaller than the smallest window"):
        draw_samples(tmp_path, spec)


def test_windows_of_a_large_frame_need_little_memory() -> None:
    """Only the window that was drawn is cut, not all those of its level."""
    spec = ModelSpec(task="window_detection", size_hw=(48, 48), window=WindowGeometry(stride=4))
    frame = np.zeros((2000, 3000, 3), np.uint8)
    tracemalloc.start()
    draw_samples([frame], spec, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_windows_are_parts_of_the_frame_at_several_scales() -> None:
    spec = ModelSpec(
        task="window_detection", size_hw=(8, 8), color="bgr", interpolation="nearest",
        window=WindowGeometry(stride=4, scale_step=2.0),
    )  # fmt: skip
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0] = np.arange(64)
    samples = draw_samples(ramp[None], spec, 64)
    assert samples.images.shape == (64, 8, 8, 3)
    steps = {int(window[0, 1, 0]) - int(window[0, 0, 0]) for window in samples.images}
    assert {1, 2, 4} <= steps
    np.testing.assert_array_equal(draw_samples(ramp[None], spec, 64).images, samples.images)


def test_windows_come_from_every_frame() -> None:
    frames = [np.full((8, 8, 3), level, np.uint8) for level in (10, 20, 30)]
    samples = draw_samples(frames, ModelSpec(task="window_detection", size_hw=(8, 8)), 4)
    assert samples.images.shape == (4, 8, 8, 3)
    assert set(samples.images.ravel().tolist()) == {10, 20, 30}


def test_frames_of_an_iterator_are_not_held() -> None:
    frames: list[weakref.ref[npt.NDArray[np.uint8]]] = []

    def camera() -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            assert sum(frame() is not None for frame in frames) <= 1
            frame = np.full((9, 9, 3), len(frames), np.uint8)
            frames.append(weakref.ref(frame))
            yield frame

    assert len(draw_samples(camera(), PHOTO, 16)) == len(frames) == 16


def test_windows_of_a_short_iterator_are_as_many_as_asked_for() -> None:
    samples = draw_samples(iter(FRAMES), ModelSpec(task="window_detection", size_hw=(8, 8)), 16)
    assert len(samples) == 16


def test_video_is_sampled_over_its_whole_length() -> None:
    samples = draw_samples(data("video/tree.avi"), PHOTO, 5)
    assert samples.images.shape == (5, 12, 10, 3)
    assert len(np.unique(samples.images.reshape(5, -1), axis=0)) == 5


def test_without_a_source_images_are_made_up_and_said_so() -> None:
    samples = draw_samples(None, PHOTO, 8)
    assert samples.generated
    assert samples.source == "generated images"
    assert samples.images.std() > 20
    np.testing.assert_array_equal(draw_samples(None, PHOTO, 8).images, samples.images)


def test_bad_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.npz").write_bytes(b"PK nonsense")
    np.savez(tmp_path / "two.npz", a=FRAMES, b=FRAMES)
    np.savez(tmp_path / "float.npz", frames=FRAMES.astype(np.float32))
    (tmp_path / "zero.mp4").touch()
    for source, message in [
        (tmp_path / "none", "none: no such file or folder"),
        (tmp_path / "empty", "empty"),
        (tmp_path / "x.npz", r"x\.npz: not an npz of plain arrays"),
        (tmp_path / "two.npz", r"two\.npz: holds a, b; name the array 'frames'"),
        (tmp_path / "zero.mp4", r"zero\.mp4"),
        ([], "0 frames: holds no frame"),
        (iter([]), "frames of an iterator: holds no frame"),
    ]:
        with pytest.raises(MediaError, match=message):
            draw_samples(source, PHOTO)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"float\.npz: float32 6×20×30×3, frames are uint8"):
        draw_samples(tmp_path / "float.npz", PHOTO)
    with pytest.raises(InputError, match="samples must be at least 1"):
        draw_samples(FRAMES, PHOTO, 0)
    with pytest.raises(InputError, match="a int is no source of frames"):
        draw_samples(3, PHOTO)  # type: ignore[arg-type]
