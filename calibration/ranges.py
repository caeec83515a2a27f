"""From what was observed to scales and zero points: which range of values eight bits are spent on.

A range that is too wide makes every step coarse, one that is too narrow clips. The recipes differ in how
they weigh the two; all of them read an `Observation`, so trying another one needs no second run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.observers import Observation
from edgecnn.errors import InputError

__all__ = [
    "RECIPES",
    "Entropy",
    "MinMax",
    "MovingAverage",
    "Mse",
    "Percentile",
    "QuantParams",
    "Recipe",
    "quant_params",
    "value_range",
    "weight_scales",
]

Values = npt.NDArray[np.float64]

# whole numbers that eight bits tell apart: of any values, and of magnitudes where the sign takes one bit
LEVELS = 256
MAGNITUDE_LEVELS = 128

# the shares of the observed range that a search tries, the widest first: of equally good ones it counts
SHRINK = np.linspace(1.0, 0.01, 100)
WEIGHT_SHRINK = np.linspace(1.0, 0.7, 31)
ROUNDS_MAX = 8

# a smaller scale would lose its precision in float32
TINY = float(np.finfo(np.float32).smallest_normal)


class Recipe(ABC):
    """How the range of a tensor is found."""

    @abstractmethod
    def bounds(self, seen: Observation, levels: int) -> tuple[float, float]:
        """The lower and upper bound for so many levels; zero need not lie between them."""


@dataclass(frozen=True, kw_only=True)
class MinMax(Recipe):
    """From the smallest to the largest value: nothing is clipped, one outlier makes all steps coarse."""

    def bounds(self, seen: Observation, levels: int) -> tuple[float, float]:
        """The extremes of all values."""
        return seen.low, seen.high


@dataclass(frozen=True, kw_only=True)
class MovingAverage(Recipe):
    """Moving averages of the extremes of each batch; see `Observation`."""

    def bounds(self, seen: Observation, levels: int) -> tuple[float, float]:
        """The averaged extremes."""
        return seen.mean_low, seen.mean_high


@dataclass(frozen=True, kw_only=True)
class Percentile(Recipe):
    """The range that holds a share of the values.

    What lies outside is cut off in equal parts at both ends, or all at the upper one where no value is
    negative. Within a bin, values count as evenly spread.

    Attributes:
        percent: The share inside, in percent.
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise InputError(f"percent must be above 50 and at most 100, not {self.percent}")

    def bounds(self, seen: Observation, levels: int) -> tuple[float, float]:
        """The two percentiles, within the extremes."""
        outside = 1 - self.percent / 100
        ends = (outside / 2, 1 - outside / 2) if seen.low < 0 else (0.0, 1 - outside)
        edges = seen.start + seen.width * np.arange(len(seen.counts) + 1)
        below = np.concatenate([[0], np.cumsum(seen.counts)])
        low, high = np.clip(np.interp(np.multiply(ends, seen.n), below, edges), seen.low, seen.high)
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Mse(Recipe):
    """The range with the smallest mean squared error of quantisation.

    Over the bins, with c their centres, p their shares of the values and L levels::

        scale = (high - low) / (L - 1)
        zero  = round(-low / scale)
        error = sum p (c - scale clip(round(c / scale), -zero, L - 1 - zero))**2

    Values that are exactly zero count as such, not as the centre of their bin. Each end is tried at 1 %
    to 100 % of its extreme, one after the other, until neither moves.
    """

    def bounds(self, seen: Observation, levels: int) -> tuple[float, float]:
        """The best range of the grid."""
        centres, shares = _centres(seen)
        full = np.array([min(seen.low, 0.0), max(seen.high, 0.0)])
        ends = full
        for _ in range(ROUNDS_MAX):
            before = ends
            for end in np.flatnonzero(full):
                tried = np.tile(ends, (len(SHRINK), 1))
                tried[:, end] = full[end] * SHRINK
                errors = [_squared_error(centres, shares, low, high, levels) for low, high in tried]
                ends = tried[int(np.argmin(errors))]
            if np.array_equal(ends, before):
                break
        return float(ends[0]), float(ends[1])


@dataclass(frozen=True, kw_only=True)
class Entropy(Recipe):
    """The range that loses the least information: the smallest Kullback-Leibler divergence.

    As in "8-bit Inference with TensorRT" (Szymon Migacz, GTC 2017): P is the part of the histogram inside
    the range, with what lies outside added to its last bin; Q is the same part without that addition,
    summed up in as many groups as there are levels, each sum spread evenly over the group's bins that are
    not empty. ``KL(P, Q) = sum p log(p / q)`` is least for the range to take. Thresholds of 1 % to 100 %
    of the largest magnitude are tried that leave at least one bin to each level; where values have both
    signs, a threshold holds for both, and both end bins take what lies outside. Exact zeros, which every
    range keeps, are left out.
    """

    def bounds(self, seen: Observation, levels: int) -> tuple[float, float]:
        """The best range; the observed one where there are fewer bins than levels."""
        counts = seen.counts.copy()
        origin = round(-seen.start / seen.width)
        counts[origin : origin + 1] -= seen.zeros
        used = np.flatnonzero(counts)
        if not used.size:
            return seen.low, seen.high
        below, above = max(origin - int(used[0]), 0), max(int(used[-1]) + 1 - origin, 0)
        thresholds = np.ceil(max(below, above) * SHRINK).astype(int)
        ends = [(origin - min(below, t), origin + min(above, t)) for t in thresholds]
        tried = [(first, last) for first, last in ends if last - first >= levels]
        if not tried:
            return seen.low, seen.high
        first, last = min(tried, key=lambda ends: _divergence(counts, ends[0], ends[1], levels))
        low, high = seen.start + seen.width * np.array([first, last])
        return max(float(low), seen.low), min(float(high), seen.high)


