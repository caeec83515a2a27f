"""What operations without a kernel become in the dense network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.converters import dense_sliding as sliding
from edgecnn.converters.dense_graph import DenseGraph, attributes, refusal
from edgecnn.converters.dense_places import Place

if TYPE_CHECKING:
    import onnx

__all__ = ["take"]

ELEMENTWISE = (
    "Abs Cast Ceil Celu Clip Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log "
    "Mish Neg Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Sqrt Swish Tanh ThresholdedRelu"
)
COMBINING = "Add Sub Mul Div Min Max Pow PRelu Mean Sum"
RESHAPING = "Flatten Reshape Squeeze Unsqueeze"


def take(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Write one node of the windowed network into the dense one.

    Raises:
        ModelError: It has no dense form; says why.
    """
    inputs = [name for name in node.input if name]
    reshapes = node.op_type in RESHAPING.split() and node.input[0] in graph.places
    if node.op_type == "Shape" or (not reshapes and not graph.sizes.isdisjoint(inputs)):
        graph.sizes.update(node.output)
        return
    if not any(name in graph.places for name in inputs):
        graph.keep(node)
        return
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise refusal(node, "is not an operation that edgecnn can slide over an image")
    rule(graph, node)
    for name in node.output:
        if name in graph.places:
            _check(graph, node, name)


def _check(graph: DenseGraph, node: onnx.NodeProto, name: str) -> None:
    """What a rule says of a tensor has to be what inference says of it."""
    shape = graph.shape(name)
    wanted = graph.places[name].window_shape(0)
    if len(shape) != len(wanted) or tuple(shape[1:]) != wanted[1:]:
        raise refusal(node, f"gives {shape[1:]} of each window, which is not understood")


def _each(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Value by value."""
    place = graph.place(node.input[0], node)
    graph.emit(node.op_type, node.input, node.output[:1], place, node.name, **attributes(node))


def _quantized(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """One scale for all is value by value; one for each channel goes with the channels."""
    place = graph.place(node.input[0], node)
    given = attributes(node)
    scale = graph.constant(node.input[1])
    if scale is None or (scale.size > 1 and not _is_channel(place, given.get("axis", 1))):
        raise refusal(node, "has scales that are not of its channels")
    given["axis"] = place.channel_axis if scale.size > 1 else None
    graph.emit(node.op_type, node.input, node.output, place, node.name, **given)


def _combined(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Tensors of the same place with each other, or with numbers."""
    moving = [graph.places[name] for name in node.input if name in graph.places]
    place = moving[0]
    if any(other != place for other in moving):
        raise refusal(
            node, "joins values of different sizes: what belongs to a window as a whole, and to its parts"
        )
    inputs = [name if name in graph.places else _aligned(graph, node, name, place) for name in node.input]
    graph.emit(node.op_type, inputs, node.output, place, node.name, **attributes(node))


def _aligned(graph: DenseGraph, node: onnx.NodeProto, name: str, place: Place) -> str:
    """A constant that is broadcast as before, along four axes."""
    values = graph.constant(name)
    if values is None:
        raise refusal(node, f"its input {name} is computed")
    if values.size == 1:
        return graph.changed(name, lambda array: array.reshape(()))
    if place.rank == 2 and not place.is_point:
        raise refusal(node, "has another number for each place in a window")
    shape = (1,) * (place.rank - values.ndim) + values.shape
    along = {axis for axis, size in enumerate(shape) if size > 1}
    channels = place.channel_axis if place.rank == 4 else 1
    if along != {channels} or values.size != place.channels:
        raise refusal(node, "has another number for each place in a window, or widens its channels")
    wide = [1, 1, 1, 1]
    wide[place.channel_axis] = place.channels
    was = values.ndim - (place.rank - channels)
    return graph.changed(name, lambda array: array.reshape(wide), was=was, axis=place.channel_axis)


def _over_channels(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Softmax and the like, which look along one axis."""
    place, given = graph.place(node.input[0], node), attributes(node)
    if not _is_channel(place, given.get("axis", -1)):
        raise refusal(node, "does not go along the channels")
    given["axis"] = place.channel_axis
    graph.emit(node.op_type, node.input, node.output, place, node.name, **given)


def _normalized(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Numbers for each channel, of a tensor with its channels first."""
    place = graph.place(node.input[0], node)
    if place.layout != "nchw" or (place.rank == 2 and not place.is_point):
        raise refusal(node, "its channels do not come first")
    graph.emit(node.op_type, node.input, node.output[:1], place, node.name, **attributes(node))


def _joined(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Channels of several tensors behind each other."""
    places = [graph.place(name, node) for name in node.input]
    first = places[0]
    alike = all(replace(other, channels=first.channels) == first for other in places)
    if not alike or not _is_channel(first, attributes(node)["axis"]):
        raise refusal(node, "does not join channels of the same places")
    place = replace(first, channels=sum(other.channels for other in places))
    graph.emit("Concat", node.input, node.output, place, node.name, axis=place.channel_axis)


def _split(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Channels in several tensors."""
    place, given = graph.place(node.input[0], node), attributes(node)
    if not _is_channel(place, given.get("axis", 0)):
        raise refusal(node, "does not split channels")
    axis = _axis(place, given.get("axis", 0))
    sizes = [size for name in node.output for size in graph.shape(name)[axis : axis + 1]]
    parts = [replace(place, channels=size) for size in sizes if isinstance(size, int)]
    if len(parts) != len(node.output):
        raise refusal(node, "splits into parts of unknown size")
    given["axis"] = place.channel_axis
    graph.emit("Split", node.input, node.output, parts, node.name, **given)


def _turned(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Channels to the front or to the end."""
    place, order = graph.place(node.input[0], node), attributes(node).get("perm")
    if place.rank == 4 and order in ([0, 1, 2, 3], [0, 3, 1, 2], [0, 2, 3, 1]):
        turned = "n" + "".join(place.layout[axis] for axis in order[1:])
        if turned in ("nchw", "nhwc"):
            layout: Literal["nchw", "nhwc"] = "nchw" if turned == "nchw" else "nhwc"
            graph.emit(
                "Transpose", node.input, node.output, replace(place, layout=layout), node.name, perm=order
            )
            return
    raise refusal(node, f"its order of axes, {order}, is not one of pictures")


def _flattened(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Nothing is moved: what follows knows in which order the values of a window were to be read."""
    place = graph.place(node.input[0], node)
    shape = graph.shape(node.output[0])
    for rank in (4, 2) if place.channels > 1 or not place.is_point else (4, 2, 1):
        after = replace(place, rank=rank)
        if len(shape) == rank and tuple(shape[1:]) == after.window_shape(0)[1:]:
            graph.emit("Identity", node.input[:1], node.output, after, node.name)
            return
    raise refusal(node, f"makes {shape[1:]} of {place.window_shape(0)[1:]}, which mixes places of a window")


def _axis(place: Place, axis: int) -> int:
    return axis % place.rank


def _is_channel(place: Place, axis: int) -> bool:
    """Whether an axis of the windowed network is that of the channels."""
    if place.rank == 4:
        return _axis(place, axis) == place.channel_axis
    return place.rank == 2 and place.is_point and _axis(place, axis) == 1


Rule = Callable[[DenseGraph, Any], None]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE.split(), _each),
    **dict.fromkeys(COMBINING.split(), _combined),
    **dict.fromkeys(RESHAPING.split(), _flattened),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantized),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _over_channels),
    **dict.fromkeys(("BatchNormalization", "LRN"), _normalized),
    "Concat": _joined,
    "Split": _split,
    "Transpose": _turned,
    **sliding.RULES,
}
