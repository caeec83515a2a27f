"""OpenVINO IR: what it keeps, that INT8 stays INT8, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from edgecnn import ModelSpec
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters.onnx_openvino import OnnxToOpenVino, OpenVinoIr
from edgecnn.errors import CompilerFailed, MissingDependency, ModelError
from edgecnn.isolation import Limits
from edgecnn.manifest import TensorInfo
from edgecnn.openvino_api import compile_model, read_model, try_out
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from tests import models
from tests.calibration.graphs import pixels
from tests.converters.helpers import convert, images, run_bytes
from tests.models import trained_statistics
from tests.paths import ROOT, engine

engine("openvino")

FACE = ROOT / "edgecnn" / "models" / "face.edge"
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
IMAGENET = ModelSpec(
    task="classification",
    size_hw=(16, 16),
    labels=("a", "b", "c"),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
CENTRED = msgspec.structs.replace(IMAGENET, mean=(0.5,) * 3, std=(0.5,) * 3)
SPECS = {"imagenet": IMAGENET, "centred": CENTRED}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))


def run_ir(ir: OpenVinoIr, batch: np.ndarray[Any, Any]) -> dict[str, Any]:
    compiled = compile_model(read_model(ir.xml, ir.weights), "CPU", EXACT)
    return dict(zip([o.name for o in ir.outputs], compiled([batch]).to_tuple()))


def layers(padding: int) -> nn.Module:
    """A plain, a depthwise and a pointwise convolution, a residual sum and a fully connected layer."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
                nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = x + self.body(x)
            return out

    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=padding)
    return trained_statistics(
        nn.Sequential(stem, nn.ReLU(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    )


def graph(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], dtype: int = TensorProto.UINT8) -> bytes:
    """ONNX from ``image`` (batch, 4, 4, 1) to outputs of the same shape."""
    shape = ["batch", 4, 4, 1]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(np.array([-1]), "all")],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]
    return bytes(helper.make_model(made, opset_imports=imports, ir_version=10).SerializeToString())


def cast() -> onnx.NodeProto:
    return helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)


@pytest.fixture(scope="module")
def float_model() -> bytes:
    return convert(layers(1), IMAGENET).model


@cache
def int8_builder(spec: str, padding: int) -> Int8Builder:
    model = convert(layers(padding), SPECS[spec]).model
    return Int8Builder(model, pixels(8, 16, 16, 3), method="minmax", threads=1)


def test_it_computes_the_same_for_any_batch(float_model: bytes) -> None:
    ir = OnnxToOpenVino()(float_model)
    assert ir.inputs == (TensorInfo(name="image", dtype="uint8", shape=(None, 16, 16, 3)),)
    assert ir.outputs == (TensorInfo(name="scores", dtype="float32", shape=(None, 3)),)
    assert ir.facts["int8_layers"] == "0 of 4"
    for count in (1, 5):
        batch = images(IMAGENET, count)
        wanted = run_bytes(float_model, {"image": batch})["scores"]
        np.testing.assert_allclose(run_ir(ir, batch)["scores"], wanted, atol=1e-5)


def test_a_fixed_batch_stays_fixed() -> None:
    ir = OnnxToOpenVino()(convert(layers(1), IMAGENET, batch=2).model)
    assert (ir.inputs[0].shape, ir.outputs[0].shape) == ((2, 16, 16, 3), (2, 3))


def test_compressed_weights_take_half_and_change_little(float_model: bytes) -> None:
    plain, half = (OnnxToOpenVino(compress=compress)(float_model) for compress in (False, True))
    assert len(half.weights) < 0.7 * len(plain.weights)
    batch = images(IMAGENET, 4)
    difference = np.abs(run_ir(plain, batch)["scores"] - run_ir(half, batch)["scores"]).max()
    assert 0 < difference < 1e-2


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_model_gives_the_same_bytes(float_model: bytes, compress: bool) -> None:
    first, second = (OnnxToOpenVino(compress=compress)(float_model) for _ in range(2))
    assert first == second
    for place in (str(Path.home()), "/tmp", str(ROOT)):
        assert place.encode() not in first.xml