RECIPES: dict[str, Recipe] = {
    "minmax": MinMax(),
    "moving_average": MovingAverage(),
    "percentile": Percentile(),
    "entropy": Entropy(),
    "mse": Mse(),
}


def value_range(observation: Observation, recipe: Recipe, *, symmetric: bool) -> tuple[float, float]:
    """The range of values that a tensor is to be quantised on; zero is always in it.

    Args:
        observation: What was seen of the tensor.
        recipe: How to choose.
        symmetric: Choose one bound for the magnitudes, ``(-amax, amax)``.

    Returns:
        ``low <= 0 <= high``.
    """
    if symmetric:
        amax = recipe.bounds(observation.absolute(), MAGNITUDE_LEVELS)[1]
        return -amax, amax
    low, high = recipe.bounds(observation, LEVELS)
    return min(low, 0.0), max(high, 0.0)


@dataclass(frozen=True)
class QuantParams:
    """``real = scale (q - zero_point)``, with q of eight bits.

    Attributes:
        scale: Above zero, and a value of float32.
        zero_point: The q that stands for zero.
        signed: q is an int8, else a uint8.
    """

    scale: float
    zero_point: int
    signed: bool

    @property
    def qmin(self) -> int:
        """The smallest q."""
        return -128 if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest q."""
        return 127 if self.signed else 255


def quant_params(low: float, high: float, *, symmetric: bool) -> QuantParams:
    """Scale and zero point for a range, which is widened to hold zero.

    Symmetric, int8: ``scale = max(-low, high) / 127``, zero point 0. Otherwise uint8:
    ``scale = (high - low) / 255``, ``zero_point = round(-low / scale)``, halves to even. A tensor that is
    always zero, or too small for float32, has the scale of the range 0..1.

    Raises:
        InputError: The bounds are not finite or the wrong way round.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(f"the range {low}..{high} cannot be quantised")
    low, high = min(low, 0.0), max(high, 0.0)
    span, steps = (max(-low, high), 127) if symmetric else (high - low, 255)
    if span / steps < TINY:
        low, span = 0.0, 1.0
    return QuantParams(
        scale=float(np.float32(span / steps)),
        zero_point=0 if symmetric else round(-low / span * steps),
        signed=symmetric,
    )


def weight_scales(
    weight: npt.NDArray[np.float32], axis: int, *, mse: bool = False
) -> npt.NDArray[np.float32]:
    """Scales of symmetric int8 weights, one a channel: ``scale = max|w| / 127``.

    Args:
        weight: float32, any shape.
        axis: The axis of the output channels.
        mse: Take of 0.70, 0.71, … 1.00 times that the scale with the smallest squared error of the
            channel, ``sum (w - scale clip(round(w / scale), -128, 127))**2``.

    Returns:
        float32 (channels,); a channel that is always zero, or too small for float32, has 1/127.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    full: Values = np.abs(rows).max(axis=1, initial=0.0) / 127
    full[full < TINY] = 1 / 127
    if not mse:
        return full.astype(np.float32)
    tried = (full * WEIGHT_SHRINK[:, None]).astype(np.float32)
    errors = [
        ((rows - scale * np.clip(np.rint(rows / scale), -128, 127)) ** 2).sum(axis=1)
        for scale in tried.astype(np.float64)[:, :, None]
    ]
    return np.asarray(tried[np.argmin(errors, axis=0), np.arange(len(full))])


def _centres(seen: Observation) -> tuple[Values, Values]:
    """The values that stand for the bins in use, and their shares of all values."""
    used = np.flatnonzero(seen.counts)
    centres = seen.start + seen.width * (used + 0.5)
    counts = seen.counts[used].astype(np.float64)
    counts[used == round(-seen.start / seen.width)] -= seen.zeros
    return np.append(centres, 0.0), np.append(counts, seen.zeros) / seen.n


def _squared_error(centres: Values, shares: Values, low: float, high: float, levels: int) -> float:
    """The error that `Mse` makes least."""
    scale = (high - low) / (levels - 1)
    zero = np.rint(-low / scale)
    rounded = scale * np.clip(np.rint(centres / scale), -zero, levels - 1 - zero)
    return float(shares @ (centres - rounded) ** 2)


def _divergence(counts: npt.NDArray[np.int64], first: int, last: int, levels: int) -> float:
    """The divergence that `Entropy` makes least, for the bins from first up to last."""
    inside = counts[first:last].astype(np.float64)
    full = inside.copy()
    full[0] += counts[:first].sum()
    full[-1] += counts[last:].sum()
    group = np.arange(len(inside)) * levels // len(inside)
    filled = np.bincount(group, inside > 0, levels)
    spread = np.bincount(group, inside, levels) / np.maximum(filled, 1)
    # an empty end bin that takes what lies outside would make the divergence infinite: it counts as one
    coarse = np.where(inside > 0, spread[group], full > 0)
    p, q = full / full.sum(), coarse / coarse.sum()
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / q[held])))
