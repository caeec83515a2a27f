"""Non-maximum suppression in numpy, with the decisions of ``torchvision.ops.nms``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.boxes import as_boxes

__all__ = ["nms"]

BLOCK = 256


def nms(
    boxes_xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None = None,
    iou: float = 0.5,
    max_detections: int | None = None,
) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression.

    From the best score down, a box is kept unless its IoU with a kept one is above ``iou``. The IoU
    is ``inter / (area_i + area_j - inter)`` in float32, as torchvision computes it, so that both
    decide alike at the threshold. Equal scores keep their order; an empty box suppresses nothing
    and is not suppressed.

    Args:
        boxes_xyxy: (n, 4).
        scores: (n,).
        class_ids: (n,) integers: only boxes of one class suppress one another. None: all do.
        iou: Threshold in 0..1; a box is suppressed strictly above it.
        max_detections: Stop after so many boxes.

    Returns:
        int64 indices of the kept boxes, best first.

    Raises:
        InputError: Lengths disagree, a value is not finite, or an argument is out of range.
    """
    boxes, ranks, classes = _check(boxes_xyxy, scores, class_ids, iou, max_detections)
    order = np.argsort(-ranks, kind="stable").astype(np.int64)
    limit = len(order) if max_detections is None else max_detections
    threshold = _float32_at_most(iou)
    corners = boxes[order].T.copy()
    with np.errstate(all="ignore"):  # 0/0 of empty boxes is no overlap, as in torchvision
        areas = (corners[2] - corners[0]) * (corners[3] - corners[1])
        kept: list[npt.NDArray[np.int64]] = []
        remaining = np.arange(len(order))
        while len(remaining) and limit > 0:
            block, rest = remaining[:BLOCK], remaining[BLOCK:]
            overlaps = _overlaps(corners, areas, classes, order, block, block, threshold)
            chosen = block[_greedy(overlaps)][:limit]
            kept.append(order[chosen])
            limit -= len(chosen)
            remaining = rest
            if len(rest) and limit > 0:
                suppressed = np.zeros(len(rest), bool)
                # few kept boxes at a time where many are left, for tables that stay in the cache
                for part in np.array_split(chosen, -(-len(chosen) * len(rest) // 2**18)):
                    hit = _overlaps(corners, areas, classes, order, part, rest, threshold)
                    suppressed |= hit.any(axis=0)
                remaining = rest[~suppressed]
    return np.concatenate(kept) if kept else np.empty(0, np.int64)


def _check(
    boxes_xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None,
    iou: float,
    max_detections: int | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[Any] | None]:
    with np.errstate(over="ignore"):
        boxes = as_boxes(boxes_xyxy, "boxes_xyxy").astype(np.float32)
    ranks = np.asarray(scores)
    if ranks.ndim != 1 or (ranks.size and ranks.dtype.kind not in "fiu"):
        raise InputError(f"scores: {ranks.dtype} with {ranks.ndim} axes, scores are numbers in an array (n,)")
    ranks = ranks.astype(np.float64)
    classes = None if class_ids is None else np.asarray(class_ids)
    if classes is not None and (classes.ndim != 1 or (classes.size and classes.dtype.kind not in "iu")):
        raise InputError(f"class_ids: {classes.dtype} with {classes.ndim} axes, they are integers (n,)")
    if len(ranks) != len(boxes) or (classes is not None and len(classes) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(ranks)} scores"
        raise InputError(counts if classes is None else f"{counts} and {len(classes)} class ids")
    for name, finite in (("boxes_xyxy", np.isfinite(boxes).all(axis=1)), ("scores", np.isfinite(ranks))):
        if not finite.all():
            raise InputError(f"{name}: entry {int(np.argmin(finite))} is not finite in float32")
    if not 0 <= iou <= 1:
        raise InputError(f"iou must be in 0..1, not {iou}")
    if max_detections is not None and max_detections < 0:
        raise InputError(f"max_detections must not be negative, not {max_detections}")
    return boxes, ranks, classes


def _float32_at_most(value: float) -> np.float32:
    """Round down to float32, so that ``x > value`` stays the same for every float32 x."""
    rounded: np.float32 = np.float32(value)
    if float(rounded) > value:
        rounded = np.float32(np.nextafter(rounded, np.float32(-1)))
    return rounded


def _overlaps(
    corners: npt.NDArray[np.float32],
    areas: npt.NDArray[np.float32],
    classes: npt.NDArray[Any] | None,
    order: npt.NDArray[np.int64],
    rows: npt.NDArray[Any],
    columns: npt.NDArray[Any],
    threshold: np.float32,
) -> npt.NDArray[np.bool_]:
    """Which boxes (rows) suppress which others (columns); both are places in the sorted list."""
    x1, y1, x2, y2 = corners[:, rows, None]
    u1, v1, u2, v2 = corners[:, columns]
    zero = np.float32(0)
    inter = np.maximum(zero, np.minimum(x2, u2) - np.maximum(x1, u1))
    inter *= np.maximum(zero, np.minimum(y2, v2) - np.maximum(y1, v1))
    above: npt.NDArray[np.bool_] = inter / (areas[rows, None] + areas[columns] - inter) > threshold
    if classes is not None:
        above &= classes[order[rows], None] == classes[order[columns]]
    return above


def _greedy(overlaps: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Places that survive when each surviving row removes the columns after it that it overlaps."""
    alive = np.ones(len(overlaps), bool)
    for i in range(len(overlaps)):
        if alive[i]:
            alive[i + 1 :] &= ~overlaps[i, i + 1 :]
    return np.flatnonzero(alive).astype(np.int64)
