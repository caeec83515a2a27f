"""Canonical ONNX → the same for readers of an older opset, such as the TensorRT of JetPack 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING

from edgecnn.converters.base import Arrow, model_errors
from edgecnn.converters.onnx_shapes import BATCH, infer, real_inputs, tensor_info
from edgecnn.errors import ModelError, require
from edgecnn.manifest import TensorInfo

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["OnnxToOlderOpset"]

OLDEST = 13  # per-channel QuantizeLinear came with it
# values of attributes and the opset that brought them, which the signature of an operator does not show
NEW_VALUES = {
    ("Pad", "mode", "wrap"): 19,
    ("Resize", "coordinate_transformation_mode", "half_pixel_symmetric"): 19,
    ("ScatterElements", "reduction", "max"): 18,
    ("ScatterElements", "reduction", "min"): 18,
    ("ScatterND", "reduction", "max"): 18,
    ("ScatterND", "reduction", "min"): 18,
}
# of GridSample since opset 20, and before
MODES = {"linear": "bilinear", "cubic": "bicubic"}


@dataclass(frozen=True)
class OnnxToOlderOpset(Arrow["onnx.ModelProto", "onnx.ModelProto"]):
    """Writes a model in an older opset, where all it consists of can be said in that.

    Attributes:
        opset: The newest that the reader knows.
    """

    opset: int

    name = "onnx_opset"

    def requires(self, source: onnx.ModelProto) -> None:
        """An opset that edgecnn writes."""
        require("onnx_ir", "convert")
        if self.opset < OLDEST:
            raise ModelError(f"opset {self.opset} is older than {OLDEST}, the oldest that edgecnn writes")

    def convert(self, source: onnx.ModelProto) -> onnx.ModelProto:
        """Rewrite what changed since, operator by operator."""
        import onnx_ir as ir
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        with model_errors(f"it cannot be written in opset {self.opset}"):
            model = ir.from_proto(source)
            newer = model.graph.opset_imports.get("", 0)
            if newer <= self.opset:
                return source
            sizes = tensor_info(real_inputs(source)[0]).shape
            shapes = infer(source, [BATCH if size is None else size for size in sizes])
            for node in list(model.graph.all_nodes()):
                if node.domain in ("", "ai.onnx"):
                    _rewrite(node, newer, self.opset, shapes)
            model.graph.opset_imports[""] = self.opset
            RemoveUnusedNodesPass()(model)
            made: onnx.ModelProto = ir.to_proto(model)
            return made

    def ensures(self, source: onnx.ModelProto, target: onnx.ModelProto) -> None:
        """Check that it is valid in the older opset."""
        import onnx

        with model_errors(f"it is not valid in opset {self.opset}"):
            onnx.checker.check_model(target, full_check=True)


def _rewrite(node: ir.Node, newer: int, older: int, shapes: Mapping[str, TensorInfo]) -> None:
    """Say what a node does in the words of an older opset.

    Args:
        node: Changed in place, or replaced by several.
        newer: The opset that it is in.
        older: The one to write.
        shapes: Of all values, by name.

    Raises:
        ModelError: That has none for it.
    """
    import onnx

    now = onnx.defs.get_schema(node.op_type, newer)
    if now.since_version <= older:
        return
    try:
        then = onnx.defs.get_schema(node.op_type, older)
    except onnx.defs.SchemaError:
        if node.op_type not in FORMULAS:
            raise _refusal(node, older, f"is new in opset {now.since_version}") from None
        _written_out(node)
        return
    if "axes" in then.attributes and "axes" not in now.attributes:
        _axes_to_attribute(node, older)
    if "num_outputs" in node.attributes:
        _parts_to_input(node, older, shapes)
    for name in sorted(set(node.attributes) - set(then.attributes)):
        # what is at its default does what there was before it
        if not _is_default(node, name, now):
            raise _refusal(node, older, f"has {name}, which opset {older} does not know")
        del node.attributes[name]
    for name, attribute in list(node.attributes.items()):
        if NEW_VALUES.get((node.op_type, name, attribute.value), 0) > older:
            raise _refusal(node, older, f"has {name} {attribute.value!r}, which opset {older} does not know")
    if node.op_type == "GridSample":
        _modes_as_before(node)
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
    if len(node.inputs) > then.max_input:
        raise _refusal(node, older, f"has {len(node.inputs)} inputs, there it takes {then.max_input}")


def _is_default(node: ir.Node, name: str, schema: onnx.defs.OpSchema) -> bool:
    import onnx

    known = schema.attributes.get(name)
    if known is None or not known.default_value.name:
        return False
    default = onnx.helper.get_attribute_value(known.default_value)
    value = node.attributes[name].value
    return bool(value == (default.decode() if isinstance(default, bytes) else default))


def _axes_to_attribute(node: ir.Node, older: int) -> None:
    """Reductions took their axes as an attribute before opset 18."""
    import onnx_ir as ir

    if len(node.inputs) < 2:
        return
    axes = node.inputs[1]
    if axes is not None:
        constant = ir.convenience.get_const_tensor(axes)
        if constant is None:
            raise _refusal(node, older, "has axes that are computed")
        node.attributes["axes"] = ir.AttrInt64s("axes", constant.numpy().tolist())
    node.resize_inputs(1)


def _parts_to_input(node: ir.Node, older: int, shapes: Mapping[str, TensorInfo]) -> None:
    """Since opset 18 the last part of a Split may be smaller; before it, unequal sizes had to be given."""
    import numpy as np
    import onnx_ir as ir

    source = node.inputs[0]
    info = shapes.get(source.name or "") if source is not None else None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = info.shape[axis] if info is not None else None
    if not isinstance(size, int):
        raise _refusal(node, older, "splits a size that is not known")
    count = node.attributes.pop("num_outputs").as_int()
    part = -(-size // count)
    if size % count == 0:
        return
    sizes = np.array([part] * (count - 1) + [size - part * (count - 1)], np.int64)
    graph = node.graph
    assert graph is not None
    value = ir.Value(name=f"{node.outputs[0].name}.sizes", const_value=ir.tensor(sizes))
    graph.register_initializer(value)
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _modes_as_before(node: ir.Node) -> None:
    """GridSample renamed its modes in opset 20."""
    import onnx_ir as ir

    mode = node.attributes.get_string("mode", "")
    if mode in MODES:
        node.attributes["mode"] = ir.AttrString("mode", MODES[mode])


def _mish(node: ir.Node, tape: ir.tape.Tape) -> ir.Value:
    """``x * tanh(ln(1 + exp(x)))``."""
    x = node.inputs[0]
    return tape.op("Mul", [x, tape.op("Tanh", [tape.op("Softplus", [x])])])


def _gelu(node: ir.Node, tape: ir.tape.Tape) -> ir.Value:
    """``x/2 * (1 + erf(x / √2))``, or with tanh ``x/2 * (1 + tanh(√(2/π) * (x + 0.044715 x³)))``."""
    import onnx_ir as ir

    def times(value: ir.Value | None, factor: float) -> ir.Value:
        return tape.op("Mul", [value, number(factor)])

    def number(value: float) -> ir.Value:
        name = f"{node.outputs[0].name}.{len(tape.initializers)}"
        return tape.initializer(ir.tensor(value, ir.DataType.FLOAT), name)

    x = node.inputs[0]
    if node.attributes.get_string("approximate", "none") == "tanh":
        cube = tape.op("Mul", [x, tape.op("Mul", [x, x])])
        inner = tape.op("Add", [x, times(cube, 0.044715)])
        curve = tape.op("Tanh", [times(inner, sqrt(2 / pi))])
    else:
        curve = tape.op("Erf", [times(x, sqrt(0.5))])
    return tape.op("Mul", [times(x, 0.5), tape.op("Add", [curve, number(1.0)])])


# what operators compute, in words that every opset has
FORMULAS: dict[str, Callable[[ir.Node, ir.tape.Tape], ir.Value]] = {"Gelu": _gelu, "Mish": _mish}


def _written_out(node: ir.Node) -> None:
    """Put what a node computes in its place."""
    import onnx_ir as ir

    assert node.graph is not None
    tape = ir.tape.Tape(node.graph)
    value = FORMULAS[node.op_type](node, tape)
    for position, step in enumerate(tape.nodes):
        step.name = f"{node.name}/{position}"
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], tape.nodes, node.outputs, [value])


def _refusal(node: ir.Node, older: int, why: str) -> ModelError:
    return ModelError(
        f"{node.name or node.outputs[0].name} ({node.op_type}): {why}, "
        f"and the device reads no newer opset than {older}; "
        "use another layer, or newer software on the device"
    )
