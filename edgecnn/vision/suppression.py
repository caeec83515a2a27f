"""Non-maximum suppression in numpy, with the decisions of ``torchvision.ops.nms``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.boxes import as_boxes

__all__ = ["nms"]

BLOCK = 256
LATER = ~np.tri(BLOCK, dtype=bool)
TABLE = 2**18
FIRST = 2  # times as many as are to be kept are looked at first
SAMPLE = 2048
SPARSE = 8


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
    boxes, ranks, classes = checked_boxes(boxes_xyxy, scores, class_ids, iou, max_detections)
    limit = len(ranks) if max_detections is None else max_detections
    suppresses = _Overlap(boxes, classes, _float32_at_most(iou))
    kept = np.empty(0, np.int64)
    for order in best_first(ranks, FIRST * limit):
        while len(order) and len(kept) < limit:
            # one that is among the first is seldom suppressed: hardly more than are wanted need a look
            size = min(BLOCK, (limit - len(kept)) * 5 // 4 + 8)
            block, order = order[:size], order[size:]
            if len(kept):
                block = block[~suppresses.any(kept, block)]
            later = LATER[: len(block), : len(block)]
            kept = np.concatenate([kept, block[_greedy(suppresses.table(block, block, later))]])
        if len(kept) >= limit:
            break
    return kept[:limit]


def best_first(ranks: npt.NDArray[Any], first: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices from the best score down, equal ones in their order: about so many, then ever more at a time.

    Whoever needs few of many sorts few. Where to cut is told by a sample, so that how many come at a time
    is a guess, and their order is not.
    """
    left = None
    while True:
        values = ranks if left is None else ranks[left]
        step = len(values) // SAMPLE
        if step == 0 or 2 * first >= len(values):
            break
        sample = np.sort(values[::step])
        low = sample[-(first // step + 1)]
        best = values >= low
        found = np.flatnonzero(best)
        found = found if left is None else left[found]
        yield found[np.argsort(-ranks[found], kind="stable")]
        rest = np.flatnonzero(~best)
        left = rest if left is None else left[rest]
        first *= 4
    order = np.argsort(-values, kind="stable")
    yield order if left is None else left[order]


def checked_boxes(
    boxes_xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None,
    iou: float,
    max_detections: int | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.floating[Any]], npt.NDArray[Any] | None]:
    """Arguments of a suppression as arrays: boxes, scores and class ids, or an `InputError`."""
    with np.errstate(over="ignore"):
        boxes = as_boxes(boxes_xyxy, "boxes_xyxy").astype(np.float32, copy=False)
    ranks = np.asarray(scores)
    if ranks.ndim != 1 or (ranks.size and ranks.dtype.kind not in "fiu"):
        raise InputError(f"scores: {ranks.dtype} with {ranks.ndim} axes, scores are numbers in an array (n,)")
    ranks = ranks.astype(np.float64 if ranks.dtype.kind in "iu" else ranks.dtype, copy=False)
    classes = None if class_ids is None else np.asarray(class_ids)
    if classes is not None and (classes.ndim != 1 or (classes.size and classes.dtype.kind not in "iu")):
        raise InputError(f"class_ids: {classes.dtype} with {classes.ndim} axes, they are integers (n,)")
    if len(ranks) != len(boxes) or (classes is not None and len(classes) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(ranks)} scores"
        raise InputError(counts if classes is None else f"{counts} and {len(classes)} class ids")
    for name, values in (("boxes_xyxy", boxes), ("scores", ranks)):
        # the sum of squares tells of any that is not finite, and is quick; it may also be too large itself
        with np.errstate(all="ignore"):
            suspicious = not math.isfinite(np.vdot(values, values))
        if suspicious and not (finite := np.isfinite(values).reshape(len(values), -1).all(axis=1)).all():
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


class _Overlap:
    """Which boxes suppress which others."""

    def __init__(
        self, boxes: npt.NDArray[np.float32], classes: npt.NDArray[Any] | None, threshold: np.float32
    ) -> None:
        self._boxes, self._classes, self._threshold = boxes, classes, threshold

    def any(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether any of the rows suppresses a column."""
        hit = np.zeros(len(columns), bool)
        # few rows at a time where there are many columns, for tables that stay in the cache
        few = TABLE // max(1, len(columns))
        for at in range(0, len(rows), few):
            hit |= self.table(rows[at : at + few], columns).any(axis=0)
        return hit

    def table(
        self,
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
        among: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """(rows, columns): whether the IoU is above the threshold, within a class, among these pairs."""
        a, b = self._boxes[rows].T[:, :, None], self._boxes[columns].T.copy()
        table: npt.NDArray[np.bool_] = a[0] < b[2]
        if among is not None:
            table &= among
        for meet in (b[0] < a[2], a[1] < b[3], b[1] < a[3]):
            table &= meet
        if self._classes is not None:
            table &= self._classes[rows, None] == self._classes[columns]
        meeting = np.count_nonzero(table)
        if meeting * SPARSE > table.size:
            table &= _iou(a, b) > self._threshold
        elif meeting:  # few, and only those are computed
            flat = table.reshape(-1)
            at = np.flatnonzero(flat)
            i = at // len(columns)
            flat[at] = _iou(a[:, i, 0], b[:, at - i * len(columns)]) > self._threshold
        return table


def _iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IoU of boxes (4, ...), as torchvision computes it; 0/0 of empty boxes is no number and no overlap."""
    zero = np.float32(0)
    with np.errstate(all="ignore"):
        areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
        inter = np.minimum(a[2], b[2])
        inter -= np.maximum(a[0], b[0])
        np.maximum(zero, inter, out=inter)
        height = np.minimum(a[3], b[3])
        height -= np.maximum(a[1], b[1])
        inter *= np.maximum(zero, height, out=height)
        union = np.add(areas[0], areas[1], out=height)
        union -= inter
        iou: npt.NDArray[np.float32] = np.divide(inter, union, out=inter)
    return iou


def _greedy(later: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Places that survive when each surviving row removes those that it overlaps, all of them after it."""
    alive = np.ones(len(later), bool)
    for i in np.flatnonzero(later.any(axis=1)):
        if alive[i]:
            alive &= ~later[i]
    return np.flatnonzero(alive)
