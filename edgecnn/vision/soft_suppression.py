"""Soft non-maximum suppression: overlap lowers a score instead of ending it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.boxes import iou_matrix
from edgecnn.vision.suppression import checked_boxes

__all__ = ["SoftMethod", "soft_nms"]

SoftMethod = Literal["linear", "gaussian"]


def soft_nms(
    boxes_xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None = None,
    *,
    method: SoftMethod = "gaussian",
    iou: float = 0.5,
    sigma: float = 0.5,
    threshold: npt.ArrayLike = 0.001,
    max_detections: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.floating[Any]]]:
    """Greedy suppression that lowers the scores of overlapping boxes.

    The best box is kept; every other one of its class that overlaps it by an IoU of o has its score
    multiplied, by ``1 - o`` where o is above ``iou`` (linear), or by ``exp(-o**2 / sigma)`` (gaussian);
    what falls below its threshold is gone; then comes the best of those that are left. Objects that stand
    close together stay two, and their duplicates come late in the ranking.

    Source: Bodla, Singh, Chellappa and Davis, "Soft-NMS: improving object detection with one line of code"
    (ICCV 2017).

    Args:
        boxes_xyxy: (n, 4).
        scores: (n,), not negative.
        class_ids: (n,) integers: only boxes of one class lower one another's scores. None: all do.
        method: ``linear`` or ``gaussian``.
        iou: Of linear: overlaps up to it cost nothing; 0..1.
        sigma: Of gaussian: the smaller, the closer to hard suppression of any overlap; above 0.
        threshold: Boxes stay while their score is at least this; one value, or (n,).
        max_detections: Stop after so many boxes.

    Returns:
        int64 indices of the kept boxes, best first, and their lowered scores.

    Raises:
        InputError: Lengths disagree, a value is not finite, or an argument is out of range.
    """
    boxes, ranks, classes = checked_boxes(boxes_xyxy, scores, class_ids, iou, max_detections)
    if method not in ("linear", "gaussian"):
        raise InputError(f"method {method!r} is unknown, choose linear or gaussian")
    if not sigma > 0:
        raise InputError(f"sigma must be above 0, not {sigma}")
    if (ranks < 0).any():
        raise InputError("scores must not be negative: lowering them would raise these")
    lowest = np.asarray(threshold, ranks.dtype)
    if lowest.shape not in ((), ranks.shape):
        raise InputError(f"threshold of shape {lowest.shape} for {len(ranks)} boxes, it is one value or (n,)")
    lowest = np.broadcast_to(lowest, ranks.shape)
    left, lowered = np.flatnonzero(ranks >= lowest), ranks.copy()
    kept: list[int] = []
    while len(left) and (max_detections is None or len(kept) < max_detections):
        best = left[lowered[left].argmax()]
        kept.append(int(best))
        left = left[left != best]
        mates = left if classes is None else left[classes[left] == classes[best]]
        overlap = iou_matrix(boxes[[best]], boxes[mates])[0].astype(np.float64)
        if method == "linear":
            lowered[mates] *= np.where(overlap > iou, 1 - overlap, 1)
        else:
            lowered[mates] *= np.exp(-np.square(overlap) / sigma)
        left = left[lowered[left] >= lowest[left]]
    indices = np.array(kept, np.int64)
    return indices, lowered[indices]
