from __future__ import annotations

import pytest

from edgecnn.report import Histogram
from tests.report.examples import activation


@pytest.mark.parametrize(
    ("counts", "bins", "expected", "width"),
    [
        ([1, 2, 3, 4], 2, (3, 7), 1.0),
        ([1, 2, 3], 2, (3, 3), 1.0),
        ([1, 2, 3], 64, (1, 2, 3), 0.5),
        ([5] * 2048, 64, (160,) * 64, 16.0),
    ],
)
def test_coarse_merges_neighbours(
    counts: list[int], bins: int, expected: tuple[int, ...], width: float
) -> None:
    assert Histogram.coarse(counts, -1.0, 0.5, bins) == Histogram(expected, -1.0, width)


@pytest.mark.parametrize(
    ("low", "high", "share"),
    [(0.0, 4.0, 0.0), (-9.0, 9.0, 0.0), (0.0, 3.0, 0.1), (0.0, 3.5, 0.05), (1.0, 3.0, 0.5), (5.0, 6.0, 1.0)],
)
def test_share_outside_counts_parts_of_bins(low: float, high: float, share: float) -> None:
    assert Histogram((4, 3, 2, 1), 0.0, 1.0).share_outside(low, high) == pytest.approx(share)


@pytest.mark.parametrize(
    "histogram", [Histogram((), 0.0, 1.0), Histogram((0, 0), 0.0, 1.0), Histogram((7,), 0.0, 0.0)]
)
def test_nothing_lies_outside_of_an_empty_histogram(histogram: Histogram) -> None:
    assert histogram.share_outside(0.0, 1.0) == 0.0


def test_an_activation_without_a_histogram_does_not_say_what_is_clipped() -> None:
    assert activation().clipped == pytest.approx(1 / 8)
    assert activation(histogram=None).clipped is None
