"""Canonical ONNX → the same network with weights and arithmetic in float16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecnn.converters.base import Arrow, model_errors
from edgecnn.converters.onnx_names import free_name
from edgecnn.converters.onnx_shapes import tensor_info
from edgecnn.errors import ModelError, require
from edgecnn.manifest import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    import onnx_ir as ir

    Definitions = dict[ir.Node, onnx.defs.OpSchema]

__all__ = ["HALF", "OnnxToFp16"]

HALF = ".half"  # behind the name of a value's float16 form, where it exists in float32 too
STANDARD = ("", "ai.onnx")  # names of the domain of ONNX's own operations
FLOAT16_MAX = 65504.0
FLOAT16_LEAST = 2.0**-24
# what these do to pixels before the first layer stays exact: 255 levels are not yet a feature
PIXELWISE = ("Transpose", "Cast", "Mul", "Add", "Sub", "Div", "Slice", "Gather", "Unsqueeze", "Concat")
ACTIVATIONS = ("Softmax", "Sigmoid")
# constants of these are limits and fillers: where one is beyond float16, its largest value does as well
BOUNDING = ("Clip", "Max", "Min", "Pad", "Where")
# a number that is nearly 0 keeps a divisor or a logarithm away from 0 here, and float16 must not make it 0
GUARDING = ("Clip", "Max", "Add", "Sub")


@dataclass(frozen=True)
class OnnxToFp16(Arrow["onnx.ModelProto", "onnx.ModelProto"]):
    """Puts a canonical model into float16, strongly typed: an operation reads floats of one kind only.

    The uint8 input and float32 outputs stay. So do the preprocessing, the activation at the end, casts,
    branches, and operations that ONNX defines for float32 alone. Values keep their names; one that is
    needed in both kinds has the float16 form under its name and `HALF`.
    """

    name = "onnx_fp16"

    def requires(self, source: onnx.ModelProto) -> None:
        """A canonical model: no float input."""
        require("onnx_ir", "convert")
        for value in source.graph.input:
            if tensor_info(value).dtype != "uint8":
                raise ModelError(
                    f"input {value.name} is {tensor_info(value).dtype}; fp16 is made from a model that takes "
                    "uint8, with its preprocessing inside"
                )

    def convert(self, source: onnx.ModelProto) -> onnx.ModelProto:
        """Convert the weights and put casts where float16 begins and ends."""
        with model_errors("it cannot be put into float16"):
            return _rewritten(source)

    def ensures(self, source: onnx.ModelProto, target: onnx.ModelProto) -> None:
        """Check that it is valid and that its input and outputs are those of the source."""
        import onnx

        with model_errors("the float16 model is not valid"):
            onnx.checker.check_model(target, full_check=True)
        for wanted, found in zip(_ends(source), _ends(target)):
            if wanted != found:
                raise ModelError(f"the float16 model has {found} where the model has {wanted}")


def _ends(model: onnx.ModelProto) -> list[TensorInfo]:
    return [tensor_info(value) for value in (*model.graph.input, *model.graph.output)]


def _rewritten(source: onnx.ModelProto) -> onnx.ModelProto:
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    model = ir.from_proto(onnx.shape_inference.infer_shapes(source, data_prop=True))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    graph = model.graph
    opset = next(graph.opset_imports[domain] for domain in STANDARD if domain in graph.opset_imports)
    half = _half_nodes(graph, opset)
    for value in list(graph.initializers.values()):
        if _is_float(value):
            _retype_constant(graph, value, half)
    for node in list(graph):
        for value in node.outputs:
            if _is_float(value):
                _retype_result(graph, value, node, half)
    for node in list(graph):
        if node.op_type == "MatMul" and node in half:
            _shield(graph, node)
    proto: onnx.ModelProto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def _is_float(value: ir.Value | None) -> bool:
    import onnx_ir as ir

    return value is not None and value.type == ir.TensorType(ir.DataType.FLOAT)


def _half_nodes(graph: ir.Graph, opset: int) -> Definitions:
    """Nodes that compute in float16, with their definitions."""
    found, pixels = {}, set(graph.inputs)
    for node in graph:
        read = {value for value in node.inputs if value is not None and not value.is_initializer()}
        if node.op_type in PIXELWISE and read and read <= pixels:
            pixels.update(node.outputs)
        elif not (node.op_type in ACTIVATIONS and node.outputs[0].is_graph_output()):
            definition = _half_definition(node, opset)
            if definition is not None:
                found[node] = definition
    return found


def _half_definition(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    """The definition of an operation that makes floats of floats and may do so in float16."""
    import onnx
    import onnx_ir as ir

    branches = any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()
    )
    if branches or node.op_type == "Cast" or node.domain not in STANDARD:
        return None
    definition = onnx.defs.get_schema(node.op_type, opset)
    reads = [i for i, value in enumerate(node.inputs) if _is_float(value)]
    gives = [i for i, value in enumerate(node.outputs) if _is_float(value)]
    possible = any(_allows_half(definition.inputs, i) for i in reads)
    return definition if possible and all(_allows_half(definition.outputs, i) for i in gives) else None


def _allows_half(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], position: int) -> bool:
    # the last parameter may stand for any number
    return "tensor(float16)" in parameters[min(position, len(parameters) - 1)].types


def _half_uses(value: ir.Value, half: Definitions) -> list[tuple[ir.Node, int]]:
    return [(n, i) for n, i in value.uses() if n in half and _allows_half(half[n].inputs, i)]


def _retype_constant(graph: ir.Graph, value: ir.Value, half: Definitions) -> None:
    """Round a constant, or a copy of it where float32 is needed as well."""
    import onnx_ir as ir

    uses = _half_uses(value, half)
    if not uses or value.const_value is None:
        return
    users = [node for node, _ in uses]
    user = next((node for node in users if node.op_type not in BOUNDING), users[0])
    rounded = ir.tensor(_rounded(value.const_value.numpy(), value, user))
    if len(uses) == len(value.uses()) and not value.is_graph_output():
        value.const_value, value.dtype = rounded, rounded.dtype
        return
    copy = ir.Value(name=_half_name(graph, value), const_value=rounded)
    graph.register_initializer(copy)
    for node, position in uses:
        node.replace_input_with(position, copy)


def _rounded(exact: npt.NDArray[np.float32], value: ir.Value, node: ir.Node) -> npt.NDArray[np.float16]:
    import numpy as np

    if node.op_type in BOUNDING:
        exact = np.where(np.isfinite(exact), exact.clip(-FLOAT16_MAX, FLOAT16_MAX), exact)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float16)
    if node.op_type in GUARDING and exact.size == 1 and exact.any() and not rounded.any():
        rounded = np.where(exact > 0, FLOAT16_LEAST, -FLOAT16_LEAST).astype(np.float16)
    lost = np.isinf(rounded) & np.isfinite(exact)
    what = f"{node.name} ({node.op_type}): its constant {value.name}"
    if lost.any():
        raise ModelError(
            f"{what} holds {exact[lost].flat[0]:.3g}, float16 ends at {FLOAT16_MAX:.0f}; keep to fp32"
        )
    if exact.ndim > 1 and exact.any() and not rounded.any():
        raise ModelError(
            f"{what} holds nothing above {np.abs(exact).max():.3g}, float16 makes that 0; keep to fp32"
        )
    return rounded


def _retype_result(graph: ir.Graph, value: ir.Value, node: ir.Node, half: Definitions) -> None:
    """Give a computed value its new type, and a cast to those who need the other one."""
    import onnx_ir as ir

    uses = _half_uses(value, half)
    if node not in half:
        if uses:
            twin = _cast(graph, node, value, ir.DataType.FLOAT16)
            twin.name = _half_name(graph, value)
            for user, position in uses:
                user.replace_input_with(position, twin)
        return
    others = [use for use in value.uses() if use not in uses]
    output = value.is_graph_output()
    if others or output:
        twin = _cast(graph, node, value, ir.DataType.FLOAT)
        twin.name, value.name = value.name, _half_name(graph, value)
        for user, position in others:
            user.replace_input_with(position, twin)
        if output:
            graph.outputs[:] = [twin if v is value else v for v in graph.outputs]
    value.dtype = ir.DataType.FLOAT16


def _cast(graph: ir.Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    import onnx_ir as ir

    cast = ir.node("Cast", [value], {"to": dtype}, name=f"edgecnn/Cast_{value.name}")
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    graph.insert_after(node, cast)
    return cast.outputs[0]


def _shield(graph: ir.Graph, product: ir.Node) -> None:
    """Compute a product with an axis more in front where a Transpose moves the first axis of an operand.

    ONNX Runtime, from 1.24 on, fuses such a Transpose with a product of float16 and then dies of it on x86
    (https://github.com/microsoft/onnxruntime/issues/28392). What has the axis it leaves alone.
    """
    import numpy as np
    import onnx_ir as ir

    if not any(_first_axis_moved(value) for value in product.inputs):
        return
    tape = ir.tape.Tape(graph)
    axis = tape.initializer(ir.tensor(np.array([0])), f"{product.outputs[0].name}.axis")
    operands = [tape.op("Unsqueeze", [v, axis]) if _rank(v) > 2 else v for v in product.inputs]
    result = tape.op("Squeeze", [tape.op("MatMul", operands, name=product.name), axis])
    ir.convenience.replace_nodes_and_values(graph, product, [product], tape.nodes, product.outputs, [result])


def _first_axis_moved(value: ir.Value | None) -> bool:
    """Whether it is transposed from [M, ..., K] to [..., M, K] or [..., K, M]."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Transpose" or _rank(value) < 3:
        return False
    inner = list(range(1, _rank(value) - 1))
    return list(node.attributes.get_ints("perm", []))[: len(inner)] == inner


def _rank(value: ir.Value | None) -> int:
    """Its number of axes, or 0 where that is not known."""
    return 0 if value is None or value.shape is None else value.shape.rank()


def _half_name(graph: ir.Graph, value: ir.Value) -> str:
    name = f"{value.name}{HALF}"
    free_name(graph, name)
    return name
