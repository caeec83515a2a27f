"""What operations with a kernel become in the dense network: convolution, pooling, fully connected layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.dense_graph import DenseGraph, attributes, refusal
from edgecnn.converters.dense_places import Place, Slide

if TYPE_CHECKING:
    import onnx

__all__ = ["RULES"]

Array = npt.NDArray[Any]
Borders = tuple[tuple[int, int], tuple[int, int]]

# the kernel of the dense network is a window's whole picture
WHOLE = {
    "GlobalAveragePool": "AveragePool",
    "GlobalMaxPool": "MaxPool",
    "ReduceMean": "AveragePool",
    "ReduceMax": "MaxPool",
}
# the opset of ONNX in which AveragePool got dilations
AVERAGE_DILATES = 19
# and that in which reductions take their axes as an input
REDUCES_BY_INPUT = 18


def _slid(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Convolution, and pooling with a kernel of its own."""
    name, place = node.input[0], _channels_first(graph, node)
    given = attributes(node)
    weights = list(node.input[1:])
    if node.op_type == "Conv":
        kernel = graph.shape(node.input[1])[2:]
        channels = graph.shape(node.input[1])[0]
        if graph.constant(node.input[1]) is None or not isinstance(channels, int):
            raise refusal(node, "its weights are computed")
    else:
        kernel, channels = tuple(given["kernel_shape"]), place.channels
    if len(kernel) != 2 or place.rank != 4:
        raise refusal(node, "does not slide over a picture")
    slide = Slide(
        (int(kernel[0] or 1), int(kernel[1] or 1)), _pair(given, "strides"), _pair(given, "dilations")
    )
    slide = replace(slide, pads=_pads(node, given, slide, place.size_hw))
    sizes = graph.shape(node.output[0])[2:]
    size_hw = (_known(node, sizes[0]), _known(node, sizes[1]))
    if node.op_type == "Conv":
        slide, weights = _only_tap(graph, slide, place, size_hw, weights)
    elif given.get("ceil_mode", 0) and _starts_beyond(slide, place, size_hw):
        raise refusal(node, "its last position lies beyond the picture")
    _see_borders(graph, node, slide, place, size_hw, bool(given.get("ceil_mode", 0)))
    dense, after = slide.over(place, size_hw, graph.stride)
    rest = {
        key: value
        for key, value in given.items()
        if key not in ("auto_pad", "kernel_shape", "strides", "dilations", "pads")
    }
    if "ceil_mode" in rest and not _is_cut(slide, place, size_hw):
        rest["ceil_mode"] = 0
    graph.emit(
        node.op_type,
        [name, *weights],
        node.output[:1],
        replace(after, channels=channels),
        node.name,
        **rest,
        **_written(graph, node, node.op_type, dense),
    )


def _only_tap(
    graph: DenseGraph, slide: Slide, place: Place, size_hw: tuple[int, int], weights: list[str]
) -> tuple[Slide, list[str]]:
    """Of a padded kernel over a single position, the one tap that is not on the padding."""
    kernel, pads, taps = list(slide.kernel_hw), list(slide.pads), [slice(None), slice(None)]
    for axis, side in enumerate(place.sides):
        tap, beside = divmod(slide.pads[axis][0], slide.dilations[axis])
        there = size_hw[axis] == 1 and not beside and tap < slide.kernel_hw[axis]
        if side.size == 1 and slide.kernel_hw[axis] > 1 and there:
            kernel[axis], pads[axis], taps[axis] = 1, (0, 0), slice(tap, tap + 1)
    if taps == [slice(None), slice(None)]:
        return slide, weights
    cut = graph.changed(weights[0], lambda array: array[:, :, taps[0], taps[1]])
    kept = replace(slide, kernel_hw=(kernel[0], kernel[1]), pads=(pads[0], pads[1]))
    return kept, [cut, *weights[1:]]


def _see_borders(
    graph: DenseGraph,
    node: onnx.NodeProto,
    slide: Slide,
    place: Place,
    size_hw: tuple[int, int],
    rounds_up: bool,
) -> None:
    """Note a node that sees the border of a window."""
    if any(map(any, slide.pads)) or (rounds_up and _is_cut(slide, place, size_hw)):
        graph.inexact.append(node.name or node.output[0])


