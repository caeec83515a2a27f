"""Pillow's antialiased resizing: separable kernels that widen with the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.vision.opencv import cv2

__all__ = ["Kernel", "resample"]

Kernel = Literal["bilinear", "bicubic"]
Pixels = npt.NDArray[np.uint8]

_RADIUS = {"bilinear": 1.0, "bicubic": 2.0}
# so many sums at a time: they stay in a core's second-level cache
SUMS = 2**16
# where a line would take more calls than this, one for each weight of all lines, it is summed up alone
MOST_CALLS = 3


@dataclass(frozen=True)
class Run:
    """Lines of the result at equal distances that have the same weights.

    Attributes:
        lines: Which they are.
        start: The first line of the source that the first of them sees.
        step: The next one begins so many lines of the source further on.
        weights: Of the lines of the source that it sees.
        order: Where among these, and its share of the running mean, of each that counts.
    """

    lines: slice
    start: int
    step: int
    weights: npt.NDArray[np.float32]
    order: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Axis:
    """How the lines of an axis come about.

    Attributes:
        seen: The lines of the source that any of them sees; starts are counted from the first of these.
        count: Lines of the result.
        runs: All of these lines; none where they are those that are seen.
    """

    seen: slice
    count: int
    runs: tuple[Run, ...]


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
        _axis(source, target, kernel, first, count)
        for source, target, first, count in zip(image.shape, size_hw, corner_yx, part_hw)
    )
    mixed = image.reshape(*image.shape[:2], -1)[rows.seen, columns.seen]
    if kernel == "bilinear" and size_hw[0] <= image.shape[0]:
        mixed = _mix_columns(_mix_rows(mixed, rows, kernel), columns, kernel)
    else:
        mixed = _mix_rows(_mix_columns(mixed, columns, kernel), rows, kernel)
    return mixed.reshape(*part_hw, *image.shape[2:])


def _mix_columns(image: Pixels, axis: Axis, kernel: Kernel) -> Pixels:
    """Resample the columns of (h, w, c): turned into rows, for rows of memory add fast."""
    if not axis.runs:
        return image
    return _turned(_mix_rows(_turned(image), axis, kernel))


def _turned(image: Pixels) -> Pixels:
    """Rows as columns; OpenCV drops a single channel."""
    height, width, channels = image.shape
    return np.asarray(cv2.transpose(image), np.uint8).reshape(width, height, channels)


def _mix_rows(image: Pixels, axis: Axis, kernel: Kernel) -> Pixels:
    """Resample the rows of (h, w, c)."""
    if not axis.runs:
        return image
    _, width, channels = image.shape
    most = min(axis.count, max(1, SUMS // (width * channels)))
    longest = max(len(run.weights) for run in axis.runs)
    # zeros: what is not a number would stay so where it is multiplied by 0
    floats = np.zeros((max(most, longest), width, channels), np.float32)
    mixed = np.empty((axis.count, width * channels), np.uint8)
    for run in axis.runs:
        lines = mixed[run.lines]
        step = math.ceil(len(lines) / math.ceil(len(lines) / most))
        for first in range(0, len(lines), step):
            part = lines[first : first + step]
            sums = _sums(image, run, first, len(part), floats)
            if kernel == "bicubic":  # else what is below 0 would be turned into what is above
                np.maximum(sums, 0, out=sums)
            cv2.convertScaleAbs(sums, part)
    return mixed.reshape(axis.count, width, channels)


def _sums(
    image: Pixels, run: Run, first: int, count: int, floats: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Weighted sums (count, w * c) of some lines of a run; ``floats`` has room for what that takes."""
    start = run.start + first * run.step
    if len(run.order) <= MOST_CALLS * count:
        sums, span = floats[:count], (count - 1) * run.step + 1
        # a running mean takes pixels as they are, for all lines at once
        for offset, share in run.order:
            seen = image[start + offset : start + offset + span : run.step]
            cv2.accumulateWeighted(seen, sums, share)
        return sums.reshape(count, -1)
    sums = np.empty((count, image[0].size), np.float32)
    converted = floats[: len(run.weights)]
    for i, line in enumerate(sums):
        begin = start + i * run.step
        cv2.accumulateWeighted(image[begin : begin + len(converted)], converted, 1.0)
        run.weights.dot(converted.reshape(len(converted), -1), line)
    return sums


@lru_cache(maxsize=64)
def _axis(source: int, target: int, kernel: Kernel, first: int, count: int) -> Axis:
    """Some lines of an axis that is resized.

    Args:
        source: Its lines.
        target: How many are made of them.
        kernel: As `resample`.
        first: The first line that is wanted.
        count: How many are.
    """
    if source == target:
        return Axis(slice(first, first + count), count, ())
    taps = [_taps(source, target, kernel, i) for i in range(first, first + count)]
    seen = slice(taps[0][0], taps[-1][0] + len(taps[-1][1]))
    # lines that far apart lie alike between those of the source
    divisor = math.gcd(source, target)
    period, step = target // divisor, source // divisor
    runs = []
    for i in range(min(period, count)):
        while i < count:
            start, weights = taps[i]
            last = i
            while (
                last + period < count
                and taps[last + period][0] == taps[last][0] + step
                and len(taps[last + period][1]) == len(weights)
            ):
                last += period
            lines = slice(i, last + 1, period)
            runs.append(Run(lines, start - seen.start, step, weights, _order(weights)))
            i = last + period
    return Axis(seen, count, tuple(runs))


def _taps(source: int, target: int, kernel: Kernel, i: int) -> tuple[int, npt.NDArray[np.float32]]:
    """The first line of the source that a line sees, and the weights from there on."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = _RADIUS[kernel] * stretch
    centre = (i + 0.5) * scale
    start = max(math.floor(centre - support + 0.5), 0)
    stop = min(math.floor(centre + support + 0.5), source)
    values = _kernel((np.arange(start, stop) + 0.5 - centre) / stretch, kernel)
    return start, (values / values.sum()).astype(np.float32)


def _order(weights: npt.NDArray[np.float32]) -> tuple[tuple[int, float], ...]:
    """Weights as shares of a running mean, the largest first, so that what they add up to is never near 0."""
    order = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] != 0]
    shares = weights[order] / np.cumsum(weights[order], dtype=np.float64)
    return tuple(zip(order, shares.tolist()))


def _kernel(x: npt.NDArray[Any], kernel: Kernel) -> npt.NDArray[Any]:
    x = np.abs(x)
    if kernel == "bilinear":
        return np.asarray(np.maximum(1 - x, 0))
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.asarray(np.where(x < 1, near, np.where(x < 2, far, 0.0)))
