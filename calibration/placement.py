"""Where QuantizeLinear and DequantizeLinear stand, for each style of engine.

``cpu`` (ONNX Runtime, OpenVINO): asymmetric uint8 activations on both sides of a layer, int8 weights, int32
bias. Engines fuse such a layer, with a Relu or Clip behind it, into one integer operation. Sums of residual
branches stay in float, so that an error is not rounded again at each of them.

``tensorrt``: symmetric int8 with zero point 0 on the inputs of layers alone, int8 weights, float bias; of a
residual Add only the skip input, so that the Add can be fused into the convolution before it; none around
activations and operations that move data. As NVIDIA's Model Optimizer places them, but that layers with few
channels are quantised like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.layers import QuantLayer
from edgecnn.calibration.pixels import PIXELS, byte_pixels
from edgecnn.calibration.ranges import QuantParams
from edgecnn.calibration.rounding import Int8Weights

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Placement", "is_symmetric", "place", "quantized_tensors"]

Placement = Literal["cpu", "tensorrt"]


def is_symmetric(placement: Placement) -> bool:
    """Activations are int8 around zero, else uint8 with a zero point."""
    return placement == "tensorrt"


def quantized_tensors(layers: Sequence[QuantLayer]) -> tuple[str, ...]:
    """Every tensor that some placement puts on an 8-bit grid, in the order of the layers."""
    names = (name for layer in layers for name in (layer.input, *([] if layer.last else [layer.output])))
    return tuple(dict.fromkeys(names))


def place(
    model: ir.Model,
    layers: Sequence[QuantLayer],
    params: Mapping[str, QuantParams],
    weights: Mapping[str, Int8Weights],
    *,
    placement: Placement,
    kept_float: Collection[str] = (),
) -> bytes:
    """Write an INT8 model.

    Args:
        model: The float model; left as it was.
        layers: Of that model.
        params: Of the tensors of `quantized_tensors`.
        weights: Of the layers that are not kept in float.
        placement: ``cpu`` or ``tensorrt``; params have to be symmetric for the latter.
        kept_float: Names of layers that stay as they are.

    Returns:
        ONNX bytes. Nodes keep their names, values inside get short ones.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = model.clone()
    writer = _Writer(model, params)
    chosen = [layer for layer in layers if layer.name not in kept_float]
    nodes = {str(node.name): node for node in model.graph}
    if placement == "cpu":
        if any(layer.input == PIXELS for layer in chosen):
            writer.read_bytes(PIXELS, byte_pixels(model))
        for layer in chosen:
            if not layer.last:
                writer.quantize_everywhere(layer.output)
    else:
        names = {layer.name for layer in chosen}
        for node in list(model.graph):
            if node.op_type == "Add" and (position := _skip_input(node, names)) is not None:
                writer.quantize_input(node, position)
    for layer in chosen:
        node = nodes[layer.name]
        writer.quantize_input(node, 0)
        writer.quantize_weights(node, layer, weights[layer.name], float_bias=placement == "tensorrt")
    RemoveUnusedNodesPass()(model)
    _shorten(model, nodes)
    made: bytes = ir.to_proto(model).SerializeToString()
    return made