def _is_cut(slide: Slide, place: Place, size_hw: tuple[int, int]) -> bool:
    """Whether the last position of a kernel reaches beyond the padded picture."""
    return any(
        (positions - 1) * stride + (taps - 1) * dilation + 1 > side.size + sum(pads)
        for positions, stride, taps, dilation, side, pads in zip(
            size_hw, slide.strides, slide.kernel_hw, slide.dilations, place.sides, slide.pads
        )
    )


def _starts_beyond(slide: Slide, place: Place, size_hw: tuple[int, int]) -> bool:
    """Whether the last position of a kernel begins behind the picture: engines do not agree on it."""
    return any(
        (positions - 1) * stride >= side.size + before
        for positions, stride, side, (before, _) in zip(size_hw, slide.strides, place.sides, slide.pads)
    )


def _whole(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Global pooling: a pooling as large as the window."""
    _pool(graph, node, node.input[0], _channels_first(graph, node), node.output[0], rank=4)


def _channels_first(graph: DenseGraph, node: onnx.NodeProto) -> Place:
    """The place of what a node slides over: its axes are read by their position."""
    place = graph.place(node.input[0], node)
    if place.layout != "nchw":
        raise refusal(node, "its channels do not come first")
    return place


def _reduced(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """A mean or maximum over rows and columns, over channels, or over all of them."""
    place, given = graph.place(node.input[0], node), attributes(node)
    found = graph.constant(node.input[1]) if len(node.input) > 1 else given.get("axes")
    if place.rank != 4 or found is None:
        raise refusal(node, "does not reduce pictures along fixed axes")
    axes = "".join(sorted(place.layout[int(axis) % 4] for axis in found))
    if axes not in ("c", "hw", "chw"):
        raise refusal(node, "goes neither over all rows and columns nor over the channels")
    keeps = bool(given.get("keepdims", 1))
    if axes == "c" and not keeps:
        raise refusal(node, "leaves pictures without channels")
    name, place = graph.nchw(node.input[0], node)
    result, rank = node.output[0], 4 if keeps else 4 - len(axes)
    if "h" in axes:
        between = f"{result}/pooled" if "c" in axes else result
        _pool(graph, node, name, place, between, rank=rank)
        name, place = between, graph.places[between]
    if "c" in axes:
        after = replace(place, channels=1)
        if graph.opset < REDUCES_BY_INPUT:
            graph.emit(node.op_type, [name], [result], after, node.name, axes=[1], keepdims=1)
        else:
            channels = graph.new(np.array([1], np.int64), result)
            graph.emit(node.op_type, [name, channels], [result], after, node.name, keepdims=1)


def _pool(
    graph: DenseGraph, node: onnx.NodeProto, name: str, place: Place, result: str, *, rank: int
) -> None:
    """Pool rows first, then columns: the same, for the sum of the window's sides instead of their product."""
    op = WHOLE[node.op_type]
    dense, after = Slide(place.size_hw).over(place, (1, 1), graph.stride)
    between = f"{result}/rows"
    rows = replace(dense, kernel_hw=(dense.kernel_hw[0], 1), strides=(dense.strides[0], 1))
    columns = replace(dense, kernel_hw=(1, dense.kernel_hw[1]), strides=(1, dense.strides[1]))
    graph.emit(op, [name], [between], place, **_written(graph, node, op, rows))
    graph.emit(op, [between], [result], replace(after, rank=rank), **_written(graph, node, op, columns))


def _connected(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """A fully connected layer: a convolution with a kernel as large as the window."""
    place = graph.place(node.input[0], node)
    given = attributes(node)
    weights = graph.constant(node.input[1])
    if weights is None or weights.ndim != 2 or place.rank != 2 or given.get("transA", 0):
        raise refusal(node, "is not a layer that is fully connected to a window")
    transposed = bool(given.get("transB", 0))
    height, width = place.size_hw
    chw = place.layout == "nchw"

    def kernel(array: Array) -> Array:
        rows = array if transposed else array.T
        if chw:
            return rows.reshape(len(rows), place.channels, height, width)
        turned: Array = rows.reshape(len(rows), height, width, place.channels).transpose(0, 3, 1, 2)
        return turned

    count = weights.shape[0] if transposed else weights.shape[1]
    turned = graph.changed(node.input[1], kernel, was=0 if transposed else 1)
    inputs = [_times(graph, node, turned, given.get("alpha", 1.0))]
    if len(node.input) > 2 and node.input[2]:
        bias = node.input[2]
        values = graph.constant(bias)
        if values is None or values.size not in (1, count):
            raise refusal(node, "its bias is not one for each output")
        if values.shape != (count,):
            bias = graph.changed(bias, lambda array: np.broadcast_to(array.reshape(-1), (count,)))
        inputs.append(_times(graph, node, bias, given.get("beta", 1.0)))
    name, place = graph.nchw(node.input[0], node)
    dense, after = Slide(place.size_hw).over(place, (1, 1), graph.stride)
    graph.emit(
        "Conv",
        [name, *inputs],
        node.output,
        replace(after, channels=count),
        node.name,
        **_written(graph, node, "Conv", dense),
    )


def _times(graph: DenseGraph, node: onnx.NodeProto, name: str, factor: float) -> str:
    if factor == 1:
        return name
    values = graph.constant(name)
    if values is None or values.dtype.kind != "f":
        raise refusal(node, "scales weights that are stored in INT8")
    return graph.changed(name, lambda array: (array * factor).astype(array.dtype))


def _padded(graph: DenseGraph, node: onnx.NodeProto) -> None:
    """Padding of its own: between windows there is picture instead."""
    place = graph.place(node.input[0], node)
    given = attributes(node)
    pads = graph.constant(node.input[1])
    axes = graph.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(place.rank)
    if place.rank != 4 or pads is None or axes is None:
        raise refusal(node, "does not pad a picture by a fixed number")
    sides = {place.layout.index("h"): place.height, place.layout.index("w"): place.width}
    wide, total = np.zeros((2, 4), np.int64), [0, 0, 0, 0]
    for axis, *pair in zip(axes, pads, pads[len(axes) :]):
        side = int(axis) % 4
        if any(pair) and (side not in sides or min(pair) < 0):
            raise refusal(node, "does not pad rows and columns only")
        if any(pair):
            wide[:, side] = np.multiply(pair, sides[side].dilation)
            total[side] = int(sum(pair))
    if wide.any():
        graph.inexact.append(node.name or node.output[0])
    height, width = (replace(side, size=side.size + total[axis]) for axis, side in sides.items())
    inputs = [node.input[0], graph.new(wide.reshape(-1), node.output[0]), *node.input[2:3]]
    after = replace(place, height=height, width=width)
    graph.emit("Pad", inputs, node.output, after, node.name, mode=given.get("mode"))


def _pair(given: dict[str, Any], name: str) -> tuple[int, int]:
    first, second = given.get(name) or (1, 1)
    return int(first), int(second)


def _known(node: onnx.NodeProto, size: int | str | None) -> int:
    if not isinstance(size, int):
        raise refusal(node, "its size is not known")
    return size


def _pads(node: onnx.NodeProto, given: dict[str, Any], slide: Slide, size_hw: tuple[int, int]) -> Borders:
    """Its padding in numbers; ``SAME`` depends on the size of a window (ONNX's Conv)."""
    kind = given.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", ""):
        top, left, bottom, right = given.get("pads") or (0, 0, 0, 0)
        return (top, bottom), (left, right)
    found = []
    for size, stride, taps, dilation in zip(size_hw, slide.strides, slide.kernel_hw, slide.dilations):
        reach = (-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1
        total = max(reach - size, 0) if kind != "VALID" else 0
        small, large = total // 2, total - total // 2
        found.append((small, large) if kind != "SAME_LOWER" else (large, small))
    return found[0], found[1]


def _written(graph: DenseGraph, node: onnx.NodeProto, op: str, slide: Slide) -> dict[str, Any]:
    """The attributes of an operation with a kernel."""
    spread = slide.dilations != (1, 1)
    if op == "AveragePool" and spread and graph.opset < AVERAGE_DILATES:
        raise refusal(
            node, f"its dense form has dilations, which need opset {AVERAGE_DILATES}; this is {graph.opset}"
        )
    if op == "LpPool" and spread:
        raise refusal(node, "has no dilations")
    (top, bottom), (left, right) = slide.pads
    return {
        "kernel_shape": list(slide.kernel_hw),
        "strides": list(slide.strides),
        "pads": [top, left, bottom, right],
        "dilations": list(slide.dilations) if spread else None,
    }


RULES: dict[str, Callable[[DenseGraph, Any], None]] = {
    **dict.fromkeys(("Conv", "AveragePool", "MaxPool", "LpPool"), _slid),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _whole),
    **dict.fromkeys(("ReduceMean", "ReduceMax"), _reduced),
    **dict.fromkeys(("Gemm", "MatMul"), _connected),
    "Pad": _padded,
}
