"""Anchor boxes and the box regression of detector heads, for models whose outputs come as tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.boxes import as_boxes, convert_boxes

__all__ = ["anchor_grid", "decode_offsets", "encode_offsets", "row_scores"]

# exp of more than this is a box 1,000 times its anchor: an unlucky output must not become inf in float16
LOG_SIZE_MAX = math.log(1000.0)


def anchor_grid(
    size_hw: tuple[int, int], stride: int, sizes: Sequence[float], ratios_hw: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Anchors of one feature map, every size and ratio at every cell.

    An anchor of size s and ratio r has height ``s * sqrt(r)`` and width ``s / sqrt(r)``: the ratio is
    height over width, so 0.5 is a landscape box, and all ratios of a size have the same area.

    Args:
        size_hw: Height and width of the input in pixels; the map has ``ceil(size / stride)`` cells.
        stride: Input pixels a cell.
        sizes: Square roots of the anchors' areas, pixels.
        ratios_hw: Height over width.

    Returns:
        float32 (cells * sizes * ratios, 4), boxes_xyxy in input pixels, row by row, a cell's anchors
        together, ratios within a size; centred on the cell, not clipped.

    Raises:
        InputError: A number is not above 0.
    """
    numbers = [*size_hw, stride, *sizes, *ratios_hw]
    if not sizes or not ratios_hw or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise InputError("anchors need sizes, ratios, a stride and an input size that are all above 0")
    rows, columns = (math.ceil(length / stride) for length in size_hw)
    y, x = np.meshgrid((np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, indexing="ij")
    side = np.repeat(np.asarray(sizes, np.float64), len(ratios_hw))
    root = np.sqrt(np.tile(np.asarray(ratios_hw, np.float64), len(sizes)))
    shape = (rows, columns, len(side))
    anchors = np.stack(
        [
            np.broadcast_to(x[..., None], shape),
            np.broadcast_to(y[..., None], shape),
            np.broadcast_to(side / root, shape),
            np.broadcast_to(side * root, shape),
        ],
        axis=-1,
    )
    return convert_boxes(anchors.reshape(-1, 4), "cxcywh", "xyxy").astype(np.float32)


def decode_offsets(
    offsets: npt.ArrayLike,
    anchors_xyxy: npt.ArrayLike,
    variances: tuple[float, float] = (1.0, 1.0),
) -> npt.NDArray[np.float64]:
    """Boxes from a head's offsets to its anchors.

    ``x = xa + wa * tx * v0``, ``w = wa * exp(tw * v1)`` on centres and sizes (Fast R-CNN; SSD's variances
    are 0.1 and 0.2). The exponent is limited so that no output makes a box infinite.

    Args:
        offsets: (n, 4), tx ty tw th.
        anchors_xyxy: (n, 4).
        variances: Factors of the centre's and the size's offsets.

    Returns:
        float64 (n, 4), boxes_xyxy, not clipped.
    """
    shift, anchors = _pair(offsets, anchors_xyxy)
    centre = anchors[:, :2] + anchors[:, 2:] * shift[:, :2] * variances[0]
    size = anchors[:, 2:] * np.exp(np.clip(shift[:, 2:] * variances[1], -LOG_SIZE_MAX, LOG_SIZE_MAX))
    return np.asarray(convert_boxes(np.concatenate([centre, size], axis=1), "cxcywh", "xyxy"), np.float64)


def encode_offsets(
    boxes_xyxy: npt.ArrayLike,
    anchors_xyxy: npt.ArrayLike,
    variances: tuple[float, float] = (1.0, 1.0),
) -> npt.NDArray[np.float64]:
    """Give the offsets that `decode_offsets` turns into these boxes, its exact inverse.

    Args:
        boxes_xyxy: (n, 4), of positive size.
        anchors_xyxy: (n, 4), of positive size.
        variances: As for decoding.

    Returns:
        float64 (n, 4), tx ty tw th.

    Raises:
        InputError: A box or an anchor has no area.
    """
    boxes, anchors = _pair(convert_boxes(as_boxes(boxes_xyxy, "boxes_xyxy"), "xyxy", "cxcywh"), anchors_xyxy)
    if (boxes[:, 2:] <= 0).any() or (anchors[:, 2:] <= 0).any():
        raise InputError("boxes and anchors must have a width and a height above 0 to be encoded")
    centre = (boxes[:, :2] - anchors[:, :2]) / anchors[:, 2:] / variances[0]
    size = np.log(boxes[:, 2:] / anchors[:, 2:]) / variances[1]
    return np.concatenate([centre, size], axis=1)


def row_scores(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Class scores of rows ``cx cy w h objectness class…``: objectness times class probability.

    A class probability alone says what a thing is if there is one, not that there is one.

    Args:
        rows: (n, 5 + classes).

    Returns:
        (n, classes).

    Raises:
        InputError: Fewer than six columns.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] < 6:
        raise InputError(f"rows are (n, 5 + classes), not {rows.shape}")
    return np.asarray(rows[:, 5:] * rows[:, 4:5])


def _pair(
    values: npt.ArrayLike, anchors_xyxy: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    first = np.asarray(values, np.float64).reshape(-1, 4)
    anchors = np.asarray(
        convert_boxes(as_boxes(anchors_xyxy, "anchors_xyxy"), "xyxy", "cxcywh"), np.float64
    ).reshape(-1, 4)
    if len(first) != len(anchors):
        raise InputError(f"{len(first)} boxes or offsets for {len(anchors)} anchors")
    return first, anchors
