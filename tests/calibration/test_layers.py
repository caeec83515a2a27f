"""Which layers INT8 is for, and which tensors have to share a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgecnn.calibration.layers import ConvGeometry, QuantLayer, constant, quant_layers, tensor_groups
from tests.calibration.graphs import graph, node, noise

FLAT = node("Flatten", "x", "flat")  # (n, 192)


def only(model: ir.Model) -> QuantLayer:
    (layer,) = quant_layers(model)
    return layer


def test_a_convolution() -> None:
    model = graph(
        node("Conv", "x w b", "conv", pads=[1, 2, 3, 4], strides=[2, 1], dilations=[1, 2]),
        node("Relu", "conv", "active"),
        node("MaxPool", "active", "out", kernel_shape=[2, 2]),
        w=noise(4, 3, 3, 2),
        b=noise(4),
    )
    assert only(model) == QuantLayer(
        name="conv",
        op="Conv",
        input="x",
        output="active",
        weight="w",
        bias="b",
        channel_axis=0,
        group=1,
        geometry=ConvGeometry(kernel_hw=(3, 2), strides=(2, 1), pads=(1, 2, 3, 4), dilations=(1, 2)),
        last=False,
    )


def test_defaults_of_a_convolution() -> None:
    layer = only(graph(node("Conv", "x w", "out", group=3), w=noise(6, 1, 1, 1)))
    assert (layer.bias, layer.group, layer.last) == (None, 3, True)
    assert layer.geometry == ConvGeometry(
        kernel_hw=(1, 1), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)
    )


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "axis"),
    [
        ("Gemm", (192, 5), {}, 1),
        ("Gemm", (5, 192), {"transB": 1}, 0),
        ("Gemm", (192, 5), {"transA": 0, "alpha": 1.0, "beta": 1.0}, 1),
        ("MatMul", (192, 5), {}, 1),
    ],
)
def test_dense_layers(op: str, shape: tuple[int, int], attributes: dict[str, Any], axis: int) -> None:
    layer = only(graph(FLAT, node(op, "flat w", "out", **attributes), w=noise(*shape)))
    assert (layer.name, layer.op, layer.input, layer.output) == ("out", op, "flat", "out")
    assert (layer.channel_axis, layer.geometry, layer.group, layer.bias) == (axis, None, 1, None)


def test_a_transposed_convolution() -> None:
    layer = only(graph(node("ConvTranspose", "x w b", "out"), w=noise(3, 4, 2, 2), b=noise(4)))
    assert (layer.op, layer.channel_axis, layer.geometry, layer.bias) == ("ConvTranspose", 1, None, "b")


def test_a_convolution_of_one_dimension() -> None:
    model = graph(
        node("Reshape", "x rows", "flat"), node("Conv", "flat w", "out"), w=noise(4, 3, 3), rows=[0, 3, 64]
    )
    assert only(model).geometry is None


@pytest.mark.parametrize(
    ("layers", "constants"),
    [
        ([node("Conv", "x dynamic", "out")], {"w": noise(2, 3, 3, 3)}),
        ([node("MatMul", "x dynamic", "out")], {"w": noise(8, 8)}),
        ([node("Conv", "x w", "out", auto_pad="SAME_UPPER")], {"w": noise(2, 3, 3, 3)}),
        ([node("ConvTranspose", "x w", "out", auto_pad="VALID")], {"w": noise(3, 2, 3, 3)}),
        ([node("ConvTranspose", "x w", "out", group=3)], {"w": noise(3, 2, 3, 3)}),
        ([FLAT, node("Gemm", "flat w", "out", alpha=0.5)], {"w": noise(192, 2)}),
        ([FLAT, node("Gemm", "flat w b", "out", beta=2.0)], {"w": noise(192, 2), "b": noise(2)}),
        ([FLAT, node("Gemm", "flat w", "out", transA=1)], {"w": noise(1, 5)}),
        ([FLAT, node("Gemm", "flat w b", "out")], {"w": noise(192, 2), "b": noise(1, 2)}),
        ([FLAT, node("Gemm", "flat w b", "out")], {"w": noise(192, 2), "b": noise(1)}),
        ([node("MatMul", "x w", "out")], {"w": noise(1, 3, 8, 5)}),
        ([node("MatMul", "w x", "out")], {"w": noise(5, 8)}),
        ([FLAT, node("MatMul", "w v", "y"), node("Add", "flat y", "out")], {"w": noise(1, 2), "v": noise(2, 192)}),
    ],
)  # fmt: skip
def test_what_is_no_layer(layers: list[Any], constants: dict[str, Any]) -> None:
    if "dynamic" in layers[0].input:
        layers = [node("Abs", "w", "dynamic"), *layers]
    batch = 1 if "transA" in str(layers) else "batch"
    assert quant_layers(graph(*layers, batch=batch, **constants)) == ()


def test_weights_that_a_caller_may_replace_are_no_constants() -> None:
    model = graph(node("Conv", "x w", "out"), w=noise(2, 3, 3, 3))
    model.graph.inputs.append(model.graph.initializers["w"])
    assert quant_layers(model) == ()


@pytest.mark.parametrize(
    ("behind", "output"),
    [
        ([node("Relu", "c", "out")], "out"),
        ([node("Clip", "c low high", "out")], "out"),
        ([node("HardSwish", "c", "out")], "c"),
        ([node("Relu", "c", "r"), node("Relu", "r", "out")], "r"),
        ([node("Relu", "c", "r"), node("Add", "c r", "out")], "c"),
    ],
)
def test_the_activation_that_is_fused(behind: list[Any], output: str) -> None:
    model = graph(node("Conv", "x w", "c"), *behind, w=noise(2, 3, 3, 3), low=0.0, high=6.0)
    assert only(model).output == output


def test_an_output_of_the_graph_is_not_fused_away() -> None:
    model = graph(
        node("Conv", "x w", "c"), node("Relu", "c", "out"), outputs=["out", "c"], w=noise(2, 3, 3, 3)
    )
    assert (only(model).output, only(model).last) == ("c", False)


@pytest.mark.parametrize(
    ("behind", "outputs", "last"),
    [
        ([], ["y"], True),
        ([node("Softmax", "y", "out")], ["out"], True),
        ([node("Sigmoid", "y", "out")], ["out"], True),
        ([node("Softmax", "y", "out")], ["out", "y"], True),
        ([node("Softmax", "y", "s"), node("Neg", "s", "out")], ["out"], False),
        ([node("Softmax", "y", "out"), node("Neg", "y", "n")], ["out", "n"], False),
        ([node("Reshape", "y rows", "out")], ["out"], True),
        ([node("Reshape", "y rows", "r"), node("Softmax", "r", "out")], ["out"], True),
        ([node("Reshape", "y rows", "r"), node("Neg", "r", "out")], ["out"], False),
    ],
)
def test_the_last_layer(behind: list[Any], outputs: list[str], last: bool) -> None:
    model = graph(
        FLAT, node("Gemm", "flat w", "y"), *behind, outputs=outputs, w=noise(192, 4), rows=[0, 2, 2]
    )
    assert only(model).last == last


def test_constants() -> None:
    model = graph(node("Add", "x one", "out"), one=1.0)
    assert constant(model.graph.initializers["one"]) == np.float32(1)
    assert constant(model.graph.inputs[0]) is None
    assert constant(None) is None


def test_layers_come_in_the_order_of_the_graph() -> None:
    model = graph(
        node("Conv", "x w", "second"), node("Conv", "second w", "first"), FLAT,
        node("MatMul", "flat v", "y"), outputs=["first", "y"], w=noise(3, 3, 1, 1), v=noise(192, 2),
    )  # fmt: skip
    assert [layer.name for layer in quant_layers(model)] == ["second", "first", "y"]


POOL = node("MaxPool", "a", "pooled", kernel_shape=[1, 1])


@pytest.mark.parametrize(
    ("nodes", "groups"),
    [
        ([node("Neg", "a", "out")], [("a",), ("b",), ("out",)]),
        ([POOL, node("Neg", "pooled", "out")], [("a", "pooled"), ("b",), ("out",)]),
        ([node("Concat", "a b", "out", axis=1)], [("a", "b", "out")]),
        ([POOL, node("Concat", "pooled x", "out", axis=1)], [("a", "pooled", "out", "x"), ("b",)]),
        ([node("Concat", "a zeros", "out", axis=0)], [("a", "out"), ("b",)]),
        ([node("Reshape", "a rows", "flat"), node("Relu", "flat", "out")], [("a", "flat"), ("b",), ("out",)]),
        ([node("Split", "a", "left out", axis=2, num_outputs=2)], [("a", "left", "out"), ("b",)]),
        ([node("AveragePool", "a", "out", kernel_shape=[1, 1])], [("a",), ("b",), ("out",)]),
    ],
)
def test_tensors_that_share_a_scale(nodes: list[Any], groups: list[tuple[str, ...]]) -> None:
    model = graph(
        node("Abs", "x", "a"), node("Neg", "x", "b"), *nodes, rows=[0, 192], zeros=np.zeros((1, 3, 8, 8))
    )
    asked = ["a", "b", *(name for each in nodes for name in each.output), "x"]
    # x itself is asked for only where it is passed on
    asked = [name for name in asked if any(name in group for group in groups)]
    assert {frozenset(group) for group in tensor_groups(model, asked)} == set(map(frozenset, groups))


def test_only_tensors_that_are_asked_for_are_grouped() -> None:
    model = graph(node("Abs", "x", "a"), POOL, node("Flatten", "pooled", "out"))
    assert tensor_groups(model, ["out", "a"]) == (("out", "a"),)
    assert tensor_groups(model, []) == ()
