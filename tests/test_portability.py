"""The same frame through two engines gives the same; benchmarks/portability.py does it with real networks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import edgecnn
from edgecnn import Detections
from edgecnn.vision import list_images, read_image
from tests.paths import ROOT, data, engine
from tests.shapes import background, draw_shape

engine("openvino")


@pytest.fixture(scope="module")
def portability() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("portability")


def detected(*rows: tuple[float, ...], class_ids: tuple[int, ...] | None = None) -> Detections:
    """Boxes with their scores behind the four edges."""
    values = np.float32(rows).reshape(-1, 5)
    ids = np.int64(class_ids if class_ids is not None else [0] * len(rows))
    return Detections(values[:, :4], values[:, 4], ids, tuple(map(str, ids)))


def test_the_partner_is_the_nearest_box_of_the_class(portability: ModuleType) -> None:
    ours = detected((0, 0, 10, 10, 0.9), (50, 50, 60, 60, 0.5))
    theirs = detected((49, 50, 60, 62, 0.25), (0, 0.25, 10, 10, 0.875))
    pixels, apart = portability.partners(ours, theirs)
    np.testing.assert_allclose(pixels, [0.25, 2])
    np.testing.assert_allclose(apart, [0.025, 0.25], atol=1e-6)


@pytest.mark.parametrize("theirs", [detected(), detected((0, 0, 10, 10, 0.9), class_ids=(1,))])
def test_a_box_of_nothing_or_of_another_class_is_no_partner(
    portability: ModuleType, theirs: Detections
) -> None:
    pixels, _ = portability.partners(detected((0, 0, 10, 10, 0.9)), theirs)
    assert pixels.tolist() == [np.inf]


@pytest.mark.parametrize(
    ("precision", "same", "kept"),
    [("fp32", 650, True), ("fp32", 649, False), ("int8", 647, True), ("int8", 646, False)],
)
def test_goals_are_of_all_images(portability: ModuleType, precision: str, same: int, kept: bool) -> None:
    row = portability.Decisions(
        network="net",
        precision=precision,
        runtime="openvino",
        images=650,
        same=same,
        max_abs=0.0,
        top1=(1.0, 1.0),
    )
    assert bool(portability.missed([row], [])) is not kept


def test_shapes_are_found_at_the_same_places(portability: ModuleType, shapes_bundle: Path) -> None:
    frame = background(np.random.default_rng(3), (96, 128))
    draw_shape(frame, "disc", 40, 40, 20)
    draw_shape(frame, "square", 90, 60, 20)
    first, second = (
        portability.detections(edgecnn.Bundle(shapes_bundle), runtime, "fp32", [frame])[0]
        for runtime in ("ort", "openvino")
    )
    assert len(first) == len(second) > 0
    pixels, apart = portability.partners(first, second)
    assert pixels.max() == 0
    assert apart.max() < 1e-5


def test_faces_of_a_photograph_are_the_same(portability: ModuleType) -> None:
    frame = read_image(list_images(data("faces_dlib"))[0])
    fp32, int8 = portability.boxes("faces_dlib", [frame], ["openvino"])
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    for row in (fp32, int8):
        assert row.boxes > 0
        assert row.alone == 0
    assert fp32.max_abs < 1e-4
