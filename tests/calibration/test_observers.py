"""Observers: exact counts in bounded memory, whatever the order of the values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecnn.calibration import Observation, Observer
from edgecnn.calibration.observers import BINS, MIN_EXPONENT, merged
from edgecnn.errors import InputError

FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
BATCHES = st.lists(arrays(np.float32, st.integers(1, 30), elements=FLOATS), min_size=1, max_size=5)


def observed(*batches: npt.ArrayLike) -> Observation:
    observer = Observer()
    for batch in batches:
        observer.update(np.asarray(batch, np.float32))
    return observer.result()


def by_hand(values: npt.NDArray[np.float32], seen: Observation) -> npt.NDArray[np.int64]:
    """The histogram of all values at once, in the final bins."""
    places = np.floor(values.astype(np.float64) / seen.width) - seen.start / seen.width
    return np.bincount(places.astype(int), minlength=BINS)


def test_what_is_seen_of_a_few_values() -> None:
    seen = observed([[0.0, 1.0], [2.0, 1023.0]])
    assert (seen.low, seen.high, seen.n, seen.zeros) == (0.0, 1023.0, 4, 1)
    assert (seen.start, seen.width) == (0.0, 0.5)
    assert np.flatnonzero(seen.counts).tolist() == [0, 2, 4, 2046]


def test_widening_adds_neighbours_up() -> None:
    seen = observed([1.0, 1.5, 2.0], [3000.0])
    assert (seen.start, seen.width) == (0.0, 2.0)
    assert {int(i): int(seen.counts[i]) for i in np.flatnonzero(seen.counts)} == {0: 2, 1: 1, 1500: 1}


def test_moving_average_of_the_extremes() -> None:
    seen = observed([-1.0, 4.0], [0.0, 14.0], [-11.0, 4.0])
    assert seen.mean_low == pytest.approx(0.9 * (0.9 * -1 + 0.1 * 0) + 0.1 * -11)
    assert seen.mean_high == pytest.approx(0.9 * (0.9 * 4 + 0.1 * 14) + 0.1 * 4)


@given(BATCHES)
def test_streaming_equals_one_pass(batches: list[npt.NDArray[np.float32]]) -> None:
    values = np.concatenate(batches)
    streamed, at_once, backwards = observed(*batches), observed(values), observed(values[::-1])
    for seen in (streamed, backwards):
        assert (seen.start, seen.width) == (at_once.start, at_once.width)
        np.testing.assert_array_equal(seen.counts, at_once.counts)
    np.testing.assert_array_equal(streamed.counts, by_hand(values, streamed))
    assert (streamed.low, streamed.high) == (values.min(), values.max())
    assert (streamed.n, streamed.zeros) == (values.size, int((values == 0).sum()))


@given(BATCHES)
def test_half_of_the_bins_or_more_are_used_and_zero_is_an_edge(
    batches: list[npt.NDArray[np.float32]],
) -> None:
    seen = observed(*batches)
    assert (seen.start / seen.width).is_integer()
    assert seen.start <= 0 <= seen.start + BINS * seen.width
    span = max(seen.high, 0) - min(seen.low, 0)
    assert span / seen.width > BINS / 2 - 1 or seen.width == 2.0**MIN_EXPONENT


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [-5.0], [1e-30, -1e-30], [-3e38, 3e38], [1e-38]])
def test_values_at_the_ends_of_float32(values: list[float]) -> None:
    seen = observed([0.25], values)
    assert seen.counts.sum() == 1 + len(values)
    np.testing.assert_array_equal(seen.counts, by_hand(np.array([0.25, *values], np.float32), seen))


def test_magnitudes() -> None:
    seen = observed([-3.0, -1.25, 0.0, 1.25, 2.0]).absolute()
    # -1.25 lies at an edge: from zero it is counted one bin nearer
    edge = round(1.25 / seen.width)
    assert (seen.low, seen.high, seen.mean_high, seen.start, seen.zeros) == (0.0, 3.0, 3.0, 0.0, 1)
    assert {1.25 - seen.width, 1.25} == {(edge - 1) * seen.width, edge * seen.width}
    assert (seen.counts[edge - 1], seen.counts[edge], seen.counts.sum()) == (1, 1, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_not_taken_in(bad: float) -> None:
    observer = Observer()
    observer.update(np.ones(3, np.float32))
    with pytest.raises(InputError, match="not finite"):
        observer.update(np.array([0, bad], np.float32))
    assert observer.result().n == 3


def test_nothing_seen_is_no_result() -> None:
    observer = Observer()
    observer.update(np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match="no value was observed"):
        observer.result()


def test_a_result_does_not_change_with_what_comes_later() -> None:
    observer = Observer()
    observer.update(np.ones(3, np.float32))
    seen = observer.result()
    observer.update(np.ones(3, np.float32))
    assert seen.counts.sum() == 3


def test_memory_does_not_grow_with_the_values() -> None:
    values = np.random.default_rng(0).standard_normal(2_000_000).astype(np.float32)
    observer = Observer()
    tracemalloc.start()
    for _ in range(5):
        observer.update(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert observer.result().n == 10_000_000
    assert peak < 2e6


@given(BATCHES)
def test_merged_observations_are_those_of_one_observer(batches: list[npt.NDArray[np.float32]]) -> None:
    together, at_once = merged(map(observed, batches)), observed(np.concatenate(batches))
    assert (together.start, together.width) == (at_once.start, at_once.width)
    np.testing.assert_array_equal(together.counts, at_once.counts)
    for name in ("low", "high", "n", "zeros"):
        assert getattr(together, name) == getattr(at_once, name)


def test_merged_moving_averages_are_the_outer_ones() -> None:
    together = merged([observed([-1.0, 9.0]), observed([-4.0, 2.0])])
    assert (together.mean_low, together.mean_high) == (-4, 9)


def test_nothing_to_merge() -> None:
    with pytest.raises(InputError, match="no value was observed"):
        merged([])
