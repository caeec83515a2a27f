"""Weighted boxes fusion: means by hand, and what must not depend on order or place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.vision import fuse_boxes

# two of one object (IoU 90 / 110), one elsewhere
BOXES = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]
SCORES = [0.6, 0.2, 0.5]


@st.composite
def around_an_object(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Boxes of some 20 px about (100, 100), and their scores, each its own."""
    count = draw(st.integers(1, 10))
    offsets = st.lists(st.integers(-16, 16), min_size=4, max_size=4)
    moved = np.array(draw(st.lists(offsets, min_size=count, max_size=count))) / 8
    scores = draw(st.lists(st.integers(1, 99), min_size=count, max_size=count, unique=True))
    return np.array([90.0, 90, 110, 110]) + moved, np.array(scores) / 100


def test_the_mean_of_one_model_by_hand() -> None:
    first, boxes, scores = fuse_boxes(BOXES, SCORES)
    assert first.tolist() == [2, 0]
    np.testing.assert_allclose(boxes, [[50, 50, 60, 60], [0.25, 0, 10.25, 10]])
    np.testing.assert_allclose(scores, [0.5, 0.4])


def test_what_one_of_two_models_missed_counts_half() -> None:
    first, boxes, scores = fuse_boxes(BOXES, SCORES, models=2)
    assert first.tolist() == [0, 2]
    np.testing.assert_allclose(boxes, [[0.25, 0, 10.25, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(scores, [0.4, 0.25])


def test_more_boxes_than_models_count_no_more() -> None:
    _, _, scores = fuse_boxes([BOXES[0]] * 3, [0.9, 0.6, 0.3], models=2)
    np.testing.assert_allclose(scores, [0.6])


def test_clusters_follow_the_fused_box() -> None:
    """The third overlaps the first by 0.5 only, but the mean of both by 0.62."""
    chain = [[0, 0, 12, 10], [3, 0, 15, 10], [4, 0, 16, 10]]
    first, boxes, _ = fuse_boxes(chain, [0.8, 0.8, 0.4])
    assert first.tolist() == [0]
    np.testing.assert_allclose(boxes, [[2, 0, 14, 10]])


def test_the_nearest_cluster_takes_the_box() -> None:
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [3, 0, 13, 10]]
    first, fused, _ = fuse_boxes(boxes, [0.9, 0.8, 0.4], iou=0.5)
    assert first.tolist() == [0, 1]
    np.testing.assert_allclose(fused[1], [(4 * 0.8 + 3 * 0.4) / 1.2, 0, (14 * 0.8 + 13 * 0.4) / 1.2, 10])


def test_classes_are_fused_apart() -> None:
    first, boxes, _ = fuse_boxes(BOXES, SCORES, [3, 4, 3])
    assert first.tolist() == [0, 2, 1]
    assert boxes.tolist() == [BOXES[0], BOXES[2], BOXES[1]]


def test_an_overlap_at_the_threshold_is_not_one_object() -> None:
    half = [[0, 0, 10, 10], [0, 0, 10, 5]]
    assert len(fuse_boxes(half, [0.9, 0.8], iou=0.5)[0]) == 2
    assert len(fuse_boxes(half, [0.9, 0.8], iou=0.49)[0]) == 1


def test_scores_of_nothing_and_nothing_given() -> None:
    assert fuse_boxes(BOXES, [0.0, 0.0, 0.5])[0].tolist() == [2]
    for nothing in (fuse_boxes([], []), fuse_boxes(BOXES, [0, 0, 0])):
        assert [part.shape for part in nothing] == [(0,), (0, 4), (0,)]


def test_the_limit_keeps_the_best() -> None:
    assert fuse_boxes(BOXES, SCORES, max_detections=1)[0].tolist() == [2]


@given(st.lists(st.integers(1, 99), min_size=1, max_size=8), st.integers(1, 4))
def test_fusing_one_box_with_itself_gives_the_box(percents: list[int], models: int) -> None:
    box = [0.1, 0.7, 13.3, 17.9]
    first, boxes, scores = fuse_boxes([box] * len(percents), np.array(percents) / 100, models=models)
    assert first.tolist() == [int(np.argmax(percents))]
    np.testing.assert_array_equal(boxes, np.float32([box]))
    seen_by = min(len(percents), models) / models
    np.testing.assert_allclose(scores, [np.mean(percents) / 100 * seen_by])


@given(around_an_object(), st.randoms(use_true_random=False))
def test_the_order_of_the_boxes_is_nothing(drawn: Any, random: Any) -> None:
    boxes, scores = drawn
    order = random.sample(range(len(boxes)), len(boxes))
    expected, again = fuse_boxes(boxes, scores), fuse_boxes(boxes[order], scores[order])
    np.testing.assert_allclose(again[1], expected[1])
    np.testing.assert_allclose(again[2], expected[2])


@given(around_an_object())
def test_the_fused_box_lies_among_its_boxes(drawn: Any) -> None:
    boxes, scores = drawn
    _, fused, values = fuse_boxes(boxes, scores, iou=0.1)
    assert len(fused) == 1
    assert (fused >= boxes.min(axis=0) - 1e-9).all()
    assert (fused <= boxes.max(axis=0) + 1e-9).all()
    np.testing.assert_allclose(fused[0], np.average(boxes, axis=0, weights=scores))
    np.testing.assert_allclose(values, scores.mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": 0}, "models must be at least 1, not 0"),
        ({"scores": [0.1, 0.2, -0.1]}, "scores must not be negative"),
        ({"class_ids": [1]}, "3 boxes, 3 scores and 1 class ids"),
        ({"iou": -1}, "iou must be in 0..1, not -1"),
    ],
)
def test_refusals(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fuse_boxes(**{"boxes_xyxy": BOXES, "scores": SCORES, **arguments})
