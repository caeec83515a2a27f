"""What INT8 is about in a graph: the layers with weights, and the tensors that share one range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ConvGeometry", "QuantLayer", "constant", "quant_layers", "tensor_groups"]

FUSED = ("Relu", "Clip")  # engines run these as part of the layer before them
ENDS = ("Softmax", "Sigmoid")
RESHAPING = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# these hand values on as they are, so a value that is on an 8-bit grid before them is on it behind them
PASSING = (
    "Concat",
    "Flatten",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """How a convolution of two dimensions looks at its input; pads are top, left, bottom, right."""

    kernel_hw: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class QuantLayer:
    """A layer with constant weights, which can run in INT8.

    Attributes:
        name: Name of its node, which is that of the user's module.
        op: ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul``.
        input: Tensor it reads.
        output: Tensor it gives, behind an activation that engines fuse with it.
        weight, bias: Names of its constants.
        channel_axis: Axis of the weight that counts the output channels.
        group: Groups of a convolution; 1 for others.
        geometry: Of a Conv with two dimensions; None for others.
        last: Its output goes nowhere but into a final activation or out of the graph.
    """

    name: str
    op: str
    input: str
    output: str
    weight: str
    bias: str | None
    channel_axis: int
    group: int = 1
    geometry: ConvGeometry | None = None
    last: bool = False


def quant_layers(model: ir.Model) -> tuple[QuantLayer, ...]:
    """The layers of a canonical model that INT8 can be used for, in the order of the graph."""
    return tuple(layer for node in model.graph if (layer := _layer(node)) is not None)


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array of a value that never changes, or None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def tensor_groups(model: ir.Model, tensors: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Tensors in groups that have to share one scale: those between which values only pass through.

    With one scale for what goes into a MaxPool, a Concat or a Reshape and what comes out of it, values are
    rounded once, and engines run such an operation on bytes.
    """
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    for node in model.graph:
        if node.op_type in PASSING:
            passed = [v for v in node.inputs if v is not None and constant(v) is None]
            for value in passed if node.op_type == "Concat" else passed[:1]:
                for output in node.outputs:
                    parents[root(str(value.name))] = root(str(output.name))
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(root(name), []).append(name)
    return tuple(map(tuple, groups.values()))


def _layer(node: ir.Node) -> QuantLayer | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
        return None
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or constant(node.inputs[0]) is not None:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not _plain(node, weight, bias):
        return None
    output = _fused(node.outputs[0])
    return QuantLayer(
        name=str(node.name),
        op=node.op_type,
        input=str(node.inputs[0].name),  # type: ignore[union-attr]
        output=str(output.name),
        weight=str(node.inputs[1].name),  # type: ignore[union-attr]
        bias=None if bias is None else str(bias.name),
        channel_axis=_channel_axis(node, weight),
        group=node.attributes.get_int("group", 1),
        geometry=_geometry(node, weight) if node.op_type == "Conv" and weight.ndim == 4 else None,
        last=_is_last(output),
    )


def _is_last(value: ir.Value) -> bool:
    """Whether a value goes nowhere but out of the graph: as it is, in another shape, or activated."""
    return all(
        (node.op_type in ENDS and node.outputs[0].is_graph_output())
        or (node.op_type in RESHAPING and _is_last(node.outputs[0]))
        for node, _ in value.uses()
    )


def _plain(node: ir.Node, weight: npt.NDArray[Any], bias: ir.Value | None) -> bool:
    """Of the forms that these operations can have, the one that layers of networks use."""
    if bias is not None:
        values = constant(bias)
        if values is None or values.shape != (weight.shape[_channel_axis(node, weight)],):
            return False
    if node.op_type == "Gemm":
        attributes = node.attributes
        return (
            attributes.get_int("transA", 0) == 0
            and attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1.0
        )
    if node.op_type == "MatMul":
        return weight.ndim == 2
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return False
    return node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"


def _channel_axis(node: ir.Node, weight: npt.NDArray[Any]) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1:
        return 0
    return weight.ndim - 1


def _fused(value: ir.Value) -> ir.Value:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type not in FUSED:
        return value
    return uses[0].node.outputs[0]


def _geometry(node: ir.Node, weight: npt.NDArray[Any]) -> ConvGeometry:
    def ints(name: str, default: tuple[int, ...]) -> Any:
        return tuple(node.attributes.get_ints(name, default))

    return ConvGeometry(
        kernel_hw=(weight.shape[2], weight.shape[3]),
        strides=ints("strides", (1, 1)),
        pads=ints("pads", (0, 0, 0, 0)),
        dilations=ints("dilations", (1, 1)),
    )