@pytest.mark.parametrize(("spec", "padding"), [("centred", 0), ("centred", 1), ("imagenet", 1)])
def test_int8_runs_in_int8(spec: str, padding: int) -> None:
    """Every layer, the one that reads pixels among them: with no border, one of one level, one of three."""
    model = int8_builder(spec, padding).build("cpu")
    ir = OnnxToOpenVino()(model)
    assert ir.facts["int8_layers"] == "4 of 4"
    batch = images(SPECS[spec], 3)
    wanted = run_bytes(model, {"image": batch})["scores"]
    np.testing.assert_allclose(run_ir(ir, batch)["scores"], wanted, atol=0.02)


def _weighed_pool(x: torch.Tensor) -> torch.Tensor:
    x = x.relu()
    return functional.avg_pool2d(x * x, 2) / (functional.avg_pool2d(x, 2) + 1e-4)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: functional.avg_pool2d(x, 3, 2, 1),
        lambda x: functional.avg_pool2d(functional.max_pool2d(x, 2), 3, 1, 1),
        _weighed_pool,
    ],
    ids=["border", "border of another pool", "sums behind it"],
)
def test_int8_average_pools(pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A border counts as zero, not as the lowest value, and means are not rounded to bytes."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), models.Lambda(pool), nn.Conv2d(8, 8, 1))
    spec = ModelSpec(task="tensors", size_hw=(16, 16), activation="none")
    model = Int8Builder(convert(module, spec).model, images(spec, 8), method="minmax", threads=1).build("cpu")
    batch = images(spec, 2, seed=1)
    wanted = run_bytes(model, {"image": batch})["output"]
    found = run_ir(OnnxToOpenVino()(model), batch)["output"]
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())


class Tokens(nn.Module):
    """Places of a convolution's map as tokens, one more in front, and a layer for them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.layer(torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1))


class NormedLinear(nn.Module):
    """A fully connected layer and a BatchNorm1d, which takes tokens of all images together."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.linear(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: Tokens(nn.LayerNorm(8)), "1 of 1"),
        (lambda: Tokens(nn.Linear(8, 8)), "2 of 2"),
        (lambda: Tokens(nn.Sequential(nn.LayerNorm(8), NormedLinear())), "2 of 2"),
    ],
    ids=["a bias beside a batch of tokens", "joined tokens", "tokens of all images"],
)
def test_int8_tokens(make: Callable[[], nn.Module], layers: str) -> None:
    """OpenVINO gets channels wrong by itself: adds the wrong bias, or its compiler stops."""
    torch.manual_seed(0)
    module = trained_statistics(make())
    spec = ModelSpec(task="tensors", size_hw=(16, 16), activation="none")
    model = Int8Builder(convert(module, spec).model, images(spec, 8), method="minmax", threads=1).build("cpu")
    ir = OnnxToOpenVino()(model)
    assert ir.facts["int8_layers"] == layers
    with backend("openvino")(Artifact("onnx", model), RuntimeOptions(threads=1)) as runtime:
        for count in (1, 3):
            batch = images(spec, count, seed=1)
            wanted = run_bytes(model, {"image": batch})["output"]
            for found in (run_ir(ir, batch), runtime.run({"image": batch})):
                np.testing.assert_allclose(found["output"], wanted, atol=0.02 * np.abs(wanted).max())


def test_layers_that_were_left_in_float_stay_there() -> None:
    builder = int8_builder("imagenet", 1)
    model = builder.build("cpu", [builder.layers[1].name])
    assert OnnxToOpenVino()(model).facts["int8_layers"] == "3 of 4"


@pytest.mark.parametrize(("file", "layers"), [("model.onnx", "0 of 7"), ("model.int8.onnx", "7 of 7")])
def test_the_face_model(file: str, layers: str) -> None:
    assert OnnxToOpenVino()((FACE / file).read_bytes()).facts["int8_layers"] == layers


def test_arithmetic_is_told_by_layer(float_model: bytes) -> None:
    assert set(try_out(float_model, b"", "CPU", EXACT)["arithmetic"].values()) == {"f32"}


