"""Heads of the YOLO kind to boxes and class scores of one frame, all in input pixels.

What comes out is (boxes_xyxy (n, 4), scores (n, K)); a box is an object of class k with its score for k,
which is objectness times class probability where a head has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.anchors import LOG_SIZE_MAX, row_scores
from edgecnn.vision.boxes import Boxes, convert_boxes

__all__ = ["decode_fastestdet", "decode_yolo_columns", "decode_yolo_rows", "yolo_grid_rows"]

Scores = npt.NDArray[np.floating[Any]]


def decode_yolo_columns(columns: npt.ArrayLike) -> tuple[Boxes, Scores]:
    """Boxes of an anchor-free head such as YOLOv8's and YOLO11's: a column a place, no objectness.

    Args:
        columns: (4 + K, n): cx, cy, w, h in input pixels, then K class probabilities.

    Returns:
        boxes_xyxy (n, 4), not clipped, and scores (n, K).

    Raises:
        InputError: Fewer than five rows.
    """
    table = _floats(columns)
    if table.ndim != 2 or len(table) < 5:
        raise InputError(f"columns are (4 + classes, n), not {table.shape}")
    return convert_boxes(table[:4].T, "cxcywh", "xyxy"), table[4:].T


def decode_yolo_rows(rows: npt.ArrayLike) -> tuple[Boxes, Scores]:
    """Boxes of an anchor-based head such as YOLOv5's and YOLOv7's, decoded in the graph: a row an anchor.

    Args:
        rows: (n, 5 + K): cx, cy, w, h in input pixels, objectness, then K class probabilities.

    Returns:
        boxes_xyxy (n, 4), not clipped, and scores (n, K), objectness times class probability.

    Raises:
        InputError: Fewer than six columns.
    """
    table = _floats(rows)
    scores = row_scores(table)
    return convert_boxes(table[:, :4], "cxcywh", "xyxy"), scores


def yolo_grid_rows(
    grid: npt.ArrayLike, anchors_wh: Sequence[tuple[float, float]], stride: float
) -> npt.NDArray[np.float64]:
    """Rows for `decode_yolo_rows` from one raw map of a YOLOv3 head.

    With the cell (i, j) counted from the top left and an anchor of (w, h) pixels::

        cx = (j + sigmoid(tx)) * stride    cy = (i + sigmoid(ty)) * stride
        w  = anchor_w * exp(tw)            h  = anchor_h * exp(th)

    Objectness and each class go through a sigmoid. The exponent is limited, as in `decode_offsets`.

    Source: Redmon and Farhadi, "YOLOv3: an incremental improvement" (2018).

    Args:
        grid: (anchors * (5 + K), rows, columns): of each anchor tx, ty, tw, th, objectness and K classes.
        anchors_wh: Width and height of each anchor in input pixels, in the order of the head.
        stride: Input pixels a cell.

    Returns:
        float64 (anchors * rows * columns, 5 + K), anchor by anchor, each row by row.

    Raises:
        InputError: The channels are not as many as the anchors need.
    """
    maps, count = _floats(grid), len(anchors_wh)
    if maps.ndim != 3 or not count or len(maps) % count or len(maps) // count < 6:
        raise InputError(f"grid is ({count} anchors * (5 + classes), rows, columns), not {maps.shape}")
    _, rows, columns = maps.shape
    raw = maps.astype(np.float64).reshape(count, -1, rows, columns)
    cells: npt.NDArray[np.float64] = np.moveaxis(raw, 1, -1).copy()
    sizes = np.asarray(anchors_wh, np.float64)[:, None, None, :]
    cells[..., :2] = (_sigmoid(cells[..., :2]) + _cells(rows, columns)) * stride
    cells[..., 2:4] = np.exp(np.clip(cells[..., 2:4], -LOG_SIZE_MAX, LOG_SIZE_MAX)) * sizes
    cells[..., 4:] = _sigmoid(cells[..., 4:])
    return cells.reshape(-1, cells.shape[-1])


def decode_fastestdet(grid: npt.ArrayLike, size_hw: tuple[int, int]) -> tuple[Boxes, Scores]:
    """Boxes of the one map of a FastestDet head, a box a cell.

    With the cell (i, j) of a map of R rows and C columns, in shares of the input's width and height::

        cx = (j + tanh(tx)) / C    cy = (i + tanh(ty)) / R    w = sigmoid(tw)    h = sigmoid(th)
        score = objectness**0.6 * class**0.4

    Args:
        grid: (5 + K, R, C): objectness, tx, ty, tw, th, then K class probabilities.
        size_hw: Height and width of the input in pixels.

    Returns:
        boxes_xyxy (R * C, 4), not clipped, row by row, and scores (R * C, K).

    Raises:
        InputError: Fewer than six channels.
    """
    maps = _floats(grid)
    if maps.ndim != 3 or len(maps) < 6:
        raise InputError(f"grid is (5 + classes, rows, columns), not {maps.shape}")
    _, rows, columns = maps.shape
    cells = np.moveaxis(maps, 0, -1)
    centre = (_cells(rows, columns) + np.tanh(cells[..., 1:3])) / (columns, rows)
    shares = np.concatenate([centre, _sigmoid(cells[..., 3:5])], axis=-1).reshape(-1, 4)
    boxes = convert_boxes(shares * np.tile(size_hw[::-1], 2), "cxcywh", "xyxy")
    # rounding may leave a probability a little below 0, which has no root
    objectness, classes = (np.clip(part, 0, None) for part in (cells[..., :1], cells[..., 5:]))
    return boxes, (objectness**0.6 * classes**0.4).reshape(rows * columns, -1)


def _floats(values: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    array = np.asarray(values)
    floats: npt.NDArray[np.floating[Any]] = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    return floats


def _cells(rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Column and row of each cell, (rows, columns, 2)."""
    return np.stack(np.meshgrid(np.arange(columns, dtype=np.float64), np.arange(rows)), axis=-1)


def _sigmoid(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    # tanh does not overflow where exp does
    return np.asarray(0.5 * np.tanh(0.5 * values) + 0.5)
