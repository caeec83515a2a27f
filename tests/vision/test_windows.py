from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.errors import InputError
from edgecnn.vision import Level, pyramid, resize, window_batches, window_starts


def spec(
    size_hw: Any = (64, 64), color: Any = "bgr", interpolation: Any = "area", **window: Any
) -> ModelSpec:
    return ModelSpec(
        task="window_detection",
        size_hw=size_hw,
        color=color,
        interpolation=interpolation,
        window=WindowGeometry(**window),
    )


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (256, 64, 32, [0, 32, 64, 96, 128, 160, 192]),  # the last row that an open range forgets
        (64, 64, 32, [0]),
        (65, 64, 32, [0, 1]),
        (100, 64, 32, [0, 32, 36]),
        (10, 3, 100, [0, 7]),
        (1, 1, 1, [0]),
        (5, 2, 1, [0, 1, 2, 3]),
    ],
)
def test_starts_by_hand(length: Any, window: Any, stride: Any, starts: Any) -> None:
    assert window_starts(length, window, stride) == starts


@given(st.integers(1, 2000), st.integers(1, 300), st.integers(1, 200))
def test_windows_reach_both_borders_and_leave_no_gap(length: Any, window: Any, stride: Any) -> None:
    if length < window:
        with pytest.raises(InputError, match=f"a window of {window} px does not fit into {length} px"):
            window_starts(length, window, stride)
        return
    starts = window_starts(length, window, stride)
    assert starts[0] == 0
    assert starts[-1] + window == length
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(0 < step <= stride for step in steps)
    assert all(step == stride for step in steps[:-1])


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (1, 0), (4, -2)])
def test_starts_refuse_sizes_below_one(window: Any, stride: Any) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        window_starts(10, window, stride)


def test_one_level_of_a_square_frame_has_49_windows() -> None:
    (level,) = pyramid((256, 256), spec(stride=32, max_size=64))
    assert level == Level((256, 256), (1.0, 1.0), tuple(range(0, 193, 32)), tuple(range(0, 193, 32)))
    assert level.count == 49


def test_a_frame_as_large_as_the_window_is_looked_at_once() -> None:
    levels = pyramid((64, 64), spec(stride=32))
    assert [level.count for level in levels] == [1]


def test_levels_by_hand() -> None:
    levels = pyramid((256, 192), spec(stride=64, scale_step=2.0, min_size=32))
    assert [level.size_hw for level in levels] == [(512, 384), (256, 192), (128, 96)]
    assert [level.scale_xy for level in levels] == [(0.5, 0.5), (1, 1), (2, 2)]
    assert levels[2].starts_y == (0, 64)
    assert levels[2].starts_x == (0, 32)
    assert [level.count for level in levels] == [8 * 6, 4 * 3, 4]


def test_the_shorter_side_of_the_window_is_the_size() -> None:
    levels = pyramid((200, 200), spec(size_hw=(40, 20), min_size=20, scale_step=2.0))
    assert [level.size_hw for level in levels] == [(200, 200), (100, 100), (50, 50)]


@pytest.mark.parametrize(("max_size", "count"), [(64, 1), (79, 1), (80, 2), (99, 2), (100, 3), (None, 7)])
def test_levels_end_at_the_largest_size(max_size: Any, count: Any) -> None:
    assert len(pyramid((300, 300), spec(scale_step=1.25, max_size=max_size))) == count


def test_scales_are_of_the_sizes_as_rounded() -> None:
    for level in pyramid((123, 457), spec(scale_step=1.3)):
        assert level.scale_xy == (457 / level.size_hw[1], 123 / level.size_hw[0])


@pytest.mark.parametrize(
    ("frame_hw", "smallest"), [((1, 1), 64), ((63, 500), 64), ((500, 63), 64), ((64, 64), 80)]
)
def test_a_frame_smaller_than_the_window_is_refused_with_both_sizes(frame_hw: Any, smallest: Any) -> None:
    message = (
        rf"frame of {frame_hw[0]}×{frame_hw[1]} px .* smaller than the smallest window, "
        rf"{smallest}×{smallest} px: lower min_size"
    )
    with pytest.raises(InputError, match=message):
        pyramid(frame_hw, spec(min_size=smallest))


