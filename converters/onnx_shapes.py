"""Shapes of all values of an ONNX model, inferred without moving its weights about."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from edgecnn.converters.base import model_errors
from edgecnn.errors import ModelError
from edgecnn.manifest import TensorInfo

if TYPE_CHECKING:
    import onnx

__all__ = ["BATCH", "infer", "real_inputs", "tensor_info"]

BATCH = "batch"  # the size of an open batch, in every graph and manifest
# tensors up to this many values may be shapes or axes, which inference reads; larger ones are weights
SHAPE_VALUES_MAX = 1024


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """List the inputs that a caller feeds; old models list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def infer(model: onnx.ModelProto, input_shape: Sequence[int | str]) -> dict[str, TensorInfo]:
    """Dtype and shape of every value of the main graph, for a shape of its only input.

    Values inside whose shape cannot be inferred are absent; sizes that cannot be are None.

    Raises:
        ModelError: The shape of an output cannot be inferred, as where operands do not fit each other.
    """
    import onnx

    with model_errors("its shapes cannot be inferred"):
        bare = _without_weights(model)
        value = real_inputs(bare)[0]
        value.type.tensor_type.shape.CopyFrom(
            onnx.helper.make_tensor_type_proto(1, list(input_shape)).tensor_type.shape
        )
        for output in bare.graph.output:
            output.type.tensor_type.ClearField("shape")
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
        lost = [v.name for v in graph.output if not v.type.tensor_type.HasField("shape")]
        if lost:  # the lenient run keeps the reason to itself
            onnx.shape_inference.infer_shapes(bare, data_prop=True, strict_mode=True)
            raise ModelError(f"the shape of output {lost[0]} cannot be inferred; export it with fixed sizes")
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {v.name: tensor_info(v) for v in values if v.type.tensor_type.HasField("shape")}
    for tensor in model.graph.initializer:
        found[tensor.name] = TensorInfo(
            name=tensor.name, dtype=_dtype(tensor.data_type), shape=tuple(tensor.dims)
        )
    return found


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    graph = bare.graph
    graph.name = "graph"
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    graph.input.extend(real_inputs(model))
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= SHAPE_VALUES_MAX:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    """Name, numpy dtype and shape of a value; a symbol is a string, an unknown size None."""
    tensor = value.type.tensor_type
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        shape.append(dim.dim_param or None if not dim.HasField("dim_value") else dim.dim_value)
    return TensorInfo(name=value.name, dtype=_dtype(tensor.elem_type), shape=tuple(shape))


def _dtype(kind: int) -> str:
    """numpy's name of a dtype of ONNX; ``unknown`` where none is given, or one of a newer onnx."""
    import onnx

    if kind == onnx.TensorProto.UNDEFINED or kind not in onnx.TensorProto.DataType.values():
        return "unknown"
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind))
