"""fp16: close to float32, strongly typed, whole at both ends, and refusals that name the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgecnn import ModelSpec
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.errors import ModelError
from tests import models, shapes
from tests.converters.helpers import GUARDED, convert, images, run_bytes

SPEC = ModelSpec(task="classification", size_hw=(8, 8), activation="none", mean=(0.5,), std=(0.25,))


def in_half(model: bytes) -> onnx.ModelProto:
    return OnnxToFp16()(onnx.load_from_string(model))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def check_close(model: bytes, half: onnx.ModelProto, batch: Any, share: float = 0.02) -> None:
    """The outputs differ by a small share of their spread, and are the same by name, dtype and shape."""
    wanted, found = (run_bytes(m, {"image": batch}) for m in (model, half.SerializeToString()))
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=share * max(value.std(), 0.01 * np.abs(value).max())
        )


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_torchvision_networks(name: str) -> None:
    spec = ModelSpec(task="classification", size_hw=(64, 64), activation="none", scale=1 / 255)
    torch.manual_seed(0)
    converted = convert(f"torchvision:{name}", spec)
    half = in_half(converted.model)
    check_close(converted.model, half, images(spec))
    assert half.ByteSize() < 0.52 * len(converted.model)


def test_a_trained_network_decides_alike(shapes_module: nn.Module) -> None:
    converted = convert(shapes_module, shapes.SPEC)
    rng = np.random.default_rng(0)
    batch = np.stack([shapes.sample(rng)[0] for _ in range(200)])
    half = in_half(converted.model)
    wanted, found = (
        run_bytes(m, {"image": batch})["scores"] for m in (converted.model, half.SerializeToString())
    )
    np.testing.assert_allclose(found, wanted, atol=5e-3)
    assert (found.argmax(1) == wanted.argmax(1)).all()


def test_float16_begins_behind_the_preprocessing_and_ends_before_the_activation() -> None:
    spec = SPEC.replace(activation="softmax")
    half = in_half(convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3)), spec).model)
    kinds = types(half)
    order = [(node.op_type, kinds[node.output[0]]) for node in half.graph.node]
    float32, float16 = TensorProto.FLOAT, TensorProto.FLOAT16
    assert order == [
        ("Cast", float32), ("Transpose", float32), ("Mul", float32), ("Add", float32),
        ("Cast", float16), ("Conv", float16), ("Reshape", float16), ("Gemm", float16),
        ("Cast", float32), ("Softmax", float32),
    ]  # fmt: skip
    weights = {t.name: t.data_type for t in half.graph.initializer if "weight" in t.name}
    assert set(weights.values()) == {float16}


@pytest.mark.parametrize(
    "module",
    [
        models.Residual(),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-1e30, 0.2), nn.Flatten()),
        nn.Sequential(nn.BatchNorm2d(3), nn.PReLU(3), nn.AvgPool2d(2), nn.InstanceNorm2d(3)),
        models.Lambda(lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)),
        models.Lambda(lambda x: (x * 0.5 + 1.0).flatten(1)),
        models.Lambda(lambda x: nn.functional.layer_norm(x, x.shape[1:]).flatten(1)),
        models.Named(lambda c, b: {"classes": c, "box": b, "both": torch.cat([c, b], 1)}),
        # an output that the network goes on with, and one that is softmaxed inside
        models.Named(lambda c, b: {"classes": c, "more": torch.softmax(c, 1).sum(1) + c[:, 0]}),
        # an integer output beside a float one
        models.Named(lambda c, b: {"classes": c, "best": c.argmax(1)}),
    ],
)  # fmt: skip
def test_operations(module: nn.Module) -> None:
    torch.manual_seed(0)
    spec = SPEC.replace(task="tensors")
    converted = convert(module.eval(), spec)
    check_close(converted.model, in_half(converted.model), images(spec))


def graph_model(nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int = 17) -> bytes:
    """A model from uint8 `image` 1×4×4×3 to float `out`, made by hand."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 4, 4, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 4, 3])
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


BATCH = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
CAST = helper.make_node("Cast", ["image"], ["x"], "cast", to=TensorProto.FLOAT)


