"""What is kept of a tensor while a model runs: its extremes and a histogram, never its values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError

__all__ = ["BINS", "MOMENTUM", "Observation", "Observer", "merged"]

BINS = 2048
MOMENTUM = 0.9

# widths are powers of two from 2**-100 on: their inverse is a float32, and a product with it is exact
MIN_EXPONENT = -100
# values that pass through the processor's cache together
CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class Observation:
    """What was seen of one tensor.

    Attributes:
        low, high: The smallest and the largest value.
        mean_low, mean_high: Moving averages of the extremes of each batch:
            ``mean = 0.9 mean + 0.1 batch``, starting with the first batch.
        counts: int64 (bins,): bin i holds ``start + i*width <= value < start + (i+1)*width``; zero is one
            of the edges.
        start, width: See counts.
        n: Number of values.
        zeros: How many of them are exactly zero; counts has them too, in the bin that begins at zero.
    """

    low: float
    high: float
    mean_low: float
    mean_high: float
    counts: npt.NDArray[np.int64]
    start: float
    width: float
    n: int
    zeros: int = 0

    def absolute(self) -> Observation:
        """What would have been seen of the values' magnitudes, as far as the histogram tells."""
        origin = round(-self.start / self.width)
        below, above = self.counts[:origin][::-1], self.counts[origin:]
        counts = np.zeros(max(len(below), len(above)), np.int64)
        counts[: len(below)] += below
        counts[: len(above)] += above
        return Observation(
            low=max(self.low, -self.high, 0.0),
            high=max(-self.low, self.high),
            mean_low=0.0,
            mean_high=max(-self.mean_low, self.mean_high),
            counts=counts,
            start=0.0,
            width=self.width,
            n=self.n,
            zeros=self.zeros,
        )


class Observer:
    """Gathers an `Observation` in constant memory.

    The width of a bin is the smallest power of two with which `BINS` bins reach from the smallest to the
    largest value and zero. When a value lies outside, neighbouring bins are added up until it fits.
    The edges of the wider bins are edges of the narrower ones, so the counts are what one pass over all
    values would have given, whatever their order.
    """

    def __init__(self) -> None:
        self._low = math.inf
        self._high = -math.inf
        self._mean_low = self._mean_high = 0.0
        self._exponent = MIN_EXPONENT
        self._first = 0  # the number of the first bin, bin 0 being the one that begins at zero
        self._counts = np.zeros(BINS, np.int64)
        self._n = self._zeros = 0

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Take in one batch of values.

        Args:
            values: float32, any shape; nothing is kept of them.

        Raises:
            InputError: There is a value that is not finite; nothing of the batch was taken in.
        """
        values = np.asarray(values, np.float32).ravel()
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("there are values that are not finite")
        if self._n:
            self._mean_low = MOMENTUM * self._mean_low + (1 - MOMENTUM) * low
            self._mean_high = MOMENTUM * self._mean_high + (1 - MOMENTUM) * high
        else:
            self._mean_low, self._mean_high = low, high
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._fit()
        self._count(values)

    def include(self, seen: Observation) -> None:
        """Take in what another observer has seen.

        Counts and extremes are those of one observer for all values; of the moving averages, the outer
        ones are kept.
        """
        first_time = not self._n
        self._mean_low = seen.mean_low if first_time else min(self._mean_low, seen.mean_low)
        self._mean_high = seen.mean_high if first_time else max(self._mean_high, seen.mean_high)
        self._low, self._high = min(self._low, seen.low), max(self._high, seen.high)
        self._fit()
        self._counts += self._rebinned(
            seen.counts, math.frexp(seen.width)[1] - 1, round(seen.start / seen.width)
        )
        self._n += seen.n
        self._zeros += seen.zeros

    def result(self) -> Observation:
        """What was seen so far.

        Raises:
            InputError: Nothing was.
        """
        if not self._n:
            raise InputError("no value was observed")
        width = 2.0**self._exponent
        return Observation(
            low=self._low,
            high=self._high,
            mean_low=self._mean_low,
            mean_high=self._mean_high,
            counts=self._counts.copy(),
            start=self._first * width,
            width=width,
            n=self._n,
            zeros=self._zeros,
        )

    def _fit(self) -> None:
        """Widen and move the bins until they hold all that lies between the extremes and zero."""
        low, high = min(self._low, 0.0), max(self._high, 0.0)
        exponent = self._exponent
        if high > low:
            exponent = max(exponent, math.frexp((high - low) / BINS)[1] - 1)
        while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= BINS:
            exponent += 1
        first = math.floor(low / 2.0**exponent)
        if (exponent, first) == (self._exponent, self._first):
            return
        before = self._counts, self._exponent, self._first
        self._exponent, self._first = exponent, first
        self._counts = self._rebinned(*before)

    def _rebinned(self, counts: npt.NDArray[np.int64], exponent: int, first: int) -> npt.NDArray[np.int64]:
        """Counts of bins that are at most as wide, added up in the bins of now."""
        used = np.flatnonzero(counts)
        # wider than 2**62 bins of before: all that was seen lies in the two bins beside zero
        places = (used + first >> min(self._exponent - exponent, 62)) - self._first
        rebinned = np.zeros(BINS, np.int64)
        np.add.at(rebinned, places, counts[used])
        return rebinned

    def _count(self, values: npt.NDArray[np.float32]) -> None:
        inverse, first = np.float32(2.0**-self._exponent), np.float32(self._first)
        bins = np.empty(CHUNK, np.float32)
        places = np.empty(CHUNK, np.int32)
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            scaled, indices = bins[: len(chunk)], places[: len(chunk)]
            np.floor(np.multiply(chunk, inverse, out=scaled), out=scaled)
            np.copyto(indices, np.subtract(scaled, first, out=scaled), casting="unsafe")
            self._counts += np.bincount(indices, minlength=BINS)
            self._zeros += len(chunk) - int(np.count_nonzero(chunk))
        self._n += len(values)


def merged(observations: Iterable[Observation]) -> Observation:
    """What one observer would have seen of all the tensors; for moving averages see `Observer.include`.

    Raises:
        InputError: There is no observation.
    """
    observer = Observer()
    for seen in observations:
        observer.include(seen)
    return observer.result()
