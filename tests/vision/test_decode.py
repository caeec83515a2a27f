from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.errors import EngineError, InputError
from edgecnn.vision import ScoreSmoother, class_scores, decode_windows, top_k

FRAME = (100, 200)
APART = [[0, 0, 20, 20], [50, 0, 70, 20], [100, 50, 120, 70]]


def whole(**fields: Any) -> ModelSpec:
    return ModelSpec(**{"task": "classification", "size_hw": (8, 8), **fields})


def windows(**fields: Any) -> ModelSpec:
    return ModelSpec(**{"task": "window_detection", "size_hw": (8, 8), "activation": "sigmoid", **fields})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4,), (4, 1)),
        ((4, 1), (4, 1)),
        ((4, 3), (4, 3)),
        ((4, 1, 1, 3), (4, 3)),
        ((4, 3, 1, 1), (4, 3)),
        ((1, 3), (1, 3)),
        ((0, 3), (0, 3)),
    ],
)
def test_outputs_become_a_table(shape: Any, expected: Any) -> None:
    scores = class_scores({"scores": np.zeros(shape, np.float16)}, windows())
    assert scores.shape == expected
    assert scores.dtype == np.float32


def test_the_output_is_chosen_by_name_else_the_first() -> None:
    outputs = {"a": np.zeros((2, 3)), "b": np.ones((2, 4))}
    assert class_scores(outputs, whole()).shape == (2, 3)
    assert class_scores(outputs, whole(output="b")).shape == (2, 4)


@pytest.mark.parametrize(
    ("outputs", "spec", "message"),
    [
        ({"a": np.zeros((2, 3))}, whole(output="logits"), "output 'logits' is not among the model's: a"),
        ({}, whole(), "it has none"),
        ({"a": np.zeros((2, 10, 7, 7))}, whole(), r"output 'a' has shape \(2, 10, 7, 7\): scores are \(N,\)"),
        ({"a": np.zeros(())}, whole(), "scores are"),
        ({"a": np.zeros((2, 3))}, whole(labels=("x", "y")), "has 3 classes but the spec has 2 labels"),
        (
            {"a": np.zeros((2, 2))},
            windows(background=2),
            "background is class 2 but output 'a' has 2 classes",
        ),
    ],
)
def test_outputs_that_are_no_scores_are_refused(outputs: Any, spec: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        class_scores(outputs, spec)


def test_scores_that_are_not_numbers_are_an_engine_error() -> None:
    with pytest.raises(EngineError, match="output 'a' is not finite"):
        class_scores({"a": np.array([[0.1, np.nan]])}, whole())


def test_best_classes_first() -> None:
    best = top_k(np.array([0.1, 0.6, 0.05, 0.25]), whole(labels=("a", "b", "c", "d"), top_k=3))
    assert best.class_ids.tolist() == [1, 3, 0]
    assert best.labels == ("b", "d", "a")
    np.testing.assert_allclose(best.scores, [0.6, 0.25, 0.1], rtol=1e-6)


def test_all_negative_scores_still_have_a_best_class() -> None:
    best = top_k(np.array([-5.0, -1.0, -3.0]), whole(activation="none"))
    assert best.class_ids.tolist() == [1, 2, 0]
    assert best.scores[0] == -1


def test_equal_scores_are_in_the_order_of_the_classes() -> None:
    assert top_k(np.array([0.2, 0.4, 0.2, 0.2]), whole()).class_ids.tolist() == [1, 0, 2, 3]


def test_classes_count_from_zero_and_are_named_by_number_without_labels() -> None:
    assert top_k(np.array([0.0, 1.0]), whole(top_k=1)).labels == ("1",)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.5, 1.0, float("nan")]), max_size=30), st.integers(1, 9)
)
def test_top_k_is_the_beginning_of_all_sorted(scores: list[float], count: int) -> None:
    found = top_k(np.array(scores, np.float32), whole(top_k=count)).class_ids
    wanted = np.argsort(-np.array(scores, np.float32), kind="stable")[:count]
    np.testing.assert_array_equal(found, wanted)


def test_top_k_takes_one_frame() -> None:
    with pytest.raises(InputError, match=r"scores of one frame are \(K,\)"):
        top_k(np.zeros((2, 3)), whole())


def test_one_logit() -> None:
    found = decode_windows([[0.9], [0.2], [0.7]], APART, windows(labels=("face",)), FRAME)
    assert found.boxes.tolist() == [APART[0], APART[2]]
    assert found.labels == ("face", "face")
    np.testing.assert_allclose(found.scores, [0.9, 0.7], rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.1, 1.0])
def test_a_score_at_the_threshold_is_reported(threshold: Any) -> None:
    below = np.nextafter(np.float32(threshold), np.float32(0))
    found = decode_windows([[np.float32(threshold)], [below]], APART[:2], windows(threshold=threshold), FRAME)
    assert found.boxes.tolist() == APART[:1]


def test_sigmoid_reports_every_class_of_a_window() -> None:
    spec = windows(labels=("a", "b", "c"))
    found = decode_windows([[0.6, 0.1, 0.8]], APART[:1], spec, FRAME)
    assert found.labels == ("c", "a")
    agnostic = decode_windows([[0.6, 0.1, 0.8]], APART[:1], spec.replace(nms="class_agnostic"), FRAME)
    assert agnostic.labels == ("c",)