def test_outputs_keep_names_and_order() -> None:
    """Also where OpenVINO drops the operation that made the name."""
    nodes = [
        cast(),
        helper.make_node("Relu", ["float"], ["z/relu.1"], name="relu"),
        helper.make_node("Identity", ["z/relu.1"], ["scores"]),
        helper.make_node("Identity", ["scores"], ["a"]),
        helper.make_node("Neg", ["float"], ["b:0"]),
    ]
    names = ["scores", "b:0", "z/relu.1", "a"]
    ir = OnnxToOpenVino()(graph(nodes, names))
    assert [info.name for info in ir.outputs] == names
    found = run_ir(ir, np.ones((1, 4, 4, 1), np.uint8))
    assert {name: float(value.mean()) for name, value in found.items()} == {
        "scores": 1.0, "b:0": -1.0, "z/relu.1": 1.0, "a": 1.0,
    }  # fmt: skip


def test_progress_is_told(float_model: bytes) -> None:
    seen: list[tuple[str, int, int]] = []
    OnnxToOpenVino(on_work=lambda *step: seen.append(step))(float_model)
    assert seen == [("reading", 0, 3), ("writing", 1, 3), ("compiling", 2, 3)]


@pytest.mark.parametrize("content", [b"junk", (FACE / "model.onnx").read_bytes()[:-100]])
def test_junk_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"not an ONNX model|OpenVINO refuses it") as caught:
        OnnxToOpenVino()(content)
    assert "\n" not in str(caught.value)


def test_what_takes_floats_is_refused() -> None:
    with pytest.raises(ModelError, match="input image is float32; IR is made from a model that takes uint8"):
        OnnxToOpenVino()(graph([helper.make_node("Relu", ["image"], ["out"])], ["out"], TensorProto.FLOAT))


def test_unknown_operations_are_named_with_their_place() -> None:
    nodes = [
        cast(),
        helper.make_node("Frobnicate", ["float"], ["b"], name="layer3/frob", domain="acme"),
        helper.make_node("Det", ["b"], ["out"], name="layer4/det"),
    ]
    with pytest.raises(ModelError) as caught:
        OnnxToOpenVino()(graph(nodes, ["out"]))
    text = str(caught.value)
    assert "\n" not in text
    assert "No conversion rule found for operations: Det-18, acme.Frobnicate" in text
    assert text.endswith(": layer3/frob (Frobnicate), layer4/det (Det)")


@pytest.mark.parametrize(("op", "name", "value"), [("Resize", "antialias", 1), ("Pad", "mode", "wrap")])
def test_what_it_would_misread_is_refused(op: str, name: str, value: Any) -> None:
    """Where the sizes are known the canonical model has other operations in their place."""
    nodes = [cast(), helper.make_node(op, ["float", "all"], ["out"], name="layer1", **{name: value})]
    with pytest.raises(ModelError, match=rf"layer1 \({op}\): OpenVINO does not know its {name} in this form"):
        OnnxToOpenVino()(graph(nodes, ["out"]))


def test_operands_that_do_not_fit_are_told_in_one_line() -> None:
    nodes = [
        cast(),
        helper.make_node("Reshape", ["float", "all"], ["flat"]),
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.ones((2, 3), np.float32))),
        helper.make_node("MatMul", ["two", "two"], ["bad"], name="head/matmul"),
        helper.make_node("Add", ["flat", "bad"], ["out"]),
    ]
    with pytest.raises(ModelError, match="head/matmul") as caught:
        OnnxToOpenVino()(graph(nodes, ["out"]))
    assert "\n" not in str(caught.value)


def test_limits_hold(float_model: bytes) -> None:
    with pytest.raises(CompilerFailed, match=r"OpenVINO's compiler took more than 0\.01 s"):
        OnnxToOpenVino(limits=Limits(seconds=0.01))(float_model)


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": ()},
        {"inputs": (TensorInfo(name="image", dtype="float32", shape=(None, 16, 16, 3)),)},
        {"outputs": (TensorInfo(name="other", dtype="float32", shape=(None, 3)),)},
        {"outputs": (TensorInfo(name="scores", dtype="float32", shape=(None, 4)),)},
    ],
)
def test_what_was_made_is_checked(float_model: bytes, change: dict[str, Any]) -> None:
    arrow = OnnxToOpenVino()
    made = arrow.convert(float_model)
    arrow.ensures(float_model, made)
    with pytest.raises(ModelError, match=r"the IR has the (in|out)puts .* where the model has"):
        arrow.ensures(float_model, replace(made, **change))


def test_a_missing_openvino_says_its_cure(monkeypatch: pytest.MonkeyPatch, float_model: bytes) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgecnn\[openvino\]'"):
        OnnxToOpenVino()(float_model)
