"""Pillow's antialiased resizing: separable kernels that widen with the scale."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.vision.opencv import cv2

__all__ = ["Kernel", "resample"]

Kernel = Literal["bilinear", "bicubic"]
Pixels = npt.NDArray[np.uint8]
# of each line of the result: the first line of the source that it sees, and the weights from there on
Taps = tuple[tuple[int, npt.NDArray[np.float32]], ...]

_RADIUS = {"bilinear": 1.0, "bicubic": 2.0}
# lines are converted to float in strips that stay in a core's second-level cache; neighbouring strips share
# lines, so that strips of few results convert much twice
STRIP_FLOATS = 2**17
STRIP_RESULTS = 4
CACHE_LINE = 64


def resample(
    image: Pixels,
    size_hw: tuple[int, int],
    kernel: Kernel,
    corner_yx: tuple[int, int] = (0, 0),
    part_hw: tuple[int, int] | None = None,
) -> Pixels:
    """Resize as ``PIL.Image.resize`` does: columns first, rounded to uint8, then rows.

    A pixel is ``sum(w_i * x_i)`` with ``w_i = k((i + 0.5 - centre) / max(scale, 1))``, normalised,
    ``scale = source / target``, ``centre = (target pixel + 0.5) * scale`` (Pillow, Resample.c; the
    bicubic kernel has a = -0.5). Bilinear takes rows first where they get fewer: only what overshoots
    0..255 is clipped between the passes, and shows their order. Pillow 13 takes rows first for some shapes;
    where bicubic overshoots, such results differ by some levels.

    Args:
        image: uint8 (H, W, C) or (H, W).
        size_hw: Height and width of the whole.
        kernel: ``bilinear`` or ``bicubic``.
        corner_yx: First row and column of the part of it that is wanted.
        part_hw: Height and width of that part; None is all from the corner on.

    Returns:
        uint8 of the part's size with the same channels; a view of the image where neither axis is resized.
    """
    part_hw = part_hw or (size_hw[0] - corner_yx[0], size_hw[1] - corner_yx[1])
    rows, columns = (
        _taps(source, target, kernel)[first : first + count]
        for source, target, first, count in zip(image.shape, size_hw, corner_yx, part_hw)
    )
    mixed = image.reshape(*image.shape[:2], -1)[_span(rows), _span(columns)]
    if kernel == "bilinear" and size_hw[0] <= image.shape[0]:
        mixed = _mix(_mix(mixed, rows, 0, kernel), columns, 1, kernel)
    else:
        mixed = _mix(_mix(mixed, columns, 1, kernel), rows, 0, kernel)
    return mixed.reshape(*part_hw, *image.shape[2:])


def _mix(image: Pixels, taps: Taps, axis: int, kernel: Kernel) -> Pixels:
    """Resample the rows (axis 0) or columns (axis 1) of (h, w, c), of which the taps see all."""
    longest = max(len(weights) for _, weights in taps)
    if longest == 1 and len(taps) == image.shape[axis]:
        return image
    other, channels = image.shape[1 - axis], image.shape[2]
    length = other * channels
    fitting = STRIP_FLOATS // length
    count = max(STRIP_RESULTS, min(fitting, (fitting - longest) * len(taps) // image.shape[axis]))
    strips = [taps[i : i + count] for i in range(0, len(taps), count)]
    source = _aligned(max(_span(strip).stop - _span(strip).start for strip in strips), length)
    sums = _aligned(count, length)
    mixed = np.empty((len(taps), length), np.uint8)
    for i, strip in enumerate(strips):
        seen = slice(_span(strip).start - taps[0][0], _span(strip).stop - taps[0][0])
        # rows of memory are what adds fast: columns are turned into rows
        part = image[seen] if axis == 0 else np.asarray(cv2.transpose(image[:, seen]))
        floats = source[: seen.stop - seen.start]
        # 0 * old + 1 * new: the fastest conversion to float that there is
        cv2.accumulateWeighted(part.reshape(-1, length), floats, 1.0)
        for (start, weights), line in zip(strip, sums):
            first = start - strip[0][0]
            weights.dot(floats[first : first + len(weights)], line)
        if kernel == "bicubic":  # the absolute value of what is below 0 is wanted by nobody
            np.maximum(sums, 0, out=sums)
        cv2.convertScaleAbs(sums[: len(strip)], mixed[i * count : i * count + len(strip)])
    if axis == 0:
        return mixed.reshape(len(taps), other, channels)
    turned = np.asarray(cv2.transpose(mixed.reshape(len(taps), other, channels)), np.uint8)
    return turned.reshape(other, len(taps), channels)


def _aligned(count: int, length: int) -> npt.NDArray[np.float32]:
    """Zeros (count, length) of which each row begins at a cache line: BLAS takes a third less for such."""
    stride = -(-length * 4 // CACHE_LINE) * CACHE_LINE // 4
    memory = np.zeros(count * stride + CACHE_LINE // 4, np.float32)
    first = -memory.ctypes.data % CACHE_LINE // 4
    return memory[first : first + count * stride].reshape(count, stride)[:, :length]


def _span(taps: Taps) -> slice:
    """The lines that they see."""
    return slice(taps[0][0], taps[-1][0] + len(taps[-1][1]))


@lru_cache(maxsize=64)
def _taps(source: int, target: int, kernel: Kernel) -> Taps:
    """Of each target line the first source line that it sees, and the weights from there on."""
    if source == target:
        return tuple((i, np.ones(1, np.float32)) for i in range(source))
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
