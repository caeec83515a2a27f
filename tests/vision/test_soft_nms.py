"""Soft-NMS: scores by hand, and hard suppression as its limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.vision import nms, soft_nms

# the second shares half of the first: IoU 0.5; the third stands alone
BOXES = [[0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]]
SCORES = [0.9, 0.8, 0.5]


@st.composite
def scored_boxes(draw: st.DrawFn) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Boxes with corners on whole pixels of 0..20, so that none overlap by next to nothing; three classes."""
    count = draw(st.integers(0, 12))
    rows = st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(1, 8), st.integers(1, 8))
    boxes = np.array(draw(st.lists(rows, min_size=count, max_size=count)), np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count))
    class_ids = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return boxes, np.array(scores), np.array(class_ids, np.int64)


def test_gaussian_by_hand() -> None:
    kept, scores = soft_nms(BOXES, SCORES, sigma=0.5)
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.8 * np.exp(-0.25 / 0.5)])


def test_linear_by_hand() -> None:
    kept, scores = soft_nms(BOXES, SCORES, method="linear", iou=0.4)
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.4])


def test_linear_spares_an_overlap_at_the_threshold() -> None:
    """As `nms` does."""
    kept, scores = soft_nms(BOXES, SCORES, method="linear", iou=0.5)
    assert kept.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, SCORES)


def test_lowering_adds_up() -> None:
    kept, scores = soft_nms([[0, 0, 10, 10]] * 3, [0.9, 0.8, 0.7], sigma=1.0)
    assert kept.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, [0.9, 0.8 * np.exp(-1), 0.7 * np.exp(-2)])


def test_a_lowered_box_lets_the_next_one_pass() -> None:
    kept, _ = soft_nms(BOXES, [0.9, 0.8, 0.79], sigma=0.5)
    assert kept.tolist() == [0, 2, 1]


def test_what_falls_below_the_threshold_is_gone() -> None:
    assert soft_nms(BOXES, SCORES, threshold=0.49)[0].tolist() == [0, 2]
    assert soft_nms(BOXES, SCORES, threshold=[0.1, 0.1, 0.6])[0].tolist() == [0, 1]
    assert soft_nms(BOXES, SCORES, threshold=0.95)[0].tolist() == []


def test_a_score_at_the_threshold_stays() -> None:
    scores = np.array([0.7, 0.3], np.float32)
    kept, values = soft_nms(BOXES[::2], scores, threshold=0.3)
    assert kept.tolist() == [0, 1]
    assert values.dtype == np.float32


def test_classes_lower_only_their_own() -> None:
    kept, scores = soft_nms(BOXES, SCORES, [0, 1, 0])
    assert kept.tolist() == [0, 1, 2]
    assert scores.tolist() == SCORES


def test_the_limit_keeps_the_best() -> None:
    assert soft_nms(BOXES, SCORES, max_detections=2)[0].tolist() == [0, 2]
    assert soft_nms([], [])[0].dtype == np.int64


@given(scored_boxes())
def test_small_sigma_is_hard_suppression_of_any_overlap(drawn: Any) -> None:
    boxes, scores, class_ids = drawn
    kept, values = soft_nms(boxes, scores, class_ids, sigma=1e-9)
    assert kept.tolist() == nms(boxes, scores, class_ids, iou=0).tolist()
    np.testing.assert_array_equal(values, scores[kept])


@given(scored_boxes(), st.floats(0, 1))
def test_where_all_that_is_lowered_is_gone_linear_is_hard_suppression(drawn: Any, iou: float) -> None:
    """A box whose threshold is its own score bears no lowering."""
    boxes, scores, class_ids = drawn
    kept, _ = soft_nms(boxes, scores, class_ids, method="linear", iou=iou, threshold=scores)
    assert kept.tolist() == nms(boxes, scores, class_ids, iou=iou).tolist()


@given(scored_boxes(), st.sampled_from(["linear", "gaussian"]))
def test_scores_fall_in_order_and_never_rise(drawn: Any, method: Any) -> None:
    boxes, scores, class_ids = drawn
    kept, values = soft_nms(boxes, scores, class_ids, method=method, threshold=0)
    assert sorted(kept.tolist()) == list(range(len(boxes)))
    assert (values <= scores[kept]).all()
    assert (np.diff(values) <= 0).all()
    assert not len(kept) or values[0] == scores.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "hard"}, "method 'hard' is unknown, choose linear or gaussian"),
        ({"sigma": 0}, "sigma must be above 0, not 0"),
        ({"sigma": float("nan")}, "sigma must be above 0, not nan"),
        ({"iou": 2}, "iou must be in 0..1, not 2"),
        ({"threshold": [0.1]}, r"threshold of shape \(1,\) for 3 boxes"),
        ({"scores": [0.1, 0.2]}, "3 boxes, 2 scores"),
        ({"scores": [0.1, 0.2, -0.1]}, "scores must not be negative"),
    ],
)
def test_refusals(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        soft_nms(**{"boxes_xyxy": BOXES, "scores": SCORES, **arguments})
