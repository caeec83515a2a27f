"""Sliding-window detection evaluated densely: one convolution pass instead of many crops.

The network has no padding, so its output map over a whole image is, cell by cell, the logit of
the window cropped at that cell. This module is the detection protocol of the model card written
for speed; training uses it to mine and to validate.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from net import STRIDE, WINDOW
from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Protocol:
    """The sliding-window settings; see the model card for what each one means.

    Attributes:
        min_size: Window of the finest level, in pixels of the source image.
        scale_step: Ratio of the window sizes of neighbouring levels.
        threshold: Lowest score kept.
        box_scale: Side of the reported box over the side of the window.
        nms_iou: Overlap above which the lower-scored of two boxes is dropped.
    """

    min_size: float = 36.0
    scale_step: float = 1.2
    threshold: float = 0.95
    box_scale: float = 0.8
    nms_iou: float = 0.2


def normalise(images: npt.NDArray[np.uint8]) -> Tensor:
    """Turns BGR ``[N, H, W, 3]`` bytes into the network's RGB input in -1..1."""
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2)))
    return rgb.float().div_(127.5).sub_(1.0)


def pyramid(image: Image, min_size: float, scale_step: float) -> list[tuple[float, Image]]:
    """Resizes an image so that objects of growing size fill the network's window.

    Args:
        image: BGR photograph.
        min_size: Window of the finest level in source pixels.
        scale_step: Ratio between levels.

    Returns:
        Pairs of the window's size in source pixels and the resized image.
    """
    height, width = image.shape[:2]
    levels = []
    size = min_size
    while size <= min(height, width):
        factor = WINDOW / size
        shape = max(round(width * factor), WINDOW), max(round(height * factor), WINDOW)
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        levels.append((size, np.asarray(cv2.resize(image, shape, interpolation=how), np.uint8)))
        size *= scale_step
    return levels


def _starts(length: int) -> list[int]:
    last = length - WINDOW
    starts = list(range(0, last + 1, STRIDE))
    return starts if starts[-1] == last else [*starts, last]


@torch.inference_mode()
def window_logits(net: nn.Module, image: Image) -> tuple[FloatArray, list[int], list[int]]:
    """Scores every window of one pyramid level.

    The last row and column of windows end at the border, off the stride grid, so up to four
    passes are made: the grid itself and shifted ones for the last row and column.

    Args:
        net: The network in evaluation mode.
        image: BGR image at the level's scale.

    Returns:
        Logits ``[rows, columns]`` and the pixel each row and column of windows starts at.
    """
    x = normalise(image[None])
    ys, xs = _starts(image.shape[0]), _starts(image.shape[1])
    logits = np.empty((len(ys), len(xs)), np.float32)
    grid_y, grid_x = ys[-1] % STRIDE == 0, xs[-1] % STRIDE == 0
    inner_y, inner_x = len(ys) - (not grid_y), len(xs) - (not grid_x)
    logits[:inner_y, :inner_x] = _dense(net, x)[:inner_y, :inner_x]
    if not grid_y:
        logits[-1:, :inner_x] = _dense(net, x[:, :, ys[-1] :])[:1, :inner_x]
    if not grid_x:
        logits[:inner_y, -1:] = _dense(net, x[:, :, :, xs[-1] :])[:inner_y, :1]
    if not (grid_y or grid_x):
        logits[-1:, -1:] = _dense(net, x[:, :, ys[-1] :, xs[-1] :])[:1, :1]
    return logits, ys, xs


def _dense(net: nn.Module, x: Tensor) -> FloatArray:
    out: Tensor = net.dense(x)  # type: ignore[operator]
    return out[0, 0].numpy()


def scan(net: nn.Module, image: Image, protocol: Protocol) -> FloatArray:
    """Lists every window that passes the threshold, before overlaps are removed.

    Args:
        net: The network in evaluation mode.
        image: BGR photograph.
        protocol: Detection settings; ``box_scale`` and ``nms_iou`` are not used here.

    Returns:
        Rows ``x1, y1, x2, y2, score`` of whole windows in source pixels.
    """
    found = [np.empty((0, 5), np.float32)]
    for size, level in pyramid(image, protocol.min_size, protocol.scale_step):
        logits, ys, xs = window_logits(net, level)
        scores = 1 / (1 + np.exp(-logits))
        rows, columns = np.nonzero(scores >= protocol.threshold)
        left = np.asarray(xs)[columns] * (image.shape[1] / level.shape[1])
        top = np.asarray(ys)[rows] * (image.shape[0] / level.shape[0])
        found.append(
            np.stack([left, top, left + size, top + size, scores[rows, columns]], 1).astype(np.float32)
        )
    return np.concatenate(found)


def detect(net: nn.Module, image: Image, protocol: Protocol) -> FloatArray:
    """Detects faces by the full protocol.

    Args:
        net: The network in evaluation mode.
        image: BGR photograph.
        protocol: Detection settings.

    Returns:
        Rows ``x1, y1, x2, y2, score``, best first, clipped to the frame.
    """
    found = scan(net, image, protocol)
    centre = (found[:, :2] + found[:, 2:4]) / 2
    half = (found[:, 2:4] - found[:, :2]) * (protocol.box_scale / 2)
    boxes = np.concatenate([centre - half, centre + half], 1)
    keep = suppress(boxes, found[:, 4], protocol.nms_iou)
    height, width = image.shape[:2]
    clipped = np.clip(boxes[keep], 0, np.asarray([width, height, width, height], np.float32))
    return np.concatenate([clipped, found[keep, 4:]], 1)


def overlaps(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Returns the intersection over union of one box with each of many."""
    corner = np.minimum(box[2:4], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.clip(corner, 0, None), 1)
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], 1) + np.prod(box[2:4] - box[:2])
    result: FloatArray = shared / np.maximum(areas - shared, 1e-9)
    return result


def suppress(boxes: FloatArray, scores: FloatArray, limit: float) -> IntArray:
    """Greedy non-maximum suppression.

    Args:
        boxes: Rows ``x1, y1, x2, y2``.
        scores: One score a box.
        limit: Overlap above which the lower-scored box is dropped.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        kept.append(order[0])
        order = order[1:][overlaps(boxes[order[0]], boxes[order[1:]]) <= limit]
    return np.asarray(kept, np.int64)
