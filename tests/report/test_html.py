from __future__ import annotations

import base64
import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from edgecnn.report import ArtifactRow, Report, Samples, render
from edgecnn.report.html import PICTURE_SIDE, PICTURES_MAX
from edgecnn.vision.opencv import cv2
from tests.paths import ROOT
from tests.report.examples import activation, full, layer, picture

MINIMAL = Report(title="net.edge", created="today", artifacts=())
REPORTS = {
    "full": full(),
    "missed": full(met=False),
    "minimal": MINIMAL,
    "one layer": full(layers=1),
    "many layers": full(layers=300),
}
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps the text of the headings and of the cells, and what is linked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: dict[str, list[str]] = {"h1": [], "h2": [], "td": [], "th": [], "p": []}
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [
            value or "" for name, value in attrs if name in {"src", "href", "srcset", "xlink:href"}
        ]
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.found:
            self.found[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open) & set(self.found):
            self.found[tag][-1] += data


@pytest.mark.parametrize("report", REPORTS.values(), ids=list(REPORTS))
def test_page_is_balanced_and_needs_nothing_from_outside(report: Report) -> None:
    text = render(report)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.found["h1"] == ["net.edge"]
    assert not page.tags & {"script", "link", "iframe", "object", "base"}
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r'"data:[^"]*"', "", text))
    assert "default-src 'none'" in text
    assert "width=device-width" in text


def test_sections_without_data_are_left_out() -> None:
    assert Page(render(full())).found["h2"] == [
        "Artifacts", "Layers", "Ranges", "Calibration images", "Pruning", "How it was made"
    ]  # fmt: skip
    assert Page(render(MINIMAL)).found["h2"] == []
    only_layers = dataclasses.replace(MINIMAL, layers=(layer(error=None),), samples=Samples("photos", 32))
    assert Page(render(only_layers)).found["h2"] == ["Layers", "Calibration images"]
    assert "<svg" not in render(only_layers)


def test_before_and_after() -> None:
    page = Page(render(full()))
    assert page.found["td"][:9] == [
        "14.00 MB", "3.50 MB", "0.25×", "7.5 ms", "3 ms", "2.50× as fast", "79.4 %", "79.2 %", "−0.20 points"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("artifacts", "shown"),
    [
        ([("int8", "kept", 3.0), ("fp16", "kept", 2.0)], "fp16"),
        ([("int8", "kept", 3.0), ("fp16", "dropped", 2.0)], "int8"),
        ([("int8", "kept", None), ("fp16", "kept", 2.0)], "fp16"),
        ([("int8", "dropped", None), ("fp16", "dropped", None)], "int8"),
    ],
)
def test_the_fastest_kept_artifact_is_compared(
    artifacts: list[tuple[str, str, float | None]], shown: str
) -> None:
    rows = [
        ArtifactRow(id=p, format="onnx", precision=p, bytes=1, status=status, latency_ms=ms)
        for p, status, ms in [("fp32", "kept", 4.0), *artifacts]
    ]
    page = Page(render(dataclasses.replace(MINIMAL, artifacts=tuple(rows))))
    assert page.found["th"][:4] == ["", "fp32", shown, "Change"]


def test_what_was_not_measured_is_a_dash() -> None:
    cells = Page(render(full())).found["td"]
    assert cells[9 + 7 : 9 + 14] == ["3.50 MB", "3 ms", "79.2 %", "−0.20", "98.5 %", "0.9961", "–"]
    assert cells[9 + 14 : 9 + 21] == ["7.00 MB", "9 ms", "–", "–", "–", "–", "–"]


def test_verdict_says_how_it_ended() -> None:
    met, missed = render(full()), render(full(met=False))
    assert 'class="verdict met"' in met
    assert "Gate met" in met
    assert 'class="verdict missed"' in missed
    assert "no bundle was written" in missed


def test_layers_in_float_are_named_with_their_share_and_reason() -> None:
    page = Page(render(full()))
    rows = [" ".join(cell.split()) for cell in page.found["th"]]
    assert rows.count("features.3.conv fp32 Conv: brings the drop from 2.4 to 0.2 points") == 2
    assert any("3 of 4 layers run in int8:" in text and "75.0 %" in text for text in page.found["p"])


def test_most_clipped_activations_come_first() -> None:
    rows = [activation(f"t{i}", layer=f"l{i}", clip_high=8.0 - i) for i in range(3)]
    text = render(dataclasses.replace(MINIMAL, ranges=tuple(rows)))
    shown = text[text.index("Clipped most") : text.index("All 3 activations")]
    assert re.findall(r"<code>(\w+)</code>", shown) == ["l2", "l1"]


def test_pictures_are_small_few_and_the_right_way_round() -> None:
    links = Page(render(full(pictures=40))).links
    assert len(links) == PICTURES_MAX
    data = base64.b64decode(links[0].split(",")[1])
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (120, PICTURE_SIDE, 3)
    np.testing.assert_allclose(image.mean((0, 1)), (30, 60, 200), atol=3)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (48, 48), (1, 1)])
def test_pictures_of_odd_shapes(shape: tuple[int, int]) -> None:
    report = dataclasses.replace(MINIMAL, worst=(picture(*shape),))
    assert Page(render(report)).links[0].startswith("data:image/jpeg")


def test_names_are_escaped() -> None:
    evil = '<script>alert("1")</script>&"\''
    base = full()
    report = dataclasses.replace(
        base,
        title=evil,
        model=evil,
        metric_name=evil,
        command=evil,
        artifacts=tuple(dataclasses.replace(row, id=evil, reason=evil) for row in base.artifacts),
        layers=(layer(evil, op=evil, reason=evil), layer(evil, precision="fp32", reason=evil)),
        ranges=(activation(evil, layer=evil, method=evil),),
        worst=tuple(dataclasses.replace(row, name=evil, label_int8=evil) for row in base.worst),
        samples=Samples(evil, 1, (evil,)),
    )
    page = Page(render(report))
    assert page.found["h1"] == [evil]
    assert "script" not in page.tags
    assert "<code><" not in render(report)


def test_a_file_name_that_is_not_utf8_can_be_written() -> None:
    report = dataclasses.replace(MINIMAL, worst=(dataclasses.replace(picture(), name="a\udcff.jpg"),))
    assert "a?.jpg" in render(report).encode("utf-8").decode("utf-8")


def test_same_report_same_bytes_in_every_process() -> None:
    code = "from edgecnn.report import render; from tests.report.examples import full; print(ascii(render(full())))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.decode()
        for seed in ("1", "2")
    }
    assert {text.strip() for text in texts} == {ascii(render(full()))}


def test_a_large_report_stays_small() -> None:
    assert len(render(full(layers=300, pictures=16)).encode()) < 1_500_000
