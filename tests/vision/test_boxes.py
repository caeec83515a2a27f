from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecnn.errors import InputError
from edgecnn.vision import clip_boxes, convert_boxes, iou_matrix, scale_boxes, size_mask

coordinates = arrays(np.float64, (5, 4), elements=st.floats(-1000, 1000, width=32))


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 5], 0.5),  # one inside the other with half its area
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),  # two equal boxes that share half their area
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # they touch
        ([0, 0, 10, 10], [30, 30, 40, 40], 0.0),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0.0),  # both empty: 0/0
        ([0, 0, 10, 10], [3, 3, 3, 9], 0.0),
        ([10, 10, 0, 0], [0, 0, 10, 10], 0.0),  # inside out
        ([10, 10, 0, 0], [10, 10, 0, 0], 0.0),
        ([0, 0, 3e38, 3e38], [0, 0, 3e38, 3e38], 1.0),  # areas beyond float32
    ],
)
def test_iou_by_hand(a: Any, b: Any, iou: Any) -> None:
    matrix = iou_matrix([a], [b])
    assert matrix.shape == (1, 1)
    assert matrix.dtype == np.float32
    assert matrix[0, 0] == pytest.approx(iou, abs=1e-7)


def test_iou_matrix_has_a_row_per_first_box() -> None:
    assert iou_matrix(np.zeros((3, 4)), np.empty((0, 4))).shape == (3, 0)
    matrix = iou_matrix([[0, 0, 2, 2], [0, 0, 4, 4]], [[0, 0, 2, 2], [0, 0, 2, 4], [9, 9, 10, 10]])
    assert matrix.tolist() == [[1, 0.5, 0], [0.25, 0.5, 0]]


@given(coordinates, coordinates)
def test_iou_is_symmetric_and_bounded(a: Any, b: Any) -> None:
    matrix = iou_matrix(a, b)
    assert np.isfinite(matrix).all()
    assert matrix.min() >= 0
    assert matrix.max() <= 1
    np.testing.assert_array_equal(matrix, iou_matrix(b, a).T)


def test_clip_keeps_fractions_and_stays_inside() -> None:
    clipped = clip_boxes(np.array([[-3.5, 2.25, 7.75, 99], [20, 30, 40, 50]], np.float32), (10, 8))
    assert clipped.tolist() == [[0, 2.25, 7.75, 10], [8, 10, 8, 10]]
    assert clipped.dtype == np.float32


def test_scale_is_about_the_centre() -> None:
    assert scale_boxes([[10, 20, 20, 40]], 1.5).tolist() == [[7.5, 15, 22.5, 45]]
    assert scale_boxes([[1, 2, 4, 8]], 1.0).tolist() == [[1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("name", "box"), [("xyxy", [10, 20, 16, 30]), ("xywh", [10, 20, 6, 10]), ("cxcywh", [13, 25, 6, 10])]
)
def test_notations_by_hand(name: Any, box: Any) -> None:
    assert convert_boxes([[10, 20, 16, 30]], "xyxy", name).tolist() == [box]
    assert convert_boxes([box], name, "xyxy").tolist() == [[10, 20, 16, 30]]


@pytest.mark.parametrize("from_", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("to", ["xyxy", "xywh", "cxcywh"])
@given(boxes=coordinates)
def test_notations_go_back_and_forth(from_: Any, to: Any, boxes: Any) -> None:
    before = boxes.copy()
    there = convert_boxes(boxes, from_, to)
    np.testing.assert_allclose(convert_boxes(there, to, from_), boxes, atol=1e-9)
    np.testing.assert_array_equal(boxes, before)
    assert not np.shares_memory(there, boxes)


def test_boxes_keep_float32_and_take_integers() -> None:
    assert convert_boxes(np.zeros((1, 4), np.float32), "xyxy", "xywh").dtype == np.float32
    assert convert_boxes(np.zeros((1, 4), np.int64), "xyxy", "xywh").dtype == np.float64


def test_minimum_size() -> None:
    boxes = [[0, 0, 4, 4], [0, 0, 3.9, 9], [5, 5, 5, 9], [9, 9, 1, 1]]
    assert size_mask(boxes, 4).tolist() == [True, False, False, False]
    assert size_mask(boxes).tolist() == [True, True, False, False]
    assert size_mask(np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize("boxes", [np.zeros((2, 5)), np.zeros(4), np.array([["a"] * 4]), 3.0])
def test_what_is_not_boxes_is_refused(boxes: Any) -> None:
    with pytest.raises(InputError, match=r"boxes are numbers in an array \(n, 4\)"):
        convert_boxes(boxes, "xyxy", "xywh")


def test_unknown_notation_is_refused() -> None:
    with pytest.raises(InputError, match="box format 'yxyx' is unknown, choose xyxy, xywh or cxcywh"):
        convert_boxes([[0, 0, 1, 1]], "xyxy", "yxyx")  # type: ignore[arg-type]
