"""Pillow's antialiased resizing: separable kernels that widen with the scale."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.vision.opencv import cv2

__all__ = ["resample"]

Kernel = Literal["bilinear", "bicubic"]
_RADIUS = {"bilinear": 1.0, "bicubic": 2.0}


def resample(image: npt.NDArray[np.uint8], size_hw: tuple[int, int], kernel: Kernel) -> npt.NDArray[np.uint8]:
    """Resize as ``PIL.Image.resize`` does: columns first, rounded to uint8, then rows.

    A pixel is ``sum(w_i * x_i)`` with ``w_i = k((i + 0.5 - centre) / max(scale, 1))``, normalised,
    ``scale = source / target``, ``centre = (target pixel + 0.5) * scale`` (Pillow, Resample.c; the
    bicubic kernel has a = -0.5). Pillow 13 takes rows first for some shapes; where bicubic overshoots
    0..255 between the passes, such results differ by a few levels.

    Args:
        image: uint8 (H, W, C) or (H, W).
        size_hw: Height and width wanted.
        kernel: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 with the same channels, contiguous, a new array.
    """
    height, width = size_hw
    channels = image.shape[2:]
    if image.shape[1] != width:
        # rows of memory are what numpy adds fast, so columns are turned into rows
        turned = np.asarray(cv2.transpose(image)).reshape(image.shape[1], -1)
        turned = _rows(turned, width, kernel).reshape(width, image.shape[0], *channels)
        image = np.asarray(cv2.transpose(turned), np.uint8).reshape(image.shape[0], width, *channels)
    if image.shape[0] != height:
        image = _rows(image.reshape(image.shape[0], -1), height, kernel).reshape(height, width, *channels)
    return np.ascontiguousarray(image)


def _rows(image: npt.NDArray[Any], count: int, kernel: Kernel) -> npt.NDArray[np.uint8]:
    """Resample the rows (n, m) to (count, m)."""
    mixed = np.empty((count, image.shape[1]), np.float32)
    for i, (start, weights) in enumerate(_weights(image.shape[0], count, kernel)):
        np.dot(weights, image[start : start + len(weights)].astype(np.float32), out=mixed[i])
    mixed += 0.5
    np.clip(mixed, 0, 255, out=mixed)
    return mixed.astype(np.uint8)


@lru_cache(maxsize=16)
def _weights(source: int, target: int, kernel: Kernel) -> tuple[tuple[int, npt.NDArray[np.float32]], ...]:
    """First source row and weights of every target row."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = _RADIUS[kernel] * stretch
    taps = []
    for i in range(target):
        centre = (i + 0.5) * scale
        start = max(math.floor(centre - support + 0.5), 0)
        stop = min(math.floor(centre + support + 0.5), source)
        values = _kernel((np.arange(start, stop) + 0.5 - centre) / stretch, kernel)
        taps.append((start, (values / values.sum()).astype(np.float32)))
    return tuple(taps)


def _kernel(x: npt.NDArray[Any], kernel: Kernel) -> npt.NDArray[Any]:
    x = np.abs(x)
    if kernel == "bilinear":
        return np.asarray(np.maximum(1 - x, 0))
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.asarray(np.where(x < 1, near, np.where(x < 2, far, 0.0)))
