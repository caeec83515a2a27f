"""Float maths on boxes; x right, y down, the pixel (0, 0) covers 0..1 on both axes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError

__all__ = ["BoxFormat", "as_boxes", "clip_boxes", "convert_boxes", "iou_matrix", "scale_boxes", "size_mask"]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
Boxes = npt.NDArray[np.floating[Any]]


def as_boxes(boxes: npt.ArrayLike, name: str = "boxes") -> Boxes:
    """Give boxes as a float array (n, 4): floats keep their precision, integers become float64.

    Raises:
        InputError: Not numbers, or not four a box.
    """
    array = np.asarray(boxes)
    if array.size == 0:
        array = array.reshape(-1, 4)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != 4:
        shape = "×".join(map(str, array.shape)) or "a single value"
        raise InputError(f"{name}: {array.dtype} {shape}, boxes are numbers in an array (n, 4)")
    floats: Boxes = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    return floats


def iou_matrix(a_xyxy: npt.ArrayLike, b_xyxy: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Intersection over union of every box of one list with every box of another.

    ``iou = inter / (area_a + area_b - inter)``; 0 where either box is empty or inside out.

    Args:
        a_xyxy: (n, 4).
        b_xyxy: (m, 4).

    Returns:
        float32 (n, m) in 0..1.

    Raises:
        InputError: Not boxes.
    """
    a = as_boxes(a_xyxy, "a_xyxy").astype(np.float64)
    b = as_boxes(b_xyxy, "b_xyxy").astype(np.float64)
    width, height = (
        np.minimum(a[:, None, axis + 2], b[:, axis + 2]) - np.maximum(a[:, None, axis], b[:, axis])
        for axis in (0, 1)
    )
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None, :] - inter
    iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return np.asarray(iou, np.float32)


def clip_boxes(boxes_xyxy: npt.ArrayLike, size_hw: tuple[int, int]) -> Boxes:
    """Cut boxes to a frame; a box that lies outside becomes empty, on the border.

    Args:
        boxes_xyxy: (n, 4) in pixels of the frame.
        size_hw: Height and width of the frame.
    """
    boxes = as_boxes(boxes_xyxy, "boxes_xyxy")
    height, width = size_hw
    limit = np.array([width, height, width, height], boxes.dtype)
    clipped: Boxes = np.clip(boxes, np.zeros_like(limit), limit)
    return clipped


def scale_boxes(boxes_xyxy: npt.ArrayLike, factor: float) -> Boxes:
    """Boxes of ``factor`` times the width and height about the same centres."""
    centred = convert_boxes(boxes_xyxy, "xyxy", "cxcywh")
    centred[:, 2:] *= factor
    return convert_boxes(centred, "cxcywh", "xyxy")


def convert_boxes(boxes: npt.ArrayLike, from_: BoxFormat, to: BoxFormat) -> Boxes:
    """Boxes in another notation, always a new array.

    Args:
        boxes: (n, 4).
        from_: ``xyxy`` (two corners), ``xywh`` (corner and size) or ``cxcywh`` (centre and size).
        to: One of the same.

    Raises:
        InputError: Not boxes, or an unknown notation.
    """
    for name in (from_, to):
        if name not in ("xyxy", "xywh", "cxcywh"):
            raise InputError(f"box format {name!r} is unknown, choose xyxy, xywh or cxcywh")
    converted: Boxes = np.array(as_boxes(boxes))
    first, last = converted[:, :2], converted[:, 2:]
    if from_ == to:
        return converted
    if from_ == "cxcywh":
        first -= last / 2
    elif from_ == "xyxy":
        last -= first
    # now corner and size
    if to == "cxcywh":
        first += last / 2
    elif to == "xyxy":
        last += first
    return converted


def size_mask(boxes_xyxy: npt.ArrayLike, min_size: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which boxes are not empty and at least ``min_size`` pixels wide and high."""
    boxes = as_boxes(boxes_xyxy, "boxes_xyxy")
    sizes = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(((sizes > 0) & (sizes >= min_size)).all(axis=1), bool)
