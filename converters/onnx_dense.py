"""A classifier of windows, in ONNX → the same network over a whole image, for all of its windows at once.

Neighbouring windows share most of their pixels, and a network that is called once for each computes the
same features again and again. Written as a fully convolutional network (Sermanet et al., OverFeat, 2013) it
computes them once: fully connected layers become convolutions of the window's size, global pooling a pooling
that slides, and strides that are wider than that of the windows become dilations of the layers behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecnn.converters.base import Arrow, model_errors
from edgecnn.converters.dense_graph import DenseGraph
from edgecnn.converters.dense_places import Axis, Place
from edgecnn.converters.dense_rules import take
from edgecnn.converters.onnx_packed import pack_pixels, unpack_pixels
from edgecnn.converters.onnx_shapes import BATCH, infer, real_inputs, tensor_info
from edgecnn.errors import ModelError, require
from edgecnn.packed_pixels import FOUR

if TYPE_CHECKING:
    import onnx

__all__ = ["DenseOnnx", "OnnxToDense"]

# of windows while shapes are inferred: no size that a network has for another reason
WINDOWS = 7


@dataclass(frozen=True)
class DenseOnnx:
    """A network for all windows of an image.

    It takes uint8 (batch, height, width, channels), where height and width are those of the window plus a
    multiple of the stride, and gives float (batch, classes, rows, columns): one score for each class and
    window, by the window's upper left corner. Where a network leaves the last pixels of a window unused there
    are more rows and columns than windows; the first ones are those of the windows.

    Attributes:
        model: Its ONNX.
        exact: It computes what the windowed network does. Else ``inexact`` says what differs.
        inexact: Layers that see what is beside the window, where cut windows have a border.
    """

    model: bytes
    inexact: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Nothing in it looks beyond a window."""
        return not self.inexact


@dataclass(frozen=True)
class OnnxToDense(Arrow["onnx.ModelProto", DenseOnnx]):
    """Makes a dense network of a canonical model, in fp32, fp16 or INT8 with Q/DQ.

    Attributes:
        stride: Pixels between windows.
    """

    stride: int

    name = "onnx_dense"

    def requires(self, source: onnx.ModelProto) -> None:
        """One picture in, uint8 (batch, height, width, channels) of fixed size, and scores out."""
        require("onnx", "convert")
        if self.stride < 1:
            raise ModelError(f"the stride of windows is at least 1, not {self.stride}")
        inputs = real_inputs(source)
        shape = tensor_info(inputs[0]).shape if inputs else ()
        if len(inputs) != 1 or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
            raise ModelError("a classifier of windows takes one input, (batch, height, width, channels)")

    def convert(self, source: onnx.ModelProto) -> DenseOnnx:
        """Rewrite it node by node.

        Raises:
            ModelError: A node has no dense form; names it, and why.
        """
        import onnx

        source = onnx.load_from_string(unpack_pixels(source.SerializeToString()))
        given = tensor_info(real_inputs(source)[0])
        batch = given.shape[0] if isinstance(given.shape[0], int) else WINDOWS
        height, width, channels = _window(source)
        shapes = infer(source, [batch, height, width, channels])
        place = Place(channels, Axis(height), Axis(width), "nhwc")
        graph = DenseGraph(source, shapes, {given.name: place}, self.stride)
        scores = source.graph.output[0]
        for node in _used(source.graph.node, scores.name):
            take(graph, node)
        after = graph.places.get(scores.name)
        if after is None or not after.is_point:
            raise ModelError(f"output {scores.name} is not one row of scores for each window")
        result = scores.name
        if after.layout != "nchw":
            result = f"{scores.name}/nchw"
            graph.emit("Transpose", [scores.name], [result], after, perm=[0, 3, 1, 2])
        picture = onnx.helper.make_tensor_value_info(
            given.name, onnx.TensorProto.UINT8, [BATCH, "height", "width", channels]
        )
        kind = scores.type.tensor_type.elem_type
        found = onnx.helper.make_tensor_value_info(result, kind, [BATCH, after.channels, "rows", "columns"])
        nodes = _used(graph.nodes, result)
        read = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in graph.weights if tensor.name in read]
        dense = onnx.helper.make_graph(nodes, source.graph.name, [picture], [found], weights)
        model = onnx.helper.make_model(dense, opset_imports=source.opset_import, ir_version=source.ir_version)
        content: bytes = model.SerializeToString()
        if self.stride % FOUR == 0:
            content = pack_pixels(content, size_hw=(height, width))
        return DenseOnnx(content, tuple(dict.fromkeys(graph.inexact)))

    def ensures(self, source: onnx.ModelProto, target: DenseOnnx) -> None:
        """Check that it is valid, and gives one score for each class of one window."""
        import onnx

        with model_errors("the dense form is not a valid model"):
            made = onnx.load_from_string(target.model)
            onnx.checker.check_model(made, full_check=True)
        height, width, channels = _window(source)
        given = infer(made, [1, height + 2 * self.stride, width + self.stride, channels])
        shape = given[made.graph.output[0].name].shape
        if not all(isinstance(size, int) and size >= least for size, least in zip(shape[2:], (3, 2))):
            raise ModelError(f"the dense form gives {shape[2:]} scores for three rows of two windows")


def _window(source: onnx.ModelProto) -> tuple[int, int, int]:
    """Height, width and channels of a window."""
    sizes = [size for size in tensor_info(real_inputs(source)[0]).shape[1:] if isinstance(size, int)]
    height, width, channels = sizes
    return height, width, channels


def _used(nodes: Sequence[onnx.NodeProto], result: str) -> list[onnx.NodeProto]:
    """The nodes that a result needs, in their order."""
    wanted, kept = {result}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]
