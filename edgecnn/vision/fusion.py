"""Weighted boxes fusion: boxes of one object become their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.boxes import iou_matrix
from edgecnn.vision.suppression import checked_boxes

__all__ = ["fuse_boxes"]


def fuse_boxes(
    boxes_xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None = None,
    *,
    iou: float = 0.55,
    models: int = 1,
    max_detections: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Fuse the boxes of one model, or of several that looked at the same frame.

    From the best score down, a box joins the cluster whose fused box it overlaps most, if by an IoU above
    ``iou``, else it begins one. The fused box of T boxes is ``sum(score * box) / sum(score)``. Its score is
    ``mean(score) * min(T, models) / models``: what only one of several models saw counts less.

    Source: Solovyev, Wang and Gabruseva, "Weighted boxes fusion: ensembling boxes from different object
    detection models" (Image and Vision Computing, 2021).

    Args:
        boxes_xyxy: (n, 4), the boxes of all models one after the other.
        scores: (n,), not negative; a box that scores 0 has no weight and is left out.
        class_ids: (n,) integers: only boxes of one class are fused. None: all are.
        iou: Overlap above which two boxes show one object, 0..1.
        models: How many models the boxes are of.
        max_detections: At most so many fused boxes, the best.

    Returns:
        int64 (k,) index of the best box of each cluster, which tells its class; float64 (k, 4) fused
        boxes_xyxy; float64 (k,) their scores, best first.

    Raises:
        InputError: Lengths disagree, a value is not finite, or an argument is out of range.
    """
    boxes, ranks, classes = checked_boxes(boxes_xyxy, scores, class_ids, iou, max_detections)
    if (ranks < 0).any():
        raise InputError("scores must not be negative: they are the weights of the boxes")
    if models < 1:
        raise InputError(f"models must be at least 1, not {models}")
    order = np.argsort(-ranks, kind="stable")
    order = order[ranks[order] > 0]
    groups = np.zeros(len(ranks), np.int64) if classes is None else classes
    clusters = [_Clusters(boxes, ranks, order[groups[order] == group], iou) for group in np.unique(groups)]
    if not clusters:
        return np.empty(0, np.int64), np.empty((0, 4)), np.empty(0)
    first, fused, total, count = (np.concatenate(parts) for parts in zip(*(each.table for each in clusters)))
    fused_scores = total / count * np.minimum(count, models) / models
    best = np.lexsort((first, -fused_scores))[:max_detections]
    return first[best], fused[best], fused_scores[best]


class _Clusters:
    """Clusters of the boxes of one class."""

    def __init__(
        self,
        boxes: npt.NDArray[np.float32],
        scores: npt.NDArray[np.floating[Any]],
        order: npt.NDArray[np.int64],
        iou: float,
    ) -> None:
        self._first = np.empty(len(order), np.int64)
        self._fused = np.empty((len(order), 4))
        self._total = np.zeros(len(order))
        self._count = np.zeros(len(order), np.int64)
        self._size = 0
        for index in order:
            self._add(int(index), boxes[index].astype(np.float64), float(scores[index]), iou)

    @property
    def table(self) -> tuple[npt.NDArray[Any], ...]:
        """Of each cluster its first box, its fused box, the sum of its scores and the number of its boxes."""
        return tuple(column[: self._size] for column in (self._first, self._fused, self._total, self._count))

    def _add(self, index: int, box: npt.NDArray[np.float64], score: float, iou: float) -> None:
        overlap = iou_matrix(box[None], self._fused[: self._size])[0]
        at = int(overlap.argmax()) if self._size else 0
        if not self._size or overlap[at] <= iou:
            at = self._size
            self._first[at], self._fused[at] = index, box
            self._size += 1
        self._total[at] += score
        self._count[at] += 1
        # the weighted sum, one box at a time: exact where boxes are equal
        self._fused[at] += (box - self._fused[at]) * (score / self._total[at])
