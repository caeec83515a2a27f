"""SSD heads to boxes and class scores of one frame, in input pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.anchors import decode_offsets
from edgecnn.vision.boxes import Boxes, as_boxes, convert_boxes

__all__ = ["SSD_VARIANCES", "decode_ssd", "prior_boxes"]

SSD_VARIANCES = (0.1, 0.2)


def prior_boxes(
    size_hw: tuple[int, int], stride: float, sizes_wh: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float32]:
    """Priors of one feature map: boxes of the same sizes about the middle of every cell.

    Args:
        size_hw: Height and width of the input in pixels; the map has ``ceil(size / stride)`` cells.
        stride: Input pixels a cell, which need not be whole: 320 / 3 for 3 cells on 320 px.
        sizes_wh: Width and height of each prior of a cell, input pixels.

    Returns:
        float32 (cells * sizes, 4), boxes_xyxy in input pixels, row by row, a cell's priors together; not
        clipped.

    Raises:
        InputError: A number is not above 0.
    """
    sizes = np.asarray(sizes_wh, np.float64).reshape(-1, 2)
    numbers = [*size_hw, stride, *sizes.ravel()]
    if not len(sizes) or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise InputError("priors need sizes, a stride and an input size that are all above 0")
    # a stride of 320 / 3 is not the exact third
    rows, columns = (math.ceil(length / stride - 1e-6) for length in size_hw)
    y, x = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    centres = np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2) * stride, len(sizes), axis=0)
    boxes = np.concatenate([centres, np.tile(sizes, (rows * columns, 1))], axis=1)
    return convert_boxes(boxes, "cxcywh", "xyxy").astype(np.float32)


def decode_ssd(
    locations: npt.ArrayLike,
    class_scores: npt.ArrayLike,
    priors_xyxy: npt.ArrayLike,
    variances: tuple[float, float] = SSD_VARIANCES,
) -> tuple[Boxes, npt.NDArray[np.floating[Any]]]:
    """Boxes of an SSD head, such as the raw head of torchvision's SSD and SSDLite.

    Boxes are offsets to priors, see `decode_offsets`; torchvision's box coder of weights (10, 10, 5, 5) is
    that of variances (0.1, 0.2).

    Source: Liu et al., "SSD: single shot multibox detector" (ECCV 2016).

    Args:
        locations: (n, 4), tx ty tw th.
        class_scores: (n, K) probabilities, usually with the background as class 0.
        priors_xyxy: (n, 4) in input pixels.
        variances: Factors of the centre's and the size's offsets.

    Returns:
        boxes_xyxy (n, 4) in input pixels, not clipped, and scores (n, K).

    Raises:
        InputError: Locations, scores and priors are not as many.
    """
    offsets, scores = as_boxes(locations, "locations"), np.asarray(class_scores)
    priors = as_boxes(priors_xyxy, "priors_xyxy")
    if scores.ndim != 2 or not len(offsets) == len(scores) == len(priors):
        raise InputError(
            f"{len(offsets)} locations and class scores of shape {scores.shape} for {len(priors)} priors"
        )
    return decode_offsets(offsets, priors, variances), scores
