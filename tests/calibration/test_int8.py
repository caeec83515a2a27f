"""A network becomes INT8 and decides as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from edgecnn.calibration.int8 import Int8Builder
from edgecnn.calibration.pixels import PIXELS
from edgecnn.calibration.placement import Placement
from edgecnn.converters.onnx_packed import unpack_pixels
from edgecnn.errors import InputError, ModelError
from tests.calibration.graphs import content, graph, node, noise, pixels
from tests.converters.helpers import convert, run_bytes
from tests.shapes import SPEC, sample

PLACEMENTS: list[Placement] = ["cpu", "tensorrt"]
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)
IMAGES = pixels(8, 8, 8, 3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))


def windows(count: int, seed: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return np.stack([sample(rng)[0] for _ in range(count)])


@pytest.fixture(scope="module")
def shapes_model(shapes_module: torch.nn.Module) -> bytes:
    return convert(shapes_module, SPEC).model


@pytest.fixture
def shapes(shapes_model: bytes) -> Int8Builder:
    return Int8Builder(shapes_model, windows(64, seed=1), threads=1)


def scores(model: bytes, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(run_bytes(model, {"image": images})["scores"])


def test_a_trained_network_decides_as_before(
    shapes: Int8Builder, shapes_model: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    unseen = windows(400, seed=2)
    wanted = scores(shapes_model, unseen)
    for placement in PLACEMENTS:
        made = shapes.build(placement)
        found = scores(made, unseen)
        assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.98
        assert 1e-6 < np.abs(found - wanted).mean() < 0.01
        assert len(made) < 0.6 * len(shapes_model)
    assert not caplog.records


@every_placement
def test_with_all_layers_in_float_it_is_the_float_network(
    shapes: Int8Builder, shapes_model: bytes, placement: Placement
) -> None:
    unseen = windows(20, seed=2)
    made = shapes.build(placement, [layer.name for layer in shapes.layers])
    np.testing.assert_allclose(scores(made, unseen), scores(shapes_model, unseen), atol=1e-5)
    assert "QuantizeLinear" not in {each.op_type for each in onnx.load_from_string(made).graph.node}


@every_placement
def test_building_twice_gives_the_same_bytes(shapes_model: bytes, placement: Placement) -> None:
    images = windows(16, seed=1)
    first, second = (Int8Builder(shapes_model, images, method="mse", threads=1) for _ in range(2))
    kept = [first.layers[1].name]
    made, partly = first.build(placement), first.build(placement, kept)
    assert made != partly
    # in any order, and from the cache too
    assert second.build(placement, kept) == partly
    assert second.build(placement) == first.build(placement) == made


def test_what_was_seen_and_what_was_chosen(shapes: Int8Builder) -> None:
    tensors = {layer.output for layer in shapes.layers[:-1]} | {layer.input for layer in shapes.layers[1:]}
    assert [layer.op for layer in shapes.layers] == ["Conv", "Conv", "Conv", "Gemm"]
    assert shapes.layers[0].input == PIXELS
    for placement in PLACEMENTS:
        ranges = shapes.ranges(placement)
        assert set(ranges) == set(shapes.observations) == tensors
        for name, chosen in ranges.items():
            assert chosen.params.signed == (placement == "tensorrt")
            assert chosen.low <= 0 < chosen.high <= shapes.observations[name].high * 1.01
        assert shapes.ranges(placement) is ranges


def test_on_the_cpu_the_first_layer_takes_four_pixels_at_a_time(shapes: Int8Builder) -> None:
    unseen = windows(20, seed=2)
    made = shapes.build("cpu")
    single = unpack_pixels(made)
    assert single != made
    np.testing.assert_array_equal(scores(made, unseen), scores(single, unseen))
    for other in (shapes.build("cpu", [shapes.layers[0].name]), shapes.build("tensorrt")):
        assert unpack_pixels(other) is other


def test_a_recipe_is_followed(shapes_model: bytes) -> None:
    builder = Int8Builder(shapes_model, windows(8, seed=1), method="minmax", threads=1)
    assert {chosen.method for chosen in builder.ranges("cpu").values()} == {"minmax"}


def test_long_steps_are_told(shapes_model: bytes) -> None:
    told: list[tuple[str, int, int]] = []
    builder = Int8Builder(
        shapes_model, windows(8, seed=1), threads=1, on_work=lambda *figures: told.append(figures)
    )
    builder.build("cpu")
    steps = dict.fromkeys(what for what, _, _ in told)
    assert list(steps) == ["observing", "choosing ranges for cpu", "rounding weights for cpu"]
    for step in steps:
        figures = [(done, total) for what, done, total in told if what == step]
        assert figures[-1][0] == figures[-1][1]
        assert figures == sorted(figures)
    told.clear()
    builder.build("cpu", [builder.layers[0].name])
    assert not told


@every_placement
def test_a_network_of_one_layer(placement: Placement) -> None:
    """Nothing is observed: its input are pixels, its output stays in float."""
    model = content(graph(node("Conv", "x w", "out", pads=[1, 1, 1, 1]), w=noise(4, 3, 3, 3)))
    builder = Int8Builder(model, IMAGES, threads=1)
    assert builder.observations == {}
    wanted = run_bytes(model, {"image": IMAGES})["out"]
    found = run_bytes(builder.build(placement), {"image": IMAGES})["out"]
    assert 0 < np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)


def test_pixels_are_not_rounded_on_their_way_to_the_first_layer() -> None:
    """On the CPU they stay bytes."""
    model = content(graph(node("Conv", "x w", "out", pads=[1, 1, 1, 1]), w=noise(4, 3, 3, 3)))
    made = onnx.load_from_string(Int8Builder(model, IMAGES, threads=1).build("cpu"))
    assert {each.op_type for each in made.graph.node} == {
        "Transpose", "Pad", "DequantizeLinear", "Mul", "Conv"
    }  # fmt: skip


@every_placement
def test_a_fixed_batch(placement: Placement) -> None:
    net = graph(
        node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Flatten", "r", "f"), node("Gemm", "f v", "out"),
        batch=4, w=noise(4, 3, 3, 3) / 255, v=noise(144, 3),
    )  # fmt: skip
    model = content(net)
    made = Int8Builder(model, IMAGES, threads=1).build(placement)
    found, wanted = (run_bytes(each, {"image": IMAGES[:4]})["out"] for each in (made, model))
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    with pytest.raises(InputError, match="fewer samples than the 4"):
        Int8Builder(model, IMAGES[:3], threads=1)


@every_placement
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_old_and_new_operators(placement: Placement, opset: int) -> None:
    """Pixels with a border of another level in each channel take the most of them."""
    net = graph(
        node("Mul", "x a", "scaled"), node("Add", "scaled b", "y"), node("Conv", "y w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"), node("Conv", "r v", "out"), opset=opset, w=noise(4, 3, 3, 3), v=noise(2, 4, 1, 1),
        a=np.full((1, 1, 1, 1), 1 / 64), b=np.reshape([-1.0, -2.0, -3.0], (1, 3, 1, 1)),
    )  # fmt: skip
    made = Int8Builder(content(net), IMAGES, threads=1).build(placement)
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    found, wanted = (run_bytes(each, {"image": IMAGES})["out"] for each in (made, content(net)))
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    "nodes", [[node("GlobalAveragePool", "x", "out")], [node("Conv", "x w", "out", auto_pad="VALID")]]
)
def test_a_network_without_layers(nodes: list[Any]) -> None:
    with pytest.raises(ModelError, match="nothing to quantise"):
        Int8Builder(content(graph(*nodes, w=noise(2, 3, 3, 3))), IMAGES)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    bias = np.array([0.0, bad])
    net = graph(
        node("Conv", "x w b", "c"), node("Conv", "c v", "out"), w=noise(2, 3, 3, 3), b=bias, v=noise(2, 2, 1, 1)
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"c \(layer c\): .* not finite"):
        Int8Builder(content(net), IMAGES, threads=1)
