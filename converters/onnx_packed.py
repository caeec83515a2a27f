"""The first convolution of an INT8 network, on four pixels at a time.

ONNX Runtime multiplies bytes in fours. A pixel has three, or one: what each position of the first convolution
reads is gathered before, a few bytes at a time, and that takes longer than to multiply it. Pixels of a row
lie next to each other, so four of them read as one have a multiple of four channels. Positions that begin in
the same four pixels become channels of one position, and are laid side by side again behind the layer.
Neither moves a byte. With w the weights, s the stride and l the padding on the left, four pixels have ::

    v[r, o, i, c, y, u] = w[o, c, y, x]    where 4 u + i = r s + x + (-l mod 4)

for position r of 4 / s, output o, pixel i of four, channel c, row y and the u-th four; all others are 0. A
sum of whole numbers is the same in any order: the network gives the same, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.onnx_shapes import infer, real_inputs, tensor_info
from edgecnn.errors import require
from edgecnn.packed_pixels import FOUR, PREFIX, Unpacked

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["pack_pixels", "unpack_pixels"]

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

Array = npt.NDArray[Any]
Step = tuple[str, "Sequence[ir.Value | None]", dict[str, Any]]


def pack_pixels(model: bytes, *, size_hw: tuple[int, int] | None = None) -> bytes:
    """Let the first convolution read four pixels at a time.

    Args:
        model: ONNX with Q/DQ that takes uint8 (batch, height, width, channels).
        size_hw: Where it leaves height and width open, a size that it takes; the other widths that it
            takes differ from that by multiples of four.

    Returns:
        A model that gives the same; the same bytes where the first convolution is not one in INT8 of one to
        three channels, without groups and dilation, with a stride of 1, 2 or 4 pixels.
    """
    onnx, graphs = require("onnx", "convert"), require("onnx_ir", "convert")
    proto = onnx.load_from_string(model)
    network: ir.Model = graphs.from_proto(proto)
    layer = _first_layer(network.graph)
    if layer is None:
        return model
    batch, *sizes, channels = tensor_info(real_inputs(proto)[0]).shape
    shape = [batch if isinstance(batch, int) else 1, *(size_hw or sizes), channels]
    pixels = infer(proto, [size or "" for size in shape])[str(layer.pixels.name)]
    width = pixels.shape[3]  # with the border
    if not isinstance(width, int):
        return model
    _pack(network.graph, layer, width)
    return _written(network)


def unpack_pixels(model: bytes) -> bytes:
    """What `pack_pixels` made a model of; others as they are."""
    onnx, graphs = require("onnx", "convert"), require("onnx_ir", "convert")
    network: ir.Model = graphs.from_proto(onnx.load_from_string(model))
    added = [node for node in network.graph if str(node.name).startswith(PREFIX)]
    if not added:
        return model
    for node in added:
        graphs.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
    layer = _layer(next(node for node in network.graph if node.op_type == "Conv"))
    assert layer is not None
    before = Unpacked.of(str(added[0].name))
    codes = before.codes(layer.codes)
    _change(network.graph, layer, codes, lambda vector: vector[: len(codes)])
    _slide(layer.conv, codes, before.stride, before[2:])
    return _written(network)


@dataclass(frozen=True)
class _Layer:
    """A convolution of bytes, and what stands around it.

    Attributes:
        read: Makes numbers of the bytes.
        conv: The convolution.
        weight: Makes numbers of its weights.
        vectors: Inputs, as node and position, that hold one number for each output.
        last: Makes numbers of the bytes that it gives, behind its activation.
    """

    read: ir.Node
    conv: ir.Node
    weight: ir.Node
    vectors: tuple[tuple[ir.Node, int], ...]
    last: ir.Node

    @property
    def pixels(self) -> ir.Value:
        """The bytes, (batch, channels, height, width)."""
        value = self.read.inputs[0]
        assert value is not None
        return value

    @property
    def codes(self) -> Array:
        """Its weights, int8 (outputs, channels, rows, columns)."""
        return _constant(self.weight.inputs[0])


def _first_layer(graph: ir.Graph) -> _Layer | None:
    """The first convolution, where it can be packed."""
    conv = next((node for node in graph if node.op_type == "Conv"), None)
    layer = _layer(conv) if conv is not None else None
    if conv is None or layer is None:
        return None
    fits = (
        layer.codes.shape[1] < FOUR
        and FOUR % _ints(conv, "strides")[1] == 0
        and set(_ints(conv, "dilations")) == {1}
        and conv.attributes.get_int("group", 1) == 1
        and conv.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )
    return layer if fits else None


def _layer(conv: ir.Node) -> _Layer | None:
    """A convolution with what stands around it, where that is as placement puts it."""
    read, weight = _maker(conv, 0, "DequantizeLinear"), _maker(conv, 1, "DequantizeLinear")
    last = _reader(_reader(_reader(conv, "Relu", "Clip") or conv, "QuantizeLinear"), "DequantizeLinear")
    if read is None or weight is None or last is None:
        return None
    scalars = all(_constant(node.inputs[1]).size == 1 for node in (read, last))
    plain = scalars and len(weight.inputs) == 2 and _constant(weight.inputs[0]).ndim == 4
    if not plain or last.outputs[0].is_graph_output():
        return None
    bias = _maker(conv, 2, "DequantizeLinear")
    around = [conv, weight, *filter(None, (bias, _maker(bias, 1, "Mul")))]
    vectors = [
        (node, position)
        for node in around
        for position, value in enumerate(node.inputs)
        if _constant(value).ndim == 1
    ]
    return _Layer(read, conv, weight, tuple(vectors), last)


def _pack(graph: ir.Graph, layer: _Layer, width: int) -> None:
    """Rewrite the layer for an image of a width, border included."""
    conv = layer.conv
    outputs, channels, rows, columns = layer.codes.shape
    stride = _ints(conv, "strides")[1]
    top, left, bottom, right = pads = _ints(conv, "pads")
    given = Unpacked(columns, stride, *pads)
    at_once = FOUR // stride
    fours = -(-(given.begin + (at_once - 1) * stride + columns) // FOUR)
    apart = np.zeros((at_once, outputs, channels, rows, fours * FOUR), layer.codes.dtype)
    for position in range(at_once):
        first = given.begin + position * stride
        apart[position, ..., first : first + columns] = layer.codes
    together = apart.reshape(-1, channels, rows, fours, FOUR).transpose(0, 4, 1, 2, 3)
    codes = together.reshape(-1, FOUR * channels, rows, fours)
    positions = (width + left + right - columns) // stride + 1
    before, inside = -(-left // FOUR), -(-width // FOUR)
    behind = max(-(-positions // at_once) + fours - 1 - before - inside, 0)
    surplus = (before + inside + behind - fours + 1) * at_once - positions
    _change(graph, layer, codes, lambda vector: np.tile(vector, at_once))
    _slide(conv, codes, 1, [top, before, bottom, behind])

    wider: Step = ("Pad", [_stored(graph, [0] * 6 + [-width % FOUR, 0]), *layer.read.inputs[2:3]], {})
    nodes = _chain(
        given.name("before"),
        layer.pixels,
        [
            ("Transpose", [], {"perm": TO_NHWC}),
            *([wider] if width % FOUR else []),
            ("Reshape", [_stored(graph, [0, 0, -1, FOUR * channels])], {}),
            ("Transpose", [], {"perm": TO_NCHW}),
        ],
    )
    graph.insert_before(layer.read, nodes)
    layer.read.replace_input_with(0, nodes[-1].outputs[0])

    uses = list(layer.last.outputs[0].uses())
    cut: Step = ("Slice", [_stored(graph, [number]) for number in (0, -surplus, 2)], {})
    nodes = _chain(
        given.name("behind"),
        layer.last.outputs[0],
        [
            ("Transpose", [], {"perm": TO_NHWC}),
            ("Reshape", [_stored(graph, [0, 0, -1, outputs])], {}),
            *([cut] if surplus else []),
            ("Transpose", [], {"perm": TO_NCHW}),
        ],
    )
    graph.insert_after(layer.last, nodes)
    for node, position in uses:
        node.replace_input_with(position, nodes[-1].outputs[0])


def _chain(name: str, value: ir.Value | None, steps: Sequence[Step]) -> list[ir.Node]:
    """Nodes of which each reads what the one before gives; they are numbered behind a name."""
    import onnx_ir as ir

    nodes: list[ir.Node] = []
    for position, (op, inputs, attributes) in enumerate(steps):
        nodes.append(ir.node(op, [value, *inputs], attributes, name=f"{name}.{position}"))
        value = nodes[-1].outputs[0]
    return nodes


def _change(graph: ir.Graph, layer: _Layer, codes: Array, change: Callable[[Array], Array]) -> None:
    """Give the layer other weights, and change what it has for each output."""
    layer.weight.replace_input_with(0, _stored(graph, codes))
    for node, position in layer.vectors:
        node.replace_input_with(position, _stored(graph, change(_constant(node.inputs[position]))))


def _slide(conv: ir.Node, codes: Array, stride: int, pads: Sequence[int]) -> None:
    """Write down how the layer goes along its rows."""
    import onnx_ir as ir

    down = _ints(conv, "strides")[0]
    for name, numbers in (("kernel_shape", codes.shape[2:]), ("strides", [down, stride]), ("pads", pads)):
        conv.attributes[name] = ir.AttrInt64s(name, numbers)


def _ints(conv: ir.Node, name: str) -> Sequence[int]:
    """An attribute for height and width, or padding for all four sides."""
    return tuple(conv.attributes.get_ints(name, (0, 0, 0, 0) if name == "pads" else (1, 1)))


def _maker(node: ir.Node | None, position: int, op: str) -> ir.Node | None:
    """What gives a node one of its inputs, if it is of this kind."""
    value = node.inputs[position] if node is not None and position < len(node.inputs) else None
    maker = value.producer() if value is not None else None
    return maker if maker is not None and maker.op_type == op else None


def _reader(node: ir.Node | None, *ops: str) -> ir.Node | None:
    """The only node that reads what another gives, if it is of one of these kinds."""
    uses = list(node.outputs[0].uses()) if node is not None else []
    if node is None or len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    return uses[0].node if uses[0].node.op_type in ops else None


def _constant(value: ir.Value | None) -> Array:
    """The array of a value that never changes; of others one without numbers, of no layer's rank."""
    if value is None or value.const_value is None:
        return np.zeros((0, 0, 0))
    return value.const_value.numpy()


def _stored(graph: ir.Graph, values: npt.ArrayLike) -> ir.Value:
    """A constant; whole numbers of a list are int64."""
    import onnx_ir as ir

    array = np.ascontiguousarray(values)
    count = len(graph.initializers)
    while (name := f"edgecnn.packed.{count}") in graph.initializers:
        count += 1
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _written(network: ir.Model) -> bytes:
    """Its ONNX, without constants and sizes that are no longer true."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(network)
    proto = ir.to_proto(network)
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString())
