"""What the page of a conversion says, read as a browser would read it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn import rungs
from edgecnn.errors import GateMissed
from edgecnn.reporting import REPORT_NAME
from tests import int8
from tests.int8 import FASTER, SLOWER, clock

FRAMES = int8.frames()


class Page(HTMLParser):
    """The text of each section by its heading, that of the verdict, and the number of pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.verdict = ""
        self.title = ""
        self.pictures = 0
        self._inside: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures += 1
            assert (dict(attrs)["src"] or "").startswith("data:image/")
        elif tag != "meta":
            self._inside.append(
                "verdict" if tag == "div" and "verdict" in (dict(attrs).get("class") or "") else tag
            )

    def handle_endtag(self, tag: str) -> None:
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "verdict" in self._inside:
            self.verdict += f"{data}: " if "strong" in self._inside else data
        elif "h1" in self._inside:
            self.title += data
        elif "h2" in self._inside:
            self._section = data
            self.sections[data] = ""
        elif self._section:
            self.sections[self._section] += " " + " ".join(data.split())


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a machine on which all that is smaller is faster."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rungs, "compare_speed", clock(FASTER))


def page_of(bundle: Path, out: Path, **options: Any) -> Page:
    """The page of what is made of a bundle."""
    made = edgecnn.quantize(
        bundle, out=out, **{"calibration": FRAMES, "samples": 36, "threads": 1, "max_drop": 0.0, **options}
    )
    return Page(made.read(REPORT_NAME).decode("utf-8"))


def test_page_of_a_bundle(two_scales_bundle: Path, tmp_path: Path) -> None:
    page = page_of(two_scales_bundle, tmp_path / "small.edge")
    assert page.title == "small"
    assert page.verdict.strip() == (
        "Gate met: int8 loses nothing of agreement with the float model (100.0% → 100.0%), "
        "within the budget of 0 points, and runs 2.00× as fast as fp32 here."
    )
    assert list(page.sections) == ["Artifacts", "Layers", "Ranges", "Calibration images"]
    artifacts = page.sections["Artifacts"]
    assert "onnx-fp32" in artifacts
    assert "what all others are made from" in artifacts
    assert "onnx-int8" in artifacts
    assert "2.00× as fast as fp32 here" in artifacts


def test_layers_and_why_one_is_in_float(two_scales_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "small.edge"
    layers = page_of(two_scales_bundle, bundle).sections["Layers"]
    (kept,) = edgecnn.Bundle(bundle).manifest.quantization[0].kept_float
    assert "1 of 2 layers run in int8: 97.0 % of the multiply-adds." in layers
    assert "conv" in layers
    assert kept.layer in layers
    assert kept.reason in layers
    assert "Search for the fewest layers in float" in layers
    assert "384" in layers


def test_ranges_are_those_that_were_chosen(two_scales_bundle: Path, tmp_path: Path) -> None:
    """What the convolution gives, and what the head reads: up to a thousand."""
    ranges = page_of(two_scales_bundle, tmp_path / "small.edge", method="minmax").sections["Ranges"]
    assert "minmax" in ranges
    assert "conv 0 … 1 0 … 1" in " ".join(ranges.split())
    top = FRAMES[..., 2].mean(axis=(1, 2)).max() / 255 * 1000
    assert f"… {top:.3g}" in ranges


def test_worst_samples_are_shown(two_scales_bundle: Path, tmp_path: Path) -> None:
    page = page_of(two_scales_bundle, tmp_path / "small.edge", samples=33)
    assert page.pictures == 16
    text = page.sections["Calibration images"]
    assert "from 36 frames" in text
    assert sum(text.count(label) for label in int8.LABELS) >= 16


def test_page_of_a_missed_budget(two_scales_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(GateMissed):
        page_of(two_scales_bundle, tmp_path / "small.edge", max_drop=None)
    page = Page((tmp_path / "small.report.html").read_text(encoding="utf-8"))
    assert "Gate missed: no bundle was written" in page.verdict
    assert page.verdict.rstrip().endswith("% of the decisions agree (at least 80%).")
    assert "dropped : only " in page.sections["Artifacts"]
    assert page.pictures == 16
    # the worst is a green one that is taken for one without green
    assert "green" in page.sections["Calibration images"]


def test_page_where_nothing_is_faster(
    two_scales_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was tried is shown all the same."""
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER))
    page = page_of(two_scales_bundle, tmp_path / "small.edge")
    assert "Nothing smaller is faster than fp32 here: the bundle holds fp32 alone." in page.verdict
    assert page.sections["Artifacts"].count("0.67× as fast as fp32 here: not worth it") == 2
    assert "Layers" in page.sections


def test_page_of_fp16_has_no_layers_of_int8(two_scales_bundle: Path, tmp_path: Path) -> None:
    page = page_of(two_scales_bundle, tmp_path / "small.edge", precision="fp16")
    assert list(page.sections) == ["Artifacts", "Calibration images"]
    assert "fp16 loses nothing" in page.verdict


def test_page_of_a_model_for_another_engine(two_scales_bundle: Path, tmp_path: Path) -> None:
    page = page_of(two_scales_bundle, tmp_path / "small.edge", target=("tensorrt",))
    assert "accuracy holds; its speed is for its own device to say" in page.sections["Artifacts"]
    assert "as fast as" not in page.verdict


def test_metric_of_labels_is_named(two_scales_bundle: Path, tmp_path: Path) -> None:
    photos = int8.write_frames(tmp_path / "photos", FRAMES)
    page = page_of(two_scales_bundle, tmp_path / "small.edge", evaluation=photos, max_drop=0.02)
    assert "loses nothing of top-1 (100.0% → 100.0%), within the budget of 2 points" in page.verdict
    assert "top-1" in page.sections["Artifacts"]
