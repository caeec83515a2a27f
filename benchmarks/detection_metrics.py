"""Matching of boxes with the truth, and average precision, for the figures in docs/measurements.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.vision import iou_matrix

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """What is in one image.

    Attributes:
        boxes: (n, 4) x1 y1 x2 y2 of the objects.
        ignore: (m, 4) regions where a detection is neither right nor wrong.
    """

    boxes: Boxes
    ignore: Boxes


@dataclass(frozen=True)
class Figures:
    """Counts over all images; ``ap`` is None for detectors without scores."""

    images: int
    objects: int
    found: int
    false_positives: int
    ap: float | None

    @property
    def recall(self) -> float:
        """Share of the objects that were found."""
        return self.found / self.objects

    @property
    def false_positives_an_image(self) -> float:
        """Detections on nothing, per image."""
        return self.false_positives / self.images


def match(boxes: Boxes, truth: Truth, iou: float) -> list[bool | None]:
    """Right, wrong or to be ignored, for boxes that come best first.

    Greedy: a box takes the free object that it overlaps most, if by at least ``iou``. A box that takes
    none is ignored when it overlaps an ignore region by ``iou`` or lies half inside one; else it is wrong,
    also when its object was taken by a better box.
    """
    overlaps = iou_matrix(boxes, truth.boxes)
    taken = np.zeros(len(truth.boxes), bool)
    outcome: list[bool | None] = []
    for i, box in enumerate(boxes):
        free = np.where(taken, -1.0, overlaps[i]) if len(taken) else np.empty(0)
        if free.size and free.max() >= iou:
            taken[free.argmax()] = True
            outcome.append(True)
        else:
            outcome.append(None if _ignored(box, truth.ignore, iou) else False)
    return outcome


def _ignored(box: Boxes, ignore: Boxes, iou: float) -> bool:
    if len(ignore) == 0:
        return False
    width = np.minimum(box[2], ignore[:, 2]) - np.maximum(box[0], ignore[:, 0])
    height = np.minimum(box[3], ignore[:, 3]) - np.maximum(box[1], ignore[:, 1])
    inside = np.clip(width, 0, None) * np.clip(height, 0, None)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return bool(inside.max() >= 0.5 * area or iou_matrix(box[None], ignore).max() >= iou)


def average_precision(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_], objects: int) -> float:
    """Area under the precision-recall curve, precision made non-increasing (all points)."""
    order = np.argsort(-scores, kind="stable")
    hits = right[order]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / objects)


def evaluate(
    detections: list[tuple[Boxes, npt.NDArray[np.float32] | None]],
    truths: list[Truth],
    *,
    iou: float,
    threshold: float = 0.0,
) -> Figures:
    """Figures of a detector.

    Args:
        detections: Boxes and scores of each image, best first; scores None where there are none.
        truths: What is in each image.
        iou: Overlap that counts as found.
        threshold: Recall and false positives are counted at scores of at least this; AP uses all.
    """
    scores, right, found, wrong = [], [], 0, 0
    for (boxes, values), truth in zip(detections, truths):
        for outcome, score in zip(
            match(boxes, truth, iou), values if values is not None else [1.0] * len(boxes)
        ):
            if outcome is None:
                continue
            scores.append(score)
            right.append(outcome)
            if score >= threshold:
                found += outcome
                wrong += not outcome
    objects = sum(len(truth.boxes) for truth in truths)
    with_scores = all(values is not None for _, values in detections)
    ap = average_precision(np.float32(scores), np.array(right, bool), objects) if with_scores else None
    return Figures(len(truths), objects, found, wrong, ap)