def test_softmax_reports_the_best_class_of_a_window() -> None:
    spec = windows(activation="softmax", threshold=0.3, labels=("a", "b", "c"))
    scores = [[0.4, 0.35, 0.25], [0.1, 0.1, 0.8], [0.34, 0.33, 0.33]]
    assert decode_windows(scores, APART, spec, FRAME).labels == ("c", "a", "a")


def test_background_is_never_reported() -> None:
    spec = windows(activation="softmax", threshold=0.3, labels=("none", "cat", "dog"), background=0)
    scores = [[0.6, 0.4, 0.0], [0.2, 0.3, 0.5], [0.1, 0.9, 0.0]]
    found = decode_windows(scores, APART, spec, FRAME)
    assert found.labels == ("cat", "dog")
    assert found.class_ids.tolist() == [1, 2]
    alone = decode_windows([[0.99, 0.4]], APART[:1], windows(threshold=0.3, background=0), FRAME)
    assert alone.class_ids.tolist() == [1]


def test_thresholds_of_single_classes() -> None:
    spec = windows(labels=("a", "b"), class_thresholds={"b": 0.9})
    found = decode_windows([[0.6, 0.8], [0.4, 0.95]], APART[:2], spec, FRAME)
    assert found.labels == ("b", "a")
    assert found.boxes.tolist() == [APART[1], APART[0]]


def test_a_class_with_a_lower_threshold_than_the_others() -> None:
    spec = windows(labels=("a", "b"), class_thresholds={"b": 0.2})
    found = decode_windows([[0.4, 0.1], [0.4, 0.3], [0.6, 0.1]], APART, spec, FRAME)
    assert found.labels == ("a", "b")
    assert found.boxes.tolist() == [APART[2], APART[1]]


def test_boxes_are_scaled_clipped_and_dropped_when_nothing_is_left() -> None:
    spec = windows(window=WindowGeometry(box_scale=2.0))
    boxes = [[0, 0, 20, 20], [190, 90, 200, 100], [210, 0, 215, 5]]
    found = decode_windows([[0.9], [0.8], [0.7]], boxes, spec, FRAME)
    assert found.boxes.tolist() == [[0, 0, 30, 30], [185, 85, 200, 100]]


def test_fractions_of_pixels_are_kept() -> None:
    found = decode_windows([[0.9]], [[1.25, 2.5, 10.75, 20.125]], windows(), FRAME)
    assert found.boxes.tolist() == [[1.25, 2.5, 10.75, 20.125]]


def test_overlapping_windows_leave_the_best_within_a_class() -> None:
    boxes = [[0, 0, 20, 20], [1, 1, 21, 21], [2, 2, 22, 22]]
    spec = windows(labels=("a", "b"))
    scores = [[0.6, 0.0], [0.9, 0.0], [0.0, 0.7]]
    found = decode_windows(scores, boxes, spec, FRAME)
    assert found.boxes.tolist() == [boxes[1], boxes[2]]
    assert found.labels == ("a", "b")
    assert decode_windows(scores, boxes, spec.replace(nms="class_agnostic"), FRAME).labels == ("a",)


def test_at_most_so_many_boxes_the_best() -> None:
    found = decode_windows([[0.7], [0.9], [0.8]], APART, windows(max_detections=2), FRAME)
    assert found.boxes.tolist() == [APART[1], APART[2]]


@pytest.mark.parametrize("scores", [np.zeros((3, 2)), np.zeros((0, 2))])
def test_nothing_found(scores: Any) -> None:
    found = decode_windows(scores, np.array(APART)[: len(scores)], windows(), FRAME)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_scores_without_their_windows_are_refused() -> None:
    with pytest.raises(InputError, match=r"scores of shape \(2, 1\) for 3 windows"):
        decode_windows([[0.1], [0.2]], APART, windows(), FRAME)


def test_smoothing_is_the_mean_of_the_last_frames() -> None:
    smooth = ScoreSmoother(2)
    assert smooth(np.array([1.0, 0.0])).tolist() == [1, 0]
    assert smooth(np.array([0.0, 0.5])).tolist() == [0.5, 0.25]
    assert smooth(np.array([0.0, 0.5])).tolist() == [0, 0.5]
    smooth.reset()
    assert smooth(np.array([0.2, 0.8])).dtype == np.float32


def test_smoothing_keeps_its_own_copy() -> None:
    smooth, scores = ScoreSmoother(2), np.array([1.0, 0.0], np.float32)
    smooth(scores)
    scores[:] = 9
    assert smooth(np.array([0.0, 0.0])).tolist() == [0.5, 0]


def test_one_frame_changes_nothing() -> None:
    smooth = ScoreSmoother(1)
    smooth(np.array([1.0]))
    assert smooth(np.array([0.25])).tolist() == [0.25]


def test_smoothing_refuses() -> None:
    with pytest.raises(InputError, match="at least 1 frame, not 0"):
        ScoreSmoother(0)
    smooth = ScoreSmoother(3)
    smooth(np.zeros(2))
    with pytest.raises(InputError, match="reset"):
        smooth(np.zeros(3))