class _Writer:
    """Puts pairs of QuantizeLinear and DequantizeLinear into a graph, one a tensor."""

    def __init__(self, model: ir.Model, params: Mapping[str, QuantParams]) -> None:
        import onnx_ir as ir

        self._ir = ir
        self._graph = model.graph
        self._params = params
        self._values = {str(v.name): v for node in model.graph for v in node.outputs}
        self._values |= {str(v.name): v for v in model.graph.inputs}
        self._pairs: dict[str, ir.Value] = {}
        self._source: dict[str, str] = {}
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    def read_bytes(self, tensor: str, whole: ir.Value | None) -> None:
        """A tensor that exists as bytes needs no QuantizeLinear."""
        if whole is None:
            return
        params = self._params[tensor]
        scale = self._constant(np.float32(params.scale))
        back = self._ir.node("DequantizeLinear", [whole, scale, self._constant(np.uint8(params.zero_point))])
        self._graph.insert_after(whole.producer() or self._graph[0], back)
        self._pairs[tensor] = self._named(back, tensor)

    def quantize_everywhere(self, tensor: str) -> None:
        """All that read a tensor read it from 8 bits."""
        value = self._values[tensor]
        uses = [(use.node, use.idx) for use in value.uses()]
        pair = self._pair(value)
        for node, position in uses:
            node.replace_input_with(position, pair)

    def quantize_input(self, node: ir.Node, position: int) -> None:
        """One input of a node comes from 8 bits; where it does already, or is not known, nothing changes."""
        value = node.inputs[position]
        if value is None or value.name in self._source or value.name not in self._params:
            return
        node.replace_input_with(position, self._pair(value))

    def quantize_weights(
        self, node: ir.Node, layer: QuantLayer, weights: Int8Weights, *, float_bias: bool
    ) -> None:
        """The weight of a layer comes from int8, its bias from int32 or float."""
        scales = self._constant(weights.scales)
        real = [self._constant(weights.codes), scales]
        if layer.op in ("Gemm", "MatMul"):
            # ONNX Runtime runs these in INT8 only with a zero point that is written down
            real.append(self._constant(np.zeros(weights.scales.shape, np.int8)))
        self._replace(node, 1, "DequantizeLinear", real, {"axis": layer.channel_axis})
        if weights.bias is None or layer.op == "MatMul":  # which has no place for one
            return
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        if float_bias:
            node.replace_input_with(2, self._constant(weights.bias))
            return
        source = self._source[str(node.inputs[0].name)]  # type: ignore[union-attr]
        step = (weights.scales * np.float32(self._params[source].scale)).astype(np.float32)
        whole = np.round(weights.bias.astype(np.float64) / step).astype(np.int32)
        bias = self._constant(whole)
        # worked out when the engine loads: stored, it would take as many bytes as the bias itself
        factor = self._constant(np.float32(self._params[source].scale))
        steps = self._ir.node("Mul", [scales, factor])
        self._graph.insert_before(node, steps)
        self._replace(node, 2, "DequantizeLinear", [bias, steps.outputs[0]], {"axis": 0})

    def _pair(self, value: ir.Value) -> ir.Value:
        name = str(value.name)
        if name not in self._pairs:
            params = self._params[name]
            zero = np.int8(params.zero_point) if params.signed else np.uint8(params.zero_point)
            scale = self._constant(np.float32(params.scale))
            point = self._constant(zero)
            whole = self._ir.node("QuantizeLinear", [value, scale, point])
            back = self._ir.node("DequantizeLinear", [whole.outputs[0], scale, point])
            producer = value.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], [whole, back])
            else:
                self._graph.insert_after(producer, [whole, back])
            self._pairs[name] = self._named(back, name)
        return self._pairs[name]

    def _named(self, back: ir.Node, tensor: str) -> ir.Value:
        """The output of a tensor's DequantizeLinear, which is known again by its name."""
        value = back.outputs[0]
        value.name = f"{tensor}.8bit"
        self._source[value.name] = tensor
        return value

    def _replace(
        self, node: ir.Node, position: int, op: str, inputs: list[ir.Value], attributes: dict[str, Any]
    ) -> None:
        made = self._ir.node(op, inputs, attributes)
        self._graph.insert_before(node, made)
        node.replace_input_with(position, made.outputs[0])

    def _constant(self, values: npt.NDArray[Any] | np.generic) -> ir.Value:
        """An initialiser; single numbers are stored once."""
        array = np.asarray(values)
        key = (
            array.dtype.str,
            array.shape,
            array.tobytes() if array.ndim == 0 else str(len(self._constants)),
        )
        if key not in self._constants:
            name = f"edgecnn.int8.{len(self._constants)}"
            value = self._ir.Value(name=name, const_value=self._ir.tensor(array, name=name))
            self._graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]


def _skip_input(node: ir.Node, layers: Collection[str]) -> int | None:
    """Which input of a sum comes past the layer that the sum can be fused into; None without such a layer."""
    fusible = [value is not None and _for_one_reader(value, layers) for value in node.inputs]
    if True not in fusible:
        return None
    return fusible.index(False) if False in fusible else 1


def _for_one_reader(value: ir.Value, layers: Collection[str]) -> bool:
    """One of the layers gives it, and nothing else reads it."""
    producer = value.producer()
    by_layer = producer is not None and producer.name in layers
    return by_layer and len(value.uses()) == 1 and not value.is_graph_output()


def _shorten(model: ir.Model, kept: Collection[str]) -> None:
    """Names inside and an exporter's notes are nothing but bytes: in a small network many."""
    graph = model.graph
    graph.metadata_props.clear()
    for node in graph:
        if node.name not in kept:
            node.name = ""
    fixed = {id(v) for v in (*graph.inputs, *graph.outputs)}
    values = [*graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    # also those of values that are yet to be renamed
    taken = {str(v.name) for v in (*graph.inputs, *graph.outputs, *values)}
    count = 0
    for value in values:
        if id(value) in fixed:
            continue
        while (name := f"{count:x}") in taken:
            count += 1
        count += 1
        value.name = name
