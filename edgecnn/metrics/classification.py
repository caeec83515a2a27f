"""Accuracy, and what is taken for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ClassFigures", "class_figures", "confusion_matrix", "top_k_accuracy", "true_ranks"]


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """Figures of each class, float64 (K,); ``support`` int64 (K,) is its number of examples."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    support: npt.NDArray[np.int64]


def true_ranks(scores: npt.NDArray[Any], class_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of the true class among the scores of each example, 0 being the best.

    Of equal scores the lower class id comes first, as predictions rank them.

    Args:
        scores: (n, K), finite.
        class_ids: (n,) in 0..K-1, the truth.
    """
    true = np.take_along_axis(scores, class_ids[:, None], axis=1)
    before = np.arange(scores.shape[1]) < class_ids[:, None]
    ranks: npt.NDArray[np.int64] = ((scores > true) | ((scores == true) & before)).sum(axis=1)
    return ranks


def top_k_accuracy(ranks: npt.NDArray[np.int64], k: int) -> float:
    """Share of the examples whose true class is among the k best: ``mean(rank < k)``.

    Args:
        ranks: (n,) from `true_ranks`, n at least 1.
        k: 1 for plain accuracy.
    """
    return float((ranks < k).mean())


def confusion_matrix(
    class_ids: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Count what was taken for what: row i, column j are examples of class i that were predicted as j.

    Args:
        class_ids: (n,) in 0..classes-1, the truth.
        predicted: (n,) likewise.
        classes: Number of classes.

    Returns:
        int64 (classes, classes); the sum is n.
    """
    counts = np.bincount(class_ids * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_figures(confusion: npt.NDArray[np.int64]) -> ClassFigures:
    """Precision, recall and F1 of each class.

    ``precision = hits / predicted``, ``recall = hits / support``, and their harmonic mean
    ``f1 = 2 hits / (predicted + support)``. Where there is nothing to divide by (a class that was never
    predicted, or of which there is no example) the figure is 0.

    Args:
        confusion: (K, K) from `confusion_matrix`.
    """
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassFigures(
        _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support), support
    )


def _ratio(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