def test_an_enormous_level_is_refused() -> None:
    with pytest.raises(InputError, match=r"raise min_size"):
        pyramid((2160, 3840), spec(min_size=4))


@pytest.mark.parametrize("color", ["bgr", "rgb", "gray"])
@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_windows_are_the_pixels_under_their_boxes(color: Any, batch: Any) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    given_spec = spec((32, 48), color, stride=16, scale_step=1.5)
    levels = pyramid((90, 110), given_spec)
    total = sum(level.count for level in levels)
    seen = 0
    sizes = []
    expected = list(windows_one_by_one(frame, levels, given_spec))
    for windows, boxes in window_batches(frame, levels, given_spec, batch):
        assert windows.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert windows.flags.c_contiguous
        assert windows.shape[1:] == given_spec.input_shape
        sizes.append(len(windows))
        for window, box in zip(windows, boxes):
            np.testing.assert_array_equal(window, expected[seen][0])
            np.testing.assert_allclose(box, expected[seen][1], atol=1e-4)
            seen += 1
    assert seen == total
    assert set(sizes[:-1]) <= {batch}


def windows_one_by_one(frame: Any, levels: Any, given_spec: Any) -> Any:
    colours = {"bgr": lambda x: x, "rgb": lambda x: x[:, :, ::-1].copy(), "gray": gray}
    image = colours[given_spec.color](frame)
    height, width = given_spec.size_hw
    for level in levels:
        shown = resize(image, level.size_hw, given_spec.interpolation)
        sx, sy = level.scale_xy
        for y, x in itertools.product(level.starts_y, level.starts_x):
            yield (
                shown[y : y + height, x : x + width],
                [x * sx, y * sy, (x + width) * sx, (y + height) * sy],
            )


def gray(frame: Any) -> Any:
    from edgecnn.vision.opencv import cv2

    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[:, :, None]


def test_a_view_of_a_frame_is_cut_alike() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (140, 160, 3), np.uint8)[::2, ::-1]
    given_spec = spec(stride=8, max_size=64)
    levels = pyramid((70, 160), given_spec)
    view = [windows.copy() for windows, _ in window_batches(frame, levels, given_spec, 9)]
    whole = [windows.copy() for windows, _ in window_batches(frame.copy(), levels, given_spec, 9)]
    np.testing.assert_array_equal(np.concatenate(view), np.concatenate(whole))


@settings(max_examples=30, deadline=None)
@given(st.integers(64, 300), st.integers(64, 300), st.sampled_from([1.2, 1.5, 2.0]))
def test_the_boxes_of_each_level_cover_the_frame_to_its_corners(height: Any, width: Any, step: Any) -> None:
    given_spec = spec(stride=32, scale_step=step)
    for level in pyramid((height, width), given_spec):
        frame = np.zeros((height, width, 3), np.uint8)
        boxes = np.concatenate([b.copy() for _, b in window_batches(frame, [level], given_spec, 50)])
        assert boxes.min() == 0
        np.testing.assert_allclose(boxes[:, 2].max(), width, atol=1e-3)
        np.testing.assert_allclose(boxes[:, 3].max(), height, atol=1e-3)


def test_an_object_is_found_on_its_level_at_the_models_size() -> None:
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[64:192, 64:192] = 255
    given_spec = spec(stride=32, scale_step=2.0)
    full = [
        box.tolist()
        for windows, boxes in window_batches(frame, pyramid((256, 256), given_spec), given_spec, 16)
        for window, box in zip(windows, boxes)
        if window.min() == 255 and box[2] - box[0] > 100
    ]
    assert full == [[64, 64, 192, 192]]


def test_a_batch_below_one_is_refused() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(InputError, match="batch must be at least 1"):
        next(window_batches(frame, pyramid((64, 64), spec()), spec(), 0))
