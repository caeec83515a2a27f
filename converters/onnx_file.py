"""The bytes of a user's ONNX file → bare ONNX that can be trusted: one image input, own weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecnn.converters.base import Arrow
from edgecnn.converters.onnx_shapes import real_inputs
from edgecnn.errors import ModelError, first_line, require

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxFile"]

OPSET_MIN = 13
CURE = "export the model again"
RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


@dataclass(frozen=True)
class OnnxFile(Arrow[bytes, "onnx.ModelProto"]):
    """Parses a model and refuses what the rest of the road cannot carry.

    Attributes:
        where: Name of the file, for messages.
    """

    where: str

    name = "onnx_file"

    def requires(self, source: bytes) -> None:
        """Bytes of something; all else is known only after parsing."""
        require("onnx", "convert")
        if not source:
            raise ModelError(f"{self.where}: an empty file")

    def convert(self, source: bytes) -> onnx.ModelProto:
        """Parse."""
        import onnx

        try:
            return onnx.load_model_from_string(source)
        except Exception as error:  # protobuf's DecodeError derives from Exception alone
            raise ModelError(f"{self.where}: not an ONNX model") from error

    def ensures(self, source: bytes, target: onnx.ModelProto) -> None:
        """Check that it is valid, of a usable opset, whole, deterministic, finite, with one input."""
        self._check_whole(target)
        self._check_valid(target)
        self._check_nodes(target)
        self._check_weights(target)
        inputs = real_inputs(target)
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs) or "none"
            raise ModelError(
                f"{self.where}: has {len(inputs)} inputs ({names}); one image input is converted"
            )

    def _check_whole(self, model: onnx.ModelProto) -> None:
        import onnx

        for tensor in _tensors(model.graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ModelError(
                    f"{self.where}: the weights ({tensor.name}) are in another file; put them into the model "
                    "with onnx.save(onnx.load(FILE), OUT)"
                )

    def _check_valid(self, model: onnx.ModelProto) -> None:
        import onnx

        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset < OPSET_MIN:
            raise ModelError(f"{self.where}: opset {opset}; {CURE} with opset {OPSET_MIN} or newer")
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"{self.where}: not a valid ONNX model ({first_line(error)})") from error

    def _check_nodes(self, model: onnx.ModelProto) -> None:
        for node in _nodes(model.graph):
            name = f"{node.name or node.output[0]} ({node.op_type})"
            if node.domain not in ("", "ai.onnx"):
                raise ModelError(
                    f"{self.where}: {name} is an operation of {node.domain}, which other engines lack; "
                    f"{CURE} with standard operations"
                )
            if node.op_type in RANDOM:
                raise ModelError(
                    f"{self.where}: {name} draws random numbers, so results cannot be repeated; "
                    f"{CURE} in eval mode"
                )
            if node.op_type == "BatchNormalization" and any(
                a.name == "training_mode" and a.i for a in node.attribute
            ):
                raise ModelError(f"{self.where}: {name} is in training mode; {CURE} in eval mode")

    def _check_weights(self, model: onnx.ModelProto) -> None:
        import numpy as np
        import onnx

        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
        bad = [
            tensor.name
            for tensor in model.graph.initializer
            if tensor.data_type in floats and np.isnan(onnx.numpy_helper.to_array(tensor)).any()
        ]
        if bad:
            more = ", …" if len(bad) > 3 else ""
            raise ModelError(f"{self.where}: {len(bad)} weights hold NaN ({', '.join(bad[:3])}{more})")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for sub in [attribute.g, *attribute.graphs]:
                yield from _nodes(sub)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]
            for sub in [attribute.g, *attribute.graphs]:
                yield from _tensors(sub)
