from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecnn.report import Histogram, Trial
from edgecnn.report.charts import error_chart, histogram_chart, range_chart, trial_chart
from tests.report.examples import activation, layer

NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1)
FIGURES = st.floats(-1e9, 1e9, allow_subnormal=False) | st.sampled_from([math.nan, math.inf, -math.inf])


def parse(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    return root


def bars(svg: str) -> list[dict[str, float]]:
    """Left, width, top and height of each bar, after checking that they are inside the chart."""
    root = parse(svg)
    found = []
    for rect in root.iter("rect"):
        bar = {key: float(rect.attrib[key].rstrip("%")) for key in ("x", "width", "y", "height")}
        assert -1e-3 <= bar["x"] <= bar["x"] + bar["width"] <= 100 + 1e-3
        assert 0 <= bar["y"] <= bar["y"] + bar["height"] <= float(root.attrib["height"])
        found.append(bar)
    return found


def labels(svg: str) -> list[str]:
    return [text.text or "" for text in parse(svg).iter("text")]


def classes(svg: str, tag: str = "rect") -> list[str]:
    return [element.attrib["class"] for element in parse(svg).iter(tag)]


def test_error_bars_stand_in_network_order_and_a_decade_is_a_third() -> None:
    svg = error_chart(
        [layer("a", 0.001), layer("b", 0.01), layer("c", 0.1), layer("d", 1.0, precision="fp32")]
    )
    first, second, third, fourth = bars(svg)
    assert first["x"] < second["x"] < third["x"] < fourth["x"]
    assert second["height"] == pytest.approx(fourth["height"] / 3, abs=0.1)
    assert third["height"] == pytest.approx(fourth["height"] * 2 / 3, abs=0.1)
    assert {"0.1 %", "1 %", "10 %", "100 %"} <= set(labels(svg))
    assert classes(svg) == ["bar int8"] * 3 + ["bar fp32"]
    assert "the largest error is that of d" in svg


def test_error_bars_leave_gaps_for_what_was_not_measured_and_a_stub_for_zero() -> None:
    svg = error_chart([layer("a", None), layer("b", 0.0), layer("c", math.nan), layer("d", 0.1)])
    stub, bar = bars(svg)
    assert stub["height"] == 2.0
    assert bar["x"] > 75


@pytest.mark.parametrize("count", [1, 2, 300])
def test_any_number_of_bars_fits(count: int) -> None:
    found = bars(error_chart([layer(f"l{i}", 0.01) for i in range(count)]))
    assert len(found) == count
    assert all(a["x"] + a["width"] <= b["x"] for a, b in pairwise(found))
    assert all(0 < bar["width"] <= 6 for bar in found)


def test_ranges_that_are_wider_are_taller_and_zero_is_on_the_axis() -> None:
    rows = [activation(low=-v, high=2 * v, clip_low=-v, clip_high=v) for v in (0.1, 1.0, 10.0, 1000.0)]
    svg = range_chart(rows)
    heights = [bar["height"] for bar in bars(svg)]
    assert heights == sorted(heights)
    assert heights[-1] > heights[0] * 5
    assert "0" in labels(svg)
    assert classes(svg, "line").count("observed") == 4


def test_ranges_that_are_not_finite_leave_a_gap_and_empty_ones_a_stub() -> None:
    svg = range_chart([activation(low=math.nan), activation(low=0, high=0, clip_low=0, clip_high=0)])
    (bar,) = bars(svg)
    assert bar["height"] == 2.0
    assert bar["x"] > 50


def test_labels_of_ranges_do_not_touch() -> None:
    svg = range_chart([activation(low=-(10**i), high=10**i) for i in range(6)])
    heights = sorted(float(text.attrib["y"]) for text in parse(svg).iter("text") if text.attrib["x"] == "-8")
    assert len(heights) >= 3
    assert all(b - a >= 17.9 for a, b in pairwise(heights))


def test_trials_are_sorted_and_coloured_by_the_budget() -> None:
    svg = trial_chart([Trial(4, 0.001), Trial(0, 0.02), Trial(1, 0.006)], max_drop=0.005)
    assert classes(svg) == ["bar fp32", "bar fp32", "bar int8"]
    heights = [bar["height"] for bar in bars(svg)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == pytest.approx(heights[1] * 0.02 / 0.006, abs=0.2)
    assert [text for text in labels(svg) if text in {"0", "1", "4"}][-3:] == ["0", "1", "4"]
    assert classes(svg, "line").count("budget") == 1


def test_trials_without_a_budget_and_below_zero() -> None:
    svg = trial_chart([Trial(1, -0.01), Trial(2, 0.01), Trial(3, math.nan)])
    better, worse = bars(svg)
    assert better["y"] == pytest.approx(worse["y"] + worse["height"], abs=0.1)
    assert "budget" not in svg


def test_histogram_marks_what_is_clipped() -> None:
    paths = {
        path.attrib["class"]: path.attrib["d"] for path in parse(histogram_chart(activation())).iter("path")
    }
    assert paths["kept"].count("M") == 3
    assert paths["clipped"].startswith("M3 100")


def test_histogram_of_nothing_is_no_chart() -> None:
    assert histogram_chart(activation(histogram=None)) == ""
    assert histogram_chart(activation(histogram=Histogram((0, 0), 0.0, 1.0))) == ""


@given(NAMES)
def test_names_are_escaped(name: str) -> None:
    tip = next(parse(error_chart([layer(name)])).iter("rect"))[0].text
    assert tip is not None
    assert tip.startswith(name)
    assert parse(histogram_chart(activation(name))).attrib["aria-label"] == f"Histogram of {name}"


@given(st.lists(FIGURES.map(abs) | st.none(), min_size=1, max_size=9))
def test_errors_of_any_size_stay_inside(errors: list[float | None]) -> None:
    measured = [error for error in errors if error is not None and not math.isnan(error)]
    assert len(bars(error_chart([layer(error=error) for error in errors]))) == len(measured)


@example([[0.0, 0.0, 0.0, 0.0], [-4.0, 0.0, 2.2250738585072014e-308, 1.0]])
@given(st.lists(st.tuples(FIGURES, FIGURES, FIGURES, FIGURES).map(sorted), max_size=9))
def test_ranges_of_any_size_stay_inside(ranges: list[list[float]]) -> None:
    rows = [activation(low=a, clip_low=b, clip_high=c, high=d) for a, b, c, d in ranges]
    assert len(bars(range_chart(rows))) == sum(all(map(math.isfinite, values)) for values in ranges)


@given(st.lists(FIGURES, max_size=9), st.none() | st.floats(0, 1))
@example([0.3], None)
def test_trials_of_any_drop_stay_inside(drops: list[float], max_drop: float | None) -> None:
    trials = [Trial(i, drop) for i, drop in enumerate(drops)]
    assert len(bars(trial_chart(trials, max_drop))) == sum(map(math.isfinite, drops))
