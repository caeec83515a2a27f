"""The layer that INT8 harms most is known, and measured once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.calibration import sensitivity
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.calibration.placement import Placement
from edgecnn.calibration.search import LayerSensitivity
from edgecnn.calibration.sensitivity import IMAGES_MAX, layer_sensitivities
from edgecnn.errors import InputError
from tests.calibration.graphs import Images, content, graph, node, noise, pixels
from tests.converters.helpers import run_bytes

IMAGES = pixels(32, 8, 8, 3)
PLACEMENTS: list[Placement] = ["cpu", "tensorrt"]
NAMES = ["first", "worst", "out"]


def fragile(batch: int | str = "batch") -> bytes:
    """Three layers; of what the second reads, a channel with large values says nothing and takes all steps."""
    large = np.array([300.0, 1.0, 1.0, 1.0])
    net = graph(
        node("Conv", "x w1", "first"), node("HardSwish", "first", "h1"), node("Mul", "h1 large", "spread"),
        node("Conv", "spread w2", "worst"), node("HardSwish", "worst", "h2"),
        node("Conv", "h2 w3", "out"),
        batch=batch, large=large.reshape(1, 4, 1, 1), w1=np.abs(noise(4, 3, 1, 1)) / 255,
        w2=noise(4, 4, 1, 1) / large.reshape(1, 4, 1, 1) ** 2, w3=noise(4, 4, 1, 1),
    )  # fmt: skip
    return content(net)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))


class Counted(Int8Builder):
    """A builder that keeps what was asked of it."""

    def __init__(self, model: bytes, images: Any = IMAGES) -> None:
        super().__init__(model, images, method="minmax", threads=1)
        self.kept: list[list[str]] = []

    def build(self, placement: Placement, kept_float: Collection[str] = ()) -> bytes:
        self.kept.append(sorted(kept_float))
        return super().build(placement, kept_float)


def measure(
    builder: Int8Builder, placement: Placement = "cpu", **options: Any
) -> tuple[LayerSensitivity, ...]:
    return layer_sensitivities(
        builder, placement, {"first": 10, "out": 30}, **{"images": IMAGES, "threads": 1, **options}
    )


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_layer_is_clearly_the_worst(placement: Placement) -> None:
    found = measure(Counted(fragile()), placement)
    assert [(each.name, each.macs) for each in found] == [("first", 10), ("worst", 0), ("out", 30)]
    first, worst, last = (each.error for each in found)
    assert worst > 3 * max(first, last)
    assert min(first, last) > 0


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_error_is_that_of_the_layer_alone(placement: Placement) -> None:
    model = fragile()
    builder = Counted(model)
    found = measure(builder, placement)
    images = IMAGES[np.linspace(0, len(IMAGES) - 1, IMAGES_MAX).round().astype(int)]
    exact = run_bytes(model, {"image": images})["out"]
    for each in found:
        others = [name for name in NAMES if name != each.name]
        rounded = run_bytes(builder.build(placement, others), {"image": images})["out"]
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        assert each.error == pytest.approx(error, rel=1e-3)


def test_progress_is_told_and_what_is_built() -> None:
    builder = Counted(fragile())
    told: list[tuple[int, int]] = []
    measure(builder, on_progress=lambda *figures: told.append(figures))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert builder.kept == [[], sorted(NAMES), ["out", "worst"], ["first", "out"], ["first", "worst"]]


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = measure(Counted(fragile()))
    builder = Counted(fragile())
    assert measure(builder, on_progress=lambda *figures: told.append(figures)) == found
    # but for the model that the figures are of
    assert (builder.kept, told) == ([[]], [])
    assert len(list((tmp_path / "sensitivities").iterdir())) == 1
    # multiply-accumulates do not belong to it
    again = layer_sensitivities(builder, "cpu", {"worst": 7}, IMAGES, threads=1)
    assert [(each.macs, each.error) for each in again] == [
        (macs, each.error) for macs, each in zip((0, 7, 0), found)
    ]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (fragile(), {"images": IMAGES[::-1].copy()}),
        (fragile(), {"images": IMAGES[:16]}),
        (fragile(), {"placement": "tensorrt"}),
        (fragile().replace(b"worst", b"other"), {}),
        (fragile(), {"cache_dir": "elsewhere"}),
    ],
)
def test_anything_else_is_measured(model: bytes, options: dict[str, Any], tmp_path: Path) -> None:
    if "cache_dir" in options:
        options = {"cache_dir": tmp_path / options["cache_dir"]}
    measure(Counted(fragile()))
    builder = Counted(model)
    measure(builder, **options)
    assert len(builder.kept) == 5


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b'{"first": 1, "worst": 2}', b"\xff", b"7"])
def test_a_damaged_file_is_measured_again(damaged: bytes, tmp_path: Path) -> None:
    found = measure(Counted(fragile()), cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.json")
    whole = file.read_bytes()
    file.write_bytes(damaged)
    assert measure(Counted(fragile()), cache_dir=tmp_path) == found
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_used_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        found = measure(Counted(fragile()), cache_dir=tmp_path / "file" / "cache")
    assert len(found) == 3
    assert "sensitivities cannot be kept" in caplog.text


@pytest.mark.parametrize("batch", [5, IMAGES_MAX + 4])
def test_a_fixed_batch(batch: int) -> None:
    first, worst, last = (each.error for each in measure(Counted(fragile(batch))))
    assert worst > 3 * max(first, last)
    with pytest.raises(InputError, match=f"fewer samples than the {batch}"):
        measure(Counted(fragile(batch)), images=IMAGES[: batch - 1])


def test_few_images_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    measured = sensitivity.runs

    def counted(batches: Sequence[Images], size: int | str | None) -> Iterator[Images]:
        sizes.extend(map(len, batches))
        return measured(batches, size)

    monkeypatch.setattr(sensitivity, "runs", counted)
    measure(Counted(fragile()))
    measure(Counted(fragile()), images=IMAGES[:3])
    assert sizes == [IMAGES_MAX] * 4 + [3] * 4
