"""Accuracy and the confusion matrix, on answers known by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecnn.metrics import class_figures, confusion_matrix, top_k_accuracy, true_ranks

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("class_ids", "ranks"),
    [
        ([1, 0, 0, 0], [0, 0, 0, 0]),
        ([2, 1, 1, 2], [1, 1, 1, 2]),  # of equal scores the lower class comes first
        ([0, 2, 2, 1], [2, 2, 2, 1]),
    ],
)
def test_rank_of_the_true_class(class_ids: list[int], ranks: list[int]) -> None:
    assert true_ranks(SCORES, np.array(class_ids)).tolist() == ranks


@pytest.mark.parametrize(("k", "share"), [(1, 0.25), (2, 0.75), (3, 1.0), (5, 1.0)])
def test_top_k(k: int, share: float) -> None:
    assert top_k_accuracy(np.array([0, 1, 1, 2]), k) == share


def test_confusion_has_the_truth_in_rows() -> None:
    confusion = confusion_matrix(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 2]), 3)
    assert confusion.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_figures_of_each_class() -> None:
    # class 1 was predicted twice and is never there; class 3 is there and was never predicted
    confusion = np.array([[6, 2, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0], [2, 0, 0, 0]])
    figures = class_figures(confusion)
    assert figures.support.tolist() == [8, 0, 3, 2]
    assert figures.precision.tolist() == [0.75, 0.0, 1.0, 0.0]
    assert figures.recall.tolist() == [0.75, 0.0, 1.0, 0.0]
    assert figures.f1.tolist() == [0.75, 0.0, 1.0, 0.0]


@given(
    arrays(np.int8, st.tuples(st.integers(1, 30), st.integers(1, 6)), elements=st.integers(0, 4)), st.data()
)
def test_rank_is_the_place_in_a_stable_sort(scores: npt.NDArray[np.int8], data: st.DataObject) -> None:
    class_ids = data.draw(arrays(np.int64, len(scores), elements=st.integers(0, scores.shape[1] - 1)))
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = true_ranks(scores, class_ids)
    assert ranks.tolist() == [int(np.flatnonzero(row == c)[0]) for row, c in zip(order, class_ids)]
    confusion = confusion_matrix(class_ids, scores.argmax(axis=1), scores.shape[1])
    assert confusion.trace() / len(scores) == top_k_accuracy(ranks, 1)
    assert confusion.sum() == len(scores)
