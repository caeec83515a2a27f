"""Pages and tables: well formed, self-contained, and with the figures in them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgecnn.benchmarking import compare_with, render_html, render_markdown
from edgecnn.benchmarking.charts import is_accuracy_shown, latency_chart, pareto_chart, pareto_front
from edgecnn.benchmarking.results import Benchmark, Row
from edgecnn.benchmarking.tables import cost_table, facts, headlines, latency_table
from tests.benchmarking.examples import bench, machine, row
from tests.report.test_html import Page

FAST = row("onnx-int8", (5.0,) * 30 + (6.0,) * 10, size_bytes=70_000, metric=0.97)
SLOW = row("onnx-fp32", (10.0,) * 40, ratio=2.0, ratio_low=1.9, ratio_high=2.1)
FAR = row("openvino-fp32", (500.0, 700.0) * 20, ratio=99.0, ratio_low=98.0)
MANY = row("onnx-int8", (9.0,) * 40, mode="throughput", streams=2, threads=1, fps=222.2)
BENCHES = {
    "one": bench(),
    "two": bench(FAST, SLOW),
    "far apart": bench(FAST, SLOW, FAR),
    "no accuracy": bench(row(metric=None)),
    "one call": bench(row(latencies_ms=(3.0,))),
    "both modes": bench(FAST, SLOW, MANY),
    "throughput": bench(MANY),
}


@pytest.mark.parametrize("found", BENCHES.values(), ids=BENCHES)
def test_page_is_whole(found: Benchmark) -> None:
    text = render_html(found)
    page = Page(text)
    assert page.links == []
    assert "script" not in page.tags
    assert page.found["h1"] == ["net"]
    assert [cell for cell in page.found["th"] if found.rows[0].name in cell]
    assert "no GPU &lt;here&gt;" in text
    assert text == render_html(found)


@pytest.mark.parametrize("found", BENCHES.values(), ids=BENCHES)
def test_charts_are_xml_and_stay_inside(found: Benchmark) -> None:
    for drawn in (latency_chart(found.rows), pareto_chart(found.rows, found.metric)):
        for element in ElementTree.fromstring(drawn).iter():
            for name in ("x", "x1", "x2", "cx"):
                at = element.get(name, "0")
                if at.endswith("%"):
                    assert -0.01 <= float(at[:-1]) <= 100.01


def test_every_call_is_in_a_bar() -> None:
    drawn = ElementTree.fromstring(latency_chart([FAST]))
    tips = [bar.findtext("title") or "" for bar in drawn.iter("rect")]
    assert sum(int(tip.split(": ")[1].split(" of ")[0]) for tip in tips) == FAST.n


def test_front_is_what_nothing_beats() -> None:
    worse = row("worse", (11.0,) * 40, size_bytes=300_000)
    assert pareto_front([FAST, SLOW, worse]) == [FAST, SLOW]
    assert pareto_front([SLOW, SLOW]) == [SLOW, SLOW]


@pytest.mark.parametrize(
    ("rows", "shown"), [([FAST, SLOW], True), ([SLOW, SLOW], False), ([FAST, row(metric=None)], False)]
)
def test_accuracy_is_drawn_where_it_differs(rows: list[Row], shown: bool) -> None:
    assert is_accuracy_shown(rows) is shown


def test_page_tells_the_verdict() -> None:
    slower, then = bench(row(latencies_ms=(20.0,) * 40)), bench()
    assert "Slower than 2026-01-02" in render_html(slower, compare_with(slower, then))
    assert "Not slower than 2026-01-02" in render_html(then, compare_with(then, then))
    assert "- slower: onnx-fp32 on ort takes 2.00 times" in render_markdown(
        slower, compare_with(slower, then)
    )


def test_markdown_tables_are_even() -> None:
    lines = render_markdown(bench(FAST, SLOW)).splitlines()
    assert "| onnx-int8 on ort | 5.00 |" in "\n".join(lines)
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert widths == [10] * 4 + [8] * 4


def test_columns_without_a_figure_are_left_out() -> None:
    assert cost_table(bench())[0] == ["", "geometry", "infer", "decode", "first ms", "RSS MB", "size MB"]
    suppressed = row(stages_ms={"read": None, "geometry": 1.0, "infer": 8.0, "decode": 1.0, "nms": 0.5})
    assert cost_table(bench(row(), suppressed))[0][4] == "nms"
    assert "mJ" in cost_table(bench(row(), row(energy_mj=3.21)))[0]
    assert latency_table(bench(row(metric=None)))[1][-1] == "-"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            (FAST, SLOW),
            "onnx-int8 on ort: 5.00 ms a frame, 190.5 fps, 2.00 times as fast as onnx-fp32 on ort",
        ),
        ((MANY,), "onnx-int8 on ort, 2 streams: 222.2 fps"),
        (
            (FAST, MANY),
            "onnx-int8 on ort: 5.00 ms a frame, 190.5 fps. onnx-int8 on ort, 2 streams: 222.2 fps",
        ),
        ((FAST, row(ratio=1.01, ratio_low=0.98)), "onnx-fp32 on ort is as fast within the noise"),
    ],
)
def test_headline(rows: tuple[Row, ...], said: str) -> None:
    assert said in ". ".join(headlines(bench(*rows)))


def test_facts_tell_what_stands_against_the_figures() -> None:
    hot = bench(
        row(settled=False, first_result_reason="it died"),
        machine=machine(
            throttled=True, throttled_reason="slowed for heat", others_share=0.5, gpu="RTX", power_mode="MAXN"
        ),
    )
    text = "\n".join(facts(hot))
    for said in (
        "throttled: yes, slowed for heat",
        "not yet stable when counting began: onnx-fp32 on ort",
        "other programs took 50% of the processors",
        "no first result of onnx-fp32 on ort: it died",
        "GPU: RTX",
        "power mode MAXN",
        "40 → 61 °C",
        "left out: onnx-fp32 on tensorrt",
    ):
        assert said in text