def test_a_constant_that_both_sides_read_is_held_twice() -> None:
    nodes = [
        CAST,
        helper.make_node("Mul", ["x", "c"], ["pixels"], "scale"),
        helper.make_node("Relu", ["pixels"], ["y"], "relu"),
        helper.make_node("Mul", ["y", "c"], ["out"], "mul"),
    ]
    model = graph_model(nodes, {"c": np.float32(0.01)})
    half = in_half(model)
    kinds = types(half)
    assert (kinds["c"], kinds["c.half"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    check_close(model, half, BATCH)


def test_branches_stay_in_float32_and_read_what_they_did() -> None:
    """Both branches read a value and a constant of the graph around them."""
    empty = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    then = helper.make_graph([helper.make_node("Mul", ["y", "c"], ["b"])], "then", [], [empty])
    other = helper.make_graph([helper.make_node("Add", ["y", "c"], ["b"])], "else", [], [empty])
    nodes = [
        CAST,
        helper.make_node("Relu", ["x"], ["y"], "relu"),
        helper.make_node("Add", ["y", "c"], ["z"], "add"),
        helper.make_node("ReduceMax", ["z"], ["top"], "top", keepdims=0),
        helper.make_node("Greater", ["top", "limit"], ["large"], "large"),
        helper.make_node("If", ["large"], ["w"], "if", then_branch=then, else_branch=other),
        helper.make_node("Add", ["w", "z"], ["out"], "last"),
    ]
    model = graph_model(nodes, {"c": np.float32(0.5), "limit": np.float32(100)})
    half = in_half(model)
    assert types(half)["z"] == TensorProto.FLOAT16
    check_close(model, half, BATCH)


def test_loops_stay_in_float32() -> None:
    """Doubles what it is given two times."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, []), info("v2", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        CAST,
        helper.make_node("Relu", ["x"], ["y"], "relu"),
        helper.make_node("Loop", ["twice", "", "y"], ["z"], "loop", body=body),
        helper.make_node("Relu", ["z"], ["out"], "last"),
    ]
    model = graph_model(nodes, {"twice": np.int64(2)})
    check_close(model, in_half(model), BATCH)


def test_a_limit_beyond_float16_is_a_limit_still_and_a_factor_is_refused() -> None:
    clip = helper.make_node("Clip", ["x", "low", "high"], ["y"], "clip")
    flip = helper.make_node("Where", ["yes", "y", "high"], ["out"], "where")
    constants = {"low": np.float32(-1e30), "high": np.float32(1e30), "yes": np.array(True)}
    model = graph_model([CAST, clip, flip], constants)
    check_close(model, in_half(model), BATCH)
    mul = helper.make_node("Mul", ["y", "high"], ["out"], "mul")
    with pytest.raises(ModelError, match=r"mul \(Mul\): its constant high holds 1e\+30"):
        in_half(graph_model([CAST, clip, mul], constants))


@pytest.mark.parametrize("name", GUARDED)
def test_what_keeps_a_divisor_from_zero_does_not_become_zero(name: str) -> None:
    spec = ModelSpec(task="tensors", size_hw=(8, 8), activation="none", scale=1.0)
    converted = convert(models.Lambda(lambda x: GUARDED[name](x.relu().flatten(1))), spec)
    batch = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 1)])
    check_close(converted.model, in_half(converted.model), batch)


@pytest.mark.parametrize(
    ("sizes", "left", "right"),
    [
        pytest.param((4, 4, 3), [1, 0, 2], (3, 3), id="on the left"),
        pytest.param((4, 4, 3), (4, 4), [1, 0, 2], id="on the right"),
        pytest.param((4, 3, 4), [1, 0, 2], [1, 2, 0], id="both"),
        pytest.param((4, 4, 3), [1, 0, 2], (1, 1, 3, 3), id="the other has more axes"),
        pytest.param((8, 6, 1), [1, 0, 2], (1,), id="the other is a vector"),
    ],
)
def test_products_that_onnx_runtime_dies_of(sizes: Any, left: Any, right: Any) -> None:
    """Operands are constants of the shape of a tuple, or transposed in the order of a list."""
    constants = {"sizes": np.array(sizes), "like": np.array([1, 4, 4, 3]), "scale": np.float32(0.01)}
    nodes = [
        CAST,
        helper.make_node("Mul", ["x", "scale"], ["pixels"], "scale"),
        helper.make_node("Sigmoid", ["pixels"], ["soft"], "soft"),
        helper.make_node("Reshape", ["soft", "sizes"], ["y"], "reshape"),
    ]
    for name, operand in (("left", left), ("right", right)):
        if isinstance(operand, list):
            nodes.append(helper.make_node("Transpose", ["y"], [name], name, perm=operand))
        else:
            constants[name] = np.random.default_rng(0).random(operand, np.float32)
    nodes += [
        helper.make_node("MatMul", ["left", "right"], ["z"], "product"),
        helper.make_node("Reshape", ["z", "like"], ["out"], "last"),
    ]
    model = graph_model(nodes, constants)
    half = in_half(model)
    makers = {node.output[0]: node.op_type for node in half.graph.node}
    product = next(node for node in half.graph.node if node.op_type == "MatMul")
    assert "Transpose" not in [makers.get(name) for name in product.input], "or this process ends here"
    assert product.name == "product"
    assert types(half)["z"] == TensorProto.FLOAT16
    check_close(model, half, BATCH)


def test_what_makes_floats_of_integers_is_cast_behind() -> None:
    nodes = [
        CAST,
        helper.make_node("Relu", ["x"], ["y"], "relu"),
        helper.make_node("Constant", [], ["shape"], "shape", value_ints=[1]),
        helper.make_node("ConstantOfShape", ["shape"], ["one"], "one", value=helper.make_tensor("v", 1, [1], [1.0])),
        helper.make_node("Constant", [], ["third"], "third", value_float=1 / 3),
        helper.make_node("Add", ["y", "one"], ["z"], "add"),
        helper.make_node("Mul", ["z", "third"], ["out"], "mul"),
    ]  # fmt: skip
    model = graph_model(nodes, {})
    half = in_half(model)
    assert types(half)["one.half"] == TensorProto.FLOAT16
    check_close(model, half, BATCH)


def test_the_source_is_left_as_it_was() -> None:
    source = onnx.load_from_string(convert(models.flat_net(8), SPEC).model)
    before = source.SerializeToString()
    OnnxToFp16()(source)
    assert source.SerializeToString() == before


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e7, r"0 \(Conv\): its constant 0\.weight holds 1e\+07, float16 ends at 65504; keep to fp32"),
        (1e-9, r"0 \(Conv\): its constant 0\.weight holds nothing above 1e-09, float16 makes that 0"),
    ],
)
def test_weights_that_float16_cannot_hold(factor: float, message: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with torch.no_grad():
        net[0].weight.fill_(factor)
    with pytest.raises(ModelError, match=message):
        in_half(convert(net, SPEC).model)


def test_a_bias_that_is_nearly_nothing_may_become_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with torch.no_grad():
        net[0].bias.fill_(1e-12)
    converted = convert(net, SPEC)
    check_close(converted.model, in_half(converted.model), images(SPEC))


def test_a_float_input_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    with pytest.raises(ModelError, match="input x is float32; fp16 is made from a model that takes uint8"):
        OnnxToFp16()(helper.make_model(graph))
