"""Shapes of all values of an ONNX model, inferred without moving its weights about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecnn.manifest import TensorInfo

if TYPE_CHECKING:
    import onnx

__all__ = ["infer", "real_inputs", "tensor_info"]

Shape = tuple[int | str | None, ...]

# tensors up to this many values may be shapes or axes, which inference reads; larger ones are weights
SHAPE_VALUES_MAX = 1024


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """List the inputs that a caller feeds; old models list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def infer(model: onnx.ModelProto, input_shape: Sequence[int | str]) -> dict[str, TensorInfo]:
    """Dtype and shape of every value of the main graph, for a shape of its only input.

    Values whose shape cannot be inferred are absent; sizes that cannot be are None.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(_without_weights(model))
    value = real_inputs(bare)[0]
    value.type.tensor_type.shape.CopyFrom(
        onnx.helper.make_tensor_type_proto(1, list(input_shape)).tensor_type.shape
    )
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    done = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    graph = done.graph
    found = {v.name: tensor_info(v) for v in [*graph.input, *graph.value_info, *graph.output]}
    for tensor in model.graph.initializer:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        found[tensor.name] = TensorInfo(name=tensor.name, dtype=dtype, shape=tuple(tensor.dims))
    return found


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    graph = bare.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    graph.input.extend(real_inputs(model))
    for tensor in model.graph.initializer:
        count = 1
        for size in tensor.dims:
            count *= size
        if count <= SHAPE_VALUES_MAX:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    """Name, numpy dtype and shape of a value; a symbol is a string, an unknown size None."""
    import onnx

    tensor = value.type.tensor_type
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        shape.append(dim.dim_param or None if not dim.HasField("dim_value") else dim.dim_value)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else "unknown"
    return TensorInfo(name=value.name, dtype=dtype, shape=tuple(shape))
