"""The dense network while it is written: its nodes, its weights, and where everything lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.dense_places import Place
from edgecnn.errors import ModelError
from edgecnn.manifest import TensorInfo

if TYPE_CHECKING:
    import onnx

__all__ = ["DenseGraph", "attributes"]

Array = npt.NDArray[Any]

# attributes of a Constant, and the dtype of those that have none of their own
KINDS: dict[str, Any] = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


class DenseGraph:
    """What the rules read and write. Tensors keep their names, and all of them have four axes.

    Attributes:
        nodes, weights: Of the dense network so far.
        inexact: Nodes that see what is beside a window, where a window that was cut out has a border.
        places: Where tensors lie that depend on the picture, by name.
        sizes: Tensors that hold shapes, which are of no use where no shape changes.
        stride: Pixels between windows.
        opset: Of both networks.
    """

    def __init__(
        self,
        source: onnx.ModelProto,
        shapes: Mapping[str, TensorInfo],
        places: Mapping[str, Place],
        stride: int,
    ) -> None:
        """Start with the inputs.

        Args:
            source: The windowed network.
            shapes: Of its values, for some batch.
            places: Of its inputs.
            stride: Pixels between windows.
        """
        import onnx

        graph = source.graph
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = list(graph.initializer)
        self.inexact: list[str] = []
        self.places = dict(places)
        self.sizes: set[str] = set()
        self.stride = stride
        self.opset = next((each.version for each in source.opset_import if each.domain in ("", "ai.onnx")), 0)
        self._shapes = shapes
        self._constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._dequantized: dict[str, onnx.NodeProto] = {}

    def shape(self, name: str) -> tuple[int | str | None, ...]:
        """Shape of a tensor of the windowed network; empty where it is not known."""
        info = self._shapes.get(name)
        return info.shape if info is not None else ()

    def place(self, name: str, node: onnx.NodeProto) -> Place:
        """Where a tensor lies.

        Raises:
            ModelError: It does not depend on the picture.
        """
        if name not in self.places:
            raise refusal(node, f"its input {name} is not made of the picture")
        return self.places[name]

    def constant(self, name: str) -> Array | None:
        """A weight or number; also one that is stored in INT8."""
        node = self._dequantized.get(name)
        return self._constants.get(node.input[0] if node is not None else name)

    def keep(self, node: onnx.NodeProto) -> None:
        """Take over what depends on weights alone."""
        import onnx

        if node.op_type == "Constant":
            (value,) = node.attribute
            if value.name not in KINDS:
                raise refusal(node, "is a constant that is no tensor of numbers")
            data = onnx.helper.get_attribute_value(value)
            array = onnx.numpy_helper.to_array(data) if value.name == "value" else np.asarray(data)
            self._constants[node.output[0]] = array.astype(KINDS[value.name] or array.dtype)
        elif node.op_type == "DequantizeLinear":
            self._dequantized[node.output[0]] = node
        self.nodes.append(node)

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        places: Place | Sequence[Place],
        name: str = "",
        **attributes: Any,
    ) -> None:
        """Write a node, and where its outputs lie; one place stands for all of them."""
        import onnx

        # ONNX has no empty lists among its attributes, and None is one that is not given
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(op, inputs, outputs, name or outputs[0], **given))
        listed = [places] * len(outputs) if isinstance(places, Place) else places
        self.places.update(zip(outputs, listed))

    def new(self, array: Array, near: str) -> str:
        """Store a weight or number under a name of its own."""
        import onnx

        name = f"{near}/dense.{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        self._constants[name] = array
        return name

    def changed(self, name: str, change: Callable[[Array], Array], *, was: int = 0, axis: int = 0) -> str:
        """A weight in another form, stored as before: in INT8 it stays in INT8.

        Args:
            name: The weight.
            change: What to do with its values.
            was: Where its output channels are.
            axis: Where they are afterwards.

        Raises:
            ModelError: It is stored in INT8 with scales that are not of its output channels.
        """
        import onnx

        if name not in self._dequantized:
            return self.new(change(self._constants[name]), name)
        node = self._dequantized[name]
        values, scale = self._constants[node.input[0]], self._constants.get(node.input[1])
        given = attributes(node)
        if scale is None or (scale.size > 1 and given.get("axis", 1) % values.ndim != was):
            raise refusal(node, "has scales that are not of output channels")
        stored = self.changed(node.input[0], change)
        result = f"{stored}.float"
        given["axis"] = axis
        self.keep(
            onnx.helper.make_node("DequantizeLinear", [stored, *node.input[1:]], [result], result, **given)
        )
        return result

    def nchw(self, name: str, node: onnx.NodeProto) -> tuple[str, Place]:
        """A tensor with its channels in front of its rows, and its place."""
        place = self.place(name, node)
        if place.layout == "nchw":
            return name, place
        turned, after = f"{name}/nchw", replace(place, layout="nchw")
        if turned not in self.places:
            self.emit("Transpose", [name], [turned], after, perm=[0, 3, 1, 2])
        return turned, after


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node by name; text as str."""
    import onnx

    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()}


def refusal(node: onnx.NodeProto, why: str) -> ModelError:
    """Why a node has no dense form."""
    return ModelError(f"{node.name or node.output[0]} ({node.op_type}): {why}")
