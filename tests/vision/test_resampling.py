from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.vision import resampling
from edgecnn.vision.resampling import resample
from tests.paths import data

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))
kernels = st.sampled_from(["bilinear", "bicubic"])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def blocks(height: int, width: int, side: int) -> np.ndarray:
    """Black and white squares: edges as hard as can be, where bicubic overshoots most."""
    shape = (-(-height // side), -(-width // side), 3)
    drawn = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), shape)
    return drawn.repeat(side, 0).repeat(side, 1)[:height, :width]


def pillow(image: Any, size_hw: Any, kernel: Any) -> np.ndarray:
    module = pytest.importorskip("PIL.Image")
    resized = module.fromarray(image).resize(size_hw[::-1], module.Resampling[kernel.upper()])
    return np.asarray(resized).astype(int)


def test_weights_by_hand() -> None:
    # the first of two pixels sees 0.75, 0.75 and 0.25 of a triangle of four: 3/7, 3/7 and 1/7
    row = np.array([[0, 70, 140, 210]], np.uint8)
    assert resample(row, (1, 2), "bilinear").tolist() == [[50, 160]]
    assert resample(row.T, (2, 1), "bilinear").tolist() == [[50], [160]]
    assert resample(row, (1, 1), "bilinear").tolist() == [[105]]


def test_bicubic_overshoot_is_clipped() -> None:
    step = np.tile(np.repeat(np.array([0, 255], np.uint8), 8), (4, 1))
    enlarged = resample(step, (4, 64), "bicubic")
    assert enlarged.min() == 0
    assert enlarged.max() == 255
    assert (np.diff(enlarged[0].astype(int)) >= 0).all()


@pytest.mark.parametrize("side", [1, 2, 7, 30])
@pytest.mark.parametrize(
    ("source", "kernel"),
    [
        ((480, 640), "bilinear"),
        ((1080, 1920), "bilinear"),
        ((640, 360), "bilinear"),
        ((480, 640), "bicubic"),
        ((1080, 1920), "bicubic"),
        ((227, 227), "bicubic"),
    ],
)
def test_hard_edges_as_pillow(side: Any, source: Any, kernel: Any) -> None:
    image = blocks(*source, side)
    ours = resample(image, (224, 224), kernel)
    assert np.abs(ours - pillow(image, (224, 224), kernel)).max() <= 2


@pytest.mark.parametrize("source", [(640, 360), (500, 333), (90, 61)])
def test_bicubic_takes_columns_first(source: Any) -> None:
    image = blocks(*source, 4)
    columns = pillow(image, (source[0], 50), "bicubic").astype(np.uint8)
    ours = resample(image, (50, 50), "bicubic")
    assert np.abs(ours - pillow(columns, (50, 50), "bicubic")).max() <= 2


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_frames_of_1080p_as_pillow(kernel: Any) -> None:
    cv2 = pytest.importorskip("cv2")
    photo = cv2.imread(str(sorted(data("coco128/images").iterdir())[0]))
    for image in (noise(1080, 1920, 3), cv2.resize(photo, (1920, 1080))):
        ours = resample(image, (224, 224), kernel)
        assert np.abs(ours - pillow(image, (224, 224), kernel)).max() <= 2


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, kernels, st.sampled_from([(), (1,), (3,), (4,)]), st.integers(0, 10**6))
def test_a_part_is_cut_from_the_whole(
    source: Any, target: Any, kernel: Any, channels: Any, seed: Any
) -> None:
    rng = np.random.default_rng(seed)
    image = noise(*source, *channels, seed=seed)
    whole = resample(image, target, kernel)
    assert whole.shape == (*target, *channels)
    corner = tuple(int(rng.integers(0, size)) for size in target)
    part_hw = tuple(int(rng.integers(1, size - first + 1)) for size, first in zip(target, corner))
    part = resample(image, target, kernel, corner, part_hw)
    cut = whole[corner[0] : corner[0] + part_hw[0], corner[1] : corner[1] + part_hw[1]]
    assert part.shape == cut.shape
    # sums of other lengths are added up in another order: what lies halfway may be rounded the other way
    assert np.abs(part.astype(int) - cut).max() <= 1
    assert resample(image, target, kernel, corner).shape == whole[corner[0] :, corner[1] :].shape


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("target", [(20, 31), (90, 100), (50, 17)])
def test_views_of_frames(kernel: Any, target: Any) -> None:
    frame = noise(70, 80, 3)
    for view in (frame[5:60, 7:71], frame[::-1, ::2], frame[:, :, ::-1], frame.swapaxes(0, 1)):
        np.testing.assert_array_equal(
            resample(view, target, kernel), resample(np.ascontiguousarray(view), target, kernel)
        )


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("source", [(160, 120), (157, 131)])
def test_lines_alone_and_together(kernel: Any, source: Any, monkeypatch: Any) -> None:
    image = noise(*source, 3)
    found = []
    for room, calls in ((2**16, 3), (1, 0), (1, 99), (2**16, 99), (5 * 120 * 3, 2)):
        monkeypatch.setattr(resampling, "SUMS", room)
        monkeypatch.setattr(resampling, "MOST_CALLS", calls)
        found.append(resample(image, (40, 60), kernel).astype(int))
    for other in found[1:]:
        assert np.abs(other - found[0]).max() <= 1


def test_the_image_is_left_as_it_is() -> None:
    image = noise(60, 50, 3)
    before = image.copy()
    resample(image, (13, 17), "bicubic")
    np.testing.assert_array_equal(image, before)
