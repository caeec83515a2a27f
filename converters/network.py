"""Size of a network: parameters and multiply-accumulates of each node for one input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from edgecnn.converters.onnx_shapes import infer
from edgecnn.manifest import Layer, Network, TensorInfo

if TYPE_CHECKING:
    import onnx

__all__ = ["network"]


def network(model: onnx.ModelProto, input_shape: Sequence[int | str], params: int | None = None) -> Network:
    """Count parameters and multiply-accumulates of a model with one input.

    ``Conv``: output values × (input channels / groups) × kernel taps. ``ConvTranspose``: input values ×
    (output channels / groups) × kernel taps. ``Gemm`` and ``MatMul``: output values × inner length.
    All other nodes count 0, a multiply-accumulate counts 1. A node's parameters are the float
    initialisers it reads; one that several nodes read counts for the first.

    Args:
        model: Float or uint8 input, any batch.
        input_shape: Shape of one input, batch 1 first.
        params: Total to report where it is known better: a graph holds less than its module when
            BatchNorm was merged.
    """
    shapes = infer(model, input_shape)
    weights = {t.name: prod(t.dims) for t in model.graph.initializer if _is_float(t)}
    counted: set[str] = set()
    layers = []
    for position, node in enumerate(model.graph.node):
        if node.op_type == "Constant":
            continue
        own = [name for name in dict.fromkeys(node.input) if name in weights and name not in counted]
        counted.update(own)
        output = shapes.get(node.output[0])
        layers.append(
            Layer(
                name=node.name or f"{node.op_type}_{position}",
                op=node.op_type,
                output_shape=output.shape if output else (),
                params=sum(weights[name] for name in own),
                macs=_macs(node, shapes),
            )
        )
    total = sum(layer.params for layer in layers) if params is None else params
    return Network(params=total, macs=sum(layer.macs for layer in layers), layers=tuple(layers))


def _is_float(tensor: Any) -> bool:
    import onnx

    return tensor.data_type in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    )


def _macs(node: Any, shapes: Mapping[str, TensorInfo]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    first, second, output = (
        _sizes(shapes.get(name)) for name in (node.input[0], node.input[1], node.output[0])
    )
    if not (first and second and output):
        return 0
    if node.op_type == "Conv":
        return prod(output) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(output) * (first[0] if transposed else first[-1])


def _sizes(info: TensorInfo | None) -> tuple[int, ...]:
    """Give the shape if it is known as a whole, else empty."""
    if info is None or not all(isinstance(size, int) for size in info.shape):
        return ()
    return tuple(size for size in info.shape if isinstance(size, int))
