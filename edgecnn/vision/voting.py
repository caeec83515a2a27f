"""Where a detection is, told by all windows around it instead of by the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.boxes import as_boxes, iou_matrix

__all__ = ["vote"]

STEPS = 20
# windows of less than this share of the weakest detection's score: too light to be worth their time
LIGHTEST = 0.1
PAIRS = 2**18


def vote(
    boxes_xyxy: npt.ArrayLike, scores: npt.ArrayLike, kept: npt.ArrayLike
) -> npt.NDArray[np.floating[Any]]:
    """Move detections of one class to where the windows around them agree.

    Windows on an object score so close to 1 that rounding decides which of them is the best; their mean does
    not hang on it. A box moves to ``sum(w * boxes) / sum(w)`` with ``w = scores * iou(box, boxes)**2``, and
    again from there, 20 times, after which it hardly moves. Boxes that start on one object among many windows
    arrive at one place: suppress again what has become one. A box that no other one overlaps stays.

    The mean is the box voting of Gidaris and Komodakis, "Object detection via a multi-region and semantic
    segmentation-aware CNN model" (ICCV 2015), with weights that fall off with the overlap instead of a limit;
    repeating it until nothing moves is the mean shift of Comaniciu and Meer (PAMI 2002).

    Args:
        boxes_xyxy: (n, 4), all windows.
        scores: (n,), not negative.
        kept: (k,) indices of the boxes to move, as `nms` returns them.

    Returns:
        (k, 4), of the type of the boxes.

    Raises:
        InputError: Scores and boxes disagree in number.
    """
    boxes, weights, chosen = as_boxes(boxes_xyxy), np.asarray(scores, np.float64), np.asarray(kept, np.int64)
    if weights.shape != (len(boxes),):
        raise InputError(f"scores of shape {weights.shape} for {len(boxes)} boxes, they are (n,)")
    moved = boxes[chosen]
    if not len(chosen):
        return moved
    heavy = weights >= LIGHTEST * weights[chosen].min()
    voters, weights = boxes[heavy].astype(np.float64), weights[heavy]
    # few boxes at a time where many vote, for tables that stay in the cache
    for part in np.array_split(np.arange(len(chosen)), -(-len(chosen) * len(voters) // PAIRS)):
        centres = moved[part].astype(np.float64)
        for _ in range(STEPS):
            votes = weights * np.square(iou_matrix(centres, voters), dtype=np.float64)
            total = votes.sum(axis=1, keepdims=True)
            np.divide(votes @ voters, total, out=centres, where=total > 0)
        moved[part] = centres
    return moved
