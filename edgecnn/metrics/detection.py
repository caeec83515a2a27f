"""Average precision as COCO defines it, and recall and false positives at one threshold.

The decisions are those of pycocotools with ``iouType="bbox"``, all areas and 100 detections an image and
class, which tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.results import Detections

__all__ = ["IOU_THRESHOLDS", "DetectionCounts", "Objects", "average_precision", "count_detections", "match"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# of each image and class only the best are judged
DETECTIONS_MAX = 100


@dataclass(frozen=True, eq=False)
class Objects:
    """What is in one image.

    Attributes:
        boxes_xyxy: float64 (n, 4), in source pixels.
        class_ids: int64 (n,).
        ignored: bool (n,): a region, such as a crowd, where detections of that class are neither right
            nor wrong.
    """

    boxes_xyxy: npt.NDArray[np.float64]
    class_ids: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DetectionCounts:
    """Counts of each class over all images, int64 (K,): objects, those found, detections on nothing."""

    objects: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]


def match(
    boxes_xyxy: npt.NDArray[np.float64],
    objects_xyxy: npt.NDArray[np.float64],
    ignored: npt.NDArray[np.bool_],
    ious: npt.NDArray[np.float64],
) -> npt.NDArray[np.int8]:
    """Judge the detections of one class in one image at several IoU thresholds.

    Greedy, best score first: a detection takes the free object that it overlaps most, if by at least the
    threshold (of equal overlaps the last object). One that takes none is ignored where at least that
    share of its own area lies in an ignored region, which any number may do; else it is wrong.

    Args:
        boxes_xyxy: (d, 4), best score first.
        objects_xyxy: (g, 4).
        ignored: (g,) which of the objects are regions to ignore.
        ious: (t,) thresholds in 0..1.

    Returns:
        int8 (t, d): 1 right, 0 wrong, -1 ignored.
    """
    overlaps = _overlaps(boxes_xyxy, objects_xyxy[~ignored], of_box_alone=False)
    inside = _overlaps(boxes_xyxy, objects_xyxy[ignored], of_box_alone=True).max(axis=1, initial=0.0)
    outcome = np.where(inside >= ious[:, None], -1, 0).astype(np.int8)
    if overlaps.shape[1] == 0:
        return outcome
    rows = np.arange(len(ious))
    taken = np.zeros((len(ious), overlaps.shape[1]), bool)
    for i, row in enumerate(overlaps):
        free = np.where(taken, -1.0, row)
        best = free.shape[1] - 1 - free[:, ::-1].argmax(axis=1)
        right = free[rows, best] >= ious
        taken[rows[right], best[right]] = True
        outcome[right, i] = 1
    return outcome


def average_precision(
    detections: Sequence[Detections], objects: Sequence[Objects], classes: int
) -> npt.NDArray[np.float64]:
    """Average precision of each class at each of `IOU_THRESHOLDS`.

    Detections of all images are ranked by score. With ``recall = right / objects`` and ``precision =
    right / (right + wrong)`` down to each rank, AP is the mean over the recalls 0, 0.01 … 1 of the best
    precision at that recall or a higher one, 0 where that recall is not reached. COCO's ``AP`` is the mean
    of the result, ``AP50`` that of its first row. (T.-Y. Lin et al., Microsoft COCO, 2014; the
    detection evaluation on cocodataset.org.)

    Args:
        detections: Of each image, best score first.
        objects: What is in each image.
        classes: Number of classes.

    Returns:
        float64 (10, classes); NaN where there is no object of a class.
    """
    result = np.full((len(IOU_THRESHOLDS), classes), np.nan)
    for class_id in range(classes):
        scores, outcomes, count = _judge(detections, objects, class_id, IOU_THRESHOLDS, DETECTIONS_MAX)
        if count:
            order = np.argsort(-scores, kind="stable")
            result[:, class_id] = [_interpolated(outcome[order], count) for outcome in outcomes]
    return result


def count_detections(
    detections: Sequence[Detections], objects: Sequence[Objects], classes: int, iou: float = 0.5
) -> DetectionCounts:
    """Count objects, found objects and false positives of each class, all detections being meant.

    Args:
        detections: Of each image, at the threshold in use, best score first.
        objects: What is in each image.
        classes: Number of classes.
        iou: Overlap that counts as found.
    """
    rows = []
    for class_id in range(classes):
        _, outcomes, count = _judge(detections, objects, class_id, np.array([iou]), None)
        rows.append((count, np.count_nonzero(outcomes == 1), np.count_nonzero(outcomes == 0)))
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return DetectionCounts(*columns)


def _judge(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    class_id: int,
    ious: npt.NDArray[np.float64],
    most: int | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8], int]:
    """Scores (d,) and outcomes (t, d) of a class over all images, and how many objects there are."""
    scores, outcomes, count = [np.empty(0)], [np.empty((len(ious), 0), np.int8)], 0
    for found, truth in zip(detections, objects):
        chosen = np.flatnonzero(found.class_ids == class_id)[:most]
        there = truth.class_ids == class_id
        ignored = truth.ignored[there]
        count += int(np.count_nonzero(~ignored))
        if len(chosen):
            boxes = found.boxes[chosen].astype(np.float64)
            outcomes.append(match(boxes, truth.boxes_xyxy[there], ignored, ious))
            scores.append(found.scores[chosen].astype(np.float64))
    return np.concatenate(scores), np.concatenate(outcomes, axis=1), count


def _interpolated(outcome: npt.NDArray[np.int8], count: int) -> float:
    right, wrong = np.cumsum(outcome == 1), np.cumsum(outcome == 0)
    precision = right / np.maximum(right + wrong, 1)
    # a rank below may have a better precision; past the last rank there is none
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(right / count, RECALLS, side="left")].mean())


def _overlaps(
    boxes_xyxy: npt.NDArray[np.float64], objects_xyxy: npt.NDArray[np.float64], *, of_box_alone: bool
) -> npt.NDArray[np.float64]:
    """Intersection (d, g) over the union, or over the detection's own area.

    In float64: rounded to float32, an overlap of 0.65 would miss its threshold.
    """
    a, b = boxes_xyxy[:, None], objects_xyxy[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.clip(sides, 0, None).prod(axis=2)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).prod(axis=2) for x in (a, b))
    whole = area_a + np.zeros_like(inter) if of_box_alone else area_a + area_b - inter
    overlaps: npt.NDArray[np.float64] = np.divide(inter, whole, out=np.zeros_like(inter), where=whole > 0)
    return overlaps
