from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.benchmarking.figures import BINS, block_medians, histogram, percentiles, ratio_interval

LATENCIES = st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=200)


def test_percentiles_by_hand() -> None:
    found = percentiles([float(ms) for ms in range(1, 102)])
    assert found == {"p50_ms": 51, "p90_ms": 91, "p95_ms": 96, "p99_ms": 100, "mean_ms": 51}


def test_histogram_by_hand() -> None:
    """1..101: the 99th percentile is 100, so that 39 bins of 99/39 lead to it."""
    found = histogram([float(ms) for ms in range(1, 102)])
    assert (found.start_ms, found.width_ms) == (1.0, pytest.approx(99 / 39, abs=1e-6))
    assert found.counts[0] == 3  # 1, 2, 3
    assert found.counts[-1] == 2  # 100, 101


@given(LATENCIES)
def test_histogram_counts_every_call(latencies: list[float]) -> None:
    found = histogram(latencies)
    assert sum(found.counts) == len(latencies)
    assert len(found.counts) == BINS
    assert found.width_ms > 0


def test_blocks_are_consecutive() -> None:
    assert block_medians([1.0, 1.0] * 10 + [5.0] * 20) == (1.0,) * 10 + (5.0,) * 10
    assert block_medians([3.0, 4.0]) == (3.0, 4.0)
    assert block_medians([]) == ()


def test_ratio_of_steady_runs_is_sure() -> None:
    found = ratio_interval([3.0] * 20, [2.0] * 20)
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_ratio_of_restless_runs_is_not() -> None:
    rng = np.random.default_rng(1)
    found = ratio_interval(rng.uniform(5, 15, 20).tolist(), rng.uniform(5, 15, 20).tolist())
    assert found.low < 1 < found.high
    assert found.low < found.value < found.high
    assert ratio_interval([1.0, 2.0], [1.0]) == ratio_interval([1.0, 2.0], [1.0])
