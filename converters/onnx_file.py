"""The bytes of a user's ONNX file → bare ONNX that can be trusted: one image input, own weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import Arrow, model_errors
from edgecnn.converters.onnx_shapes import real_inputs
from edgecnn.errors import ModelError, require
from edgecnn.external_data import external_tensor

if TYPE_CHECKING:
    import numpy.typing as npt
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
# operations that multiply by what they are given, where infinity is never meant
MULTIPLYING = {
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "PRelu",
    "LSTM",
    "GRU",
    "RNN",
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
        """Bytes of something, and all of it; all else is known only after parsing."""
        require("onnx", "convert")
        if not source:
            raise ModelError(f"{self.where}: an empty file")
        try:
            external = external_tensor(source)
        except ValueError as error:
            raise ModelError(f"{self.where}: not an ONNX model ({error})") from error
        if external is not None:
            raise ModelError(
                f"{self.where}: the weights ({external}) are in another file; put them into the model "
                "with onnx.save(onnx.load(FILE), OUT)"
            )

    def convert(self, source: bytes) -> onnx.ModelProto:
        """Parse, and name the nodes that have no name: ``Conv_3`` is a Conv and the fourth node."""
        import onnx

        with model_errors(f"{self.where}: not an ONNX model"):
            model = onnx.load_model_from_string(source)
            _name_nodes(model.graph)
        return model

    def ensures(self, source: bytes, target: onnx.ModelProto) -> None:
        """Check that it is valid, of a usable opset, whole, deterministic, finite, with one input."""
        with model_errors(f"{self.where}: not a valid ONNX model"):
            self._check_valid(target)
            self._check_nodes(target)
            self._check_weights(target)
        inputs = real_inputs(target)
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs) or "none"
            raise ModelError(
                f"{self.where}: has {len(inputs)} inputs ({names}); one image input is converted"
            )

    def _check_valid(self, model: onnx.ModelProto) -> None:
        import onnx

        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset < OPSET_MIN:
            raise ModelError(f"{self.where}: opset {opset}; {CURE} with opset {OPSET_MIN} or newer")
        onnx.checker.check_model(model)

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
        """Refuse NaN, and infinity where it is multiplied; elsewhere it may be a mask or a limit."""
        import numpy as np

        factors = {name for node in _nodes(model.graph) if node.op_type in MULTIPLYING for name in node.input}
        bad = []
        for name, values in _floats(model.graph):
            wrong = ~np.isfinite(values) if name in factors else np.isnan(values)
            if wrong.any():
                bad.append(name)
        if bad:
            more = ", …" if len(bad) > 3 else ""
            raise ModelError(
                f"{self.where}: {len(bad)} weights hold NaN or infinity ({', '.join(bad[:3])}{more}); "
                "train again"
            )


def _name_nodes(graph: onnx.GraphProto) -> None:
    taken = {node.name for node in _nodes(graph)}
    for position, node in enumerate(graph.node):
        if not node.name:
            name = f"{node.op_type}_{position}"
            while name in taken:
                name += "_"
            node.name = name


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for sub in [attribute.g, *attribute.graphs]:
                yield from _nodes(sub)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initialisers and the tensors in attributes, by the name of the value that they are."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in [attribute.t, *attribute.tensors]:
                yield node.output[0], tensor
            for sub in [attribute.g, *attribute.graphs]:
                yield from _tensors(sub)


def _floats(graph: onnx.GraphProto) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Constants of a graph and of those inside it that could be NaN, by the name of their value."""
    import numpy as np
    import onnx

    tensor_proto = onnx.TensorProto
    kinds = (tensor_proto.FLOAT, tensor_proto.FLOAT16, tensor_proto.BFLOAT16, tensor_proto.DOUBLE)
    for name, tensor in _tensors(graph):
        if tensor.data_type in kinds:
            yield name, onnx.numpy_helper.to_array(tensor)
    for node in _nodes(graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                yield node.output[0], np.array([attribute.f, *attribute.floats])
