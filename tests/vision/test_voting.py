from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.errors import InputError
from edgecnn.vision import decode_windows, vote

PAIR = [[0, 0, 10, 10], [5, 0, 15, 10]]
FRAME = (400, 400)
VOTING = WindowGeometry(box_voting=True)


def windows(**fields: Any) -> ModelSpec:
    return ModelSpec(
        **{
            "task": "window_detection",
            "size_hw": (8, 8),
            "activation": "sigmoid",
            "nms_iou": 0.2,
            "window": VOTING,
            **fields,
        }
    )


@st.composite
def around_an_object(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Boxes of some 20 px about (100, 100) on a grid of eighths, and their scores."""
    count = draw(st.integers(1, 12))
    eighths = st.lists(st.integers(-40, 40), min_size=4, max_size=4)
    offsets = np.array(draw(st.lists(eighths, min_size=count, max_size=count))) / 8
    scores = draw(st.lists(st.floats(0.3, 1.0), min_size=count, max_size=count))
    return np.array([90.0, 90, 110, 110]) + offsets, np.array(scores)


def test_equals_meet_in_the_middle() -> None:
    boxes = [[0, 0, 10, 10], [2, 0, 12, 10]]
    np.testing.assert_allclose(vote(boxes, [0.8, 0.8], [0, 1]), [[1, 0, 11, 10]] * 2, atol=0.01)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_the_weights_are_score_times_squared_overlap(ratio: float) -> None:
    """Two boxes 5 px apart: where the voted one stands still, at x, x = 5 v / (u + v)."""
    [[x, *_]] = vote(PAIR, [1.0, ratio], [0])
    first, second = ((10 - apart) / (10 + apart) for apart in (x, 5 - x))
    assert x == pytest.approx(5 * ratio * second**2 / (first**2 + ratio * second**2), abs=1e-4)
    assert 0 < x < 2.5


def test_one_step_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.vision.voting.STEPS", 1)
    # the boxes share 50 of 150: weights 1 and 0.9 / 9, so 5 * 0.1 / 1.1
    np.testing.assert_allclose(vote(PAIR, [1.0, 0.9], [0]), [[0.5 / 1.1, 0, 10 + 0.5 / 1.1, 10]], rtol=1e-6)


def test_a_box_alone_stays_to_the_last_bit() -> None:
    boxes = np.float32([[0.1, 0.7, 13.3, 17.9], [100.3, 50.1, 120.7, 70.9]])
    moved = vote(boxes, np.float32([0.3, 0.9]), [1, 0])
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, boxes[[1, 0]])


def test_scores_of_nothing_and_nothing_kept() -> None:
    assert vote(PAIR, [0.0, 0.0], [1]).tolist() == [PAIR[1]]
    assert vote(PAIR, [0.5, 0.5], []).shape == (0, 4)
    with pytest.raises(InputError, match=r"scores of shape \(1,\) for 2 boxes"):
        vote(PAIR, [0.5], [0])


@given(around_an_object())
def test_the_voted_box_lies_among_its_voters(drawn: Any) -> None:
    boxes, scores = drawn
    moved = vote(boxes, scores, np.arange(len(boxes)))
    assert (moved >= boxes.min(axis=0) - 1e-9).all()
    assert (moved <= boxes.max(axis=0) + 1e-9).all()


@given(around_an_object(), st.randoms(use_true_random=False))
def test_the_order_of_the_windows_is_nothing(drawn: Any, random: Any) -> None:
    boxes, scores = drawn
    order = random.sample(range(len(boxes)), len(boxes))
    expected = vote(boxes, scores, order)
    np.testing.assert_allclose(vote(boxes[order], scores[order], np.arange(len(boxes))), expected, atol=1e-4)


@given(around_an_object(), st.integers(-50, 50), st.sampled_from([0.5, 1, 2]))
def test_what_moves_or_grows_is_found_there(drawn: Any, shift: int, scale: float) -> None:
    boxes, scores = drawn
    kept = np.arange(len(boxes))
    moved = vote(boxes * scale + shift, scores, kept)
    np.testing.assert_allclose(moved, vote(boxes, scores, kept) * scale + shift, atol=1e-3)


def grid(centre: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Windows of 40 px every 5 px and, as a detector scores them, their saturated scores."""
    lefts, tops = (axis.ravel() for axis in np.meshgrid(np.arange(0, 160, 5), np.arange(0, 160, 5)))
    distance = np.hypot(lefts + 20 - centre, tops + 20 - centre)
    boxes = np.stack([lefts, tops, lefts + 40, tops + 40], axis=1).astype(np.float32)
    return boxes, (1 / (1 + np.exp(distance - 30))).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_the_scores_moves_no_box(seed: int) -> None:
    """Windows near an object differ in the last bits of their scores: the best one is any of them."""
    boxes, scores = grid(91.0)
    best_only = windows(window=WindowGeometry())
    scores = np.minimum(scores, np.float32(0.999))
    noise = np.random.default_rng(seed).integers(-3, 4, len(scores)) * np.float32(2**-23)
    trembling = np.clip(scores + noise, 0, 1)
    before, after = (
        decode_windows(values[:, None], boxes, windows(), FRAME) for values in (scores, trembling)
    )
    assert len(before) == len(after) == 1
    assert np.abs(before.boxes - after.boxes).max() < 0.5
    np.testing.assert_allclose(before.boxes, [[71, 71, 111, 111]], atol=1)
    still, jumped = (
        decode_windows(values[:, None], boxes, best_only, FRAME) for values in (scores, trembling)
    )
    assert np.abs(still.boxes[0] - jumped.boxes[0]).max() >= 5


def test_two_that_become_one_are_one() -> None:
    """Both windows survive suppression by themselves and arrive at the ones between them."""
    boxes = [[0, 0, 20, 20], [14, 0, 34, 20], [5, 0, 25, 20], [7, 0, 27, 20], [9, 0, 29, 20]]
    scores = [[0.99], [0.98], [0.97], [0.97], [0.97]]
    found = decode_windows(scores, boxes, windows(), FRAME)
    assert found.scores.tolist() == [np.float32(0.99)]
    best_only = windows(window=WindowGeometry())
    assert decode_windows(scores, boxes, best_only, FRAME).boxes.tolist() == [boxes[0], boxes[1]]


def test_windows_vote_for_their_own_class() -> None:
    boxes = [[0, 0, 20, 20], [4, 0, 24, 20], [100, 0, 120, 20]]
    scores = [[0.9, 0.0], [0.0, 0.8], [0.0, 0.7]]
    found = decode_windows(scores, boxes, windows(), FRAME)
    assert found.boxes.tolist() == boxes
    assert found.class_ids.tolist() == [0, 1, 1]


def test_windows_below_the_threshold_vote() -> None:
    """What a detection is does not depend on the threshold it was asked for with."""
    scores = [[0.9], [0.4]]
    high, low = (decode_windows(scores, PAIR, windows(threshold=value), FRAME) for value in (0.8, 0.1))
    assert high.boxes.tolist() == low.boxes.tolist() != PAIR[:1]
