"""Figures of a series of latencies: percentiles, a histogram, and how sure a ratio is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.benchmarking.results import Histogram

__all__ = ["Interval", "block_medians", "histogram", "percentiles", "ratio_interval"]

BINS = 40
BLOCKS = 20
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure and its interval of 95 %."""

    value: float
    low: float
    high: float


def percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    """The latencies of a `Row` by name."""
    values = np.asarray(latencies_ms)
    named = {f"p{share}_ms": float(np.percentile(values, share)) for share in (50, 90, 95, 99)}
    return {name: round(value, 4) for name, value in {**named, "mean_ms": float(values.mean())}.items()}


def histogram(latencies_ms: Sequence[float]) -> Histogram:
    """Counts in bins from the fastest call to the 99th percentile; what took longer is in the last one."""
    values = np.asarray(latencies_ms)
    start = float(values.min())
    # calls that all took the same time still need a width
    width = max((float(np.percentile(values, 99)) - start) / (BINS - 1), start * 1e-3, 1e-6)
    bins = np.minimum(((values - start) / width).astype(int), BINS - 1)
    counts = tuple(np.bincount(bins, minlength=BINS).tolist())
    return Histogram(start_ms=round(start, 6), width_ms=round(width, 6), counts=counts)


def block_medians(latencies_ms: Sequence[float]) -> tuple[float, ...]:
    """Medians of at most `BLOCKS` consecutive parts; none of nothing."""
    if not latencies_ms:
        return ()
    parts = np.array_split(np.asarray(latencies_ms), min(BLOCKS, len(latencies_ms)))
    return tuple(round(float(np.median(part)), 4) for part in parts)


def ratio_interval(blocks: Sequence[float], reference: Sequence[float]) -> Interval:
    """Ratio of the medians of two runs, and where it lies by the bootstrap over their blocks.

    Calls that follow one another share what the machine did at that moment, so that single calls are not
    independent; blocks of them nearly are.
    """
    rng = np.random.default_rng(0)
    drawn = _resampled(np.asarray(blocks), rng) / _resampled(np.asarray(reference), rng)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(float(np.median(blocks) / np.median(reference)), float(low), float(high))


def _resampled(blocks: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Medians of resamples with replacement."""
    chosen = rng.integers(0, len(blocks), (RESAMPLES, len(blocks)))
    return np.asarray(np.median(blocks[chosen], axis=1), np.float64)
