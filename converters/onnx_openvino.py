"""Canonical ONNX → OpenVINO IR: a network in XML and its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.converters.base import Arrow, model_errors
from edgecnn.converters.onnx_shapes import tensor_info
from edgecnn.errors import ModelError, require
from edgecnn.isolation import NO_HURRY, Limits, run_isolated
from edgecnn.manifest import TensorInfo
from edgecnn.openvino_api import find_openvino, port_info, read_model, try_out
from edgecnn.progress import OnWork

__all__ = ["OnnxToOpenVino", "OpenVinoIr"]

# attributes that it leaves out, or stumbles over, by operation and value
MISREAD = (("Resize", "antialias", 1), ("Pad", "mode", b"wrap"))
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


@dataclass(frozen=True)
class OpenVinoIr:
    """A model as OpenVINO stores it.

    Attributes:
        xml, weights: Bytes of its two files.
        inputs, outputs: As they were read back.
        facts: The version that wrote it, and how many of its convolutions and fully connected layers this
            machine's CPU runs in INT8: ``{"openvino": "2026.4.1", "int8_layers": "53 of 53"}``.
    """

    xml: bytes
    weights: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxToOpenVino(Arrow[bytes, OpenVinoIr]):
    """Writes IR. An INT8 model stays one: layers between its Q/DQ pairs run in INT8.

    OpenVINO reads, writes, compiles and runs the model in a child process. The same model gives the same
    bytes.

    Attributes:
        compress: Store weights in float16; what they are computed in is the runtime's choice.
        known: Shape of the input to try it with, where the model leaves sizes open that cannot be 1.
        limits: Of the child.
        on_work: Called before each step of it.
    """

    name = "onnx_openvino"

    compress: bool = False
    known: tuple[int | str | None, ...] = ()
    limits: Limits = NO_HURRY
    on_work: OnWork | None = None

    def requires(self, source: bytes) -> None:
        """An ONNX model that takes uint8, without what OpenVINO would misread, and OpenVINO."""
        find_openvino()
        graph = _graph(source)
        for node in graph.node:
            for attribute in node.attribute:
                if (node.op_type, attribute.name, _value(attribute)) in MISREAD:
                    raise ModelError(
                        f"{node.name or node.output[0]} ({node.op_type}): OpenVINO does not know its "
                        f"{attribute.name} in this form; give it fixed sizes, or use another layer"
                    )
        for value in graph.input:
            dtype = tensor_info(value).dtype
            if dtype != "uint8":
                raise ModelError(
                    f"input {value.name} is {dtype}; IR is made from a model that takes uint8, "
                    "with its preprocessing inside"
                )

    def convert(self, source: bytes) -> OpenVinoIr:
        """Write it, read it back, compile it and run it once, in a child process.

        Raises:
            ModelError: OpenVINO refuses the model; says which operation.
            CompilerFailed: Its compiler died or passed a limit.
        """
        try:
            made = run_isolated(
                f"{__name__}:_convert",
                {"model": source, "compress": self.compress, "known": [list(self.known)]},
                what="OpenVINO's compiler",
                limits=self.limits,
                on_work=self.on_work or (lambda what, done, total: None),
            )
        except ModelError as error:
            raise type(error)(f"{error}{_places(source, str(error))}") from error
        return msgspec.convert(made, OpenVinoIr)

    def ensures(self, source: bytes, target: OpenVinoIr) -> None:
        """Check that inputs and outputs have the names, types and shapes that the source gives them."""
        graph = _graph(source)
        for kind, values, found in (
            ("input", graph.input, target.inputs),
            ("output", graph.output, target.outputs),
        ):
            wanted = [tensor_info(value) for value in values]
            if [_form(info) for info in wanted] != [_form(info) for info in found]:
                raise ModelError(f"the IR has the {kind}s {found} where the model has {wanted}")


def _graph(source: bytes) -> Any:
    onnx = require("onnx", "convert")
    with model_errors("not an ONNX model"):
        return onnx.load_from_string(source).graph


def _value(attribute: Any) -> Any:
    return require("onnx", "convert").helper.get_attribute_value(attribute)


def _places(source: bytes, message: str) -> str:
    """The nodes of operations that OpenVINO has no rule for; it names the operations alone."""
    listed = message.partition("found for operations: ")[2]
    kinds = {word.rsplit("-", 1)[0].rpartition(".")[2] for word in listed.strip(")").split(", ")}
    nodes = [
        f"{node.name or node.output[0]} ({node.op_type})"
        for node in _graph(source).node
        if node.op_type in kinds
    ]
    return f": {', '.join(nodes[:5])}" if listed and nodes else ""


def _form(info: TensorInfo) -> tuple[str, str, list[int | None]]:
    return info.name, info.dtype, [size if isinstance(size, int) else None for size in info.shape]


def _convert(
    model: bytes, compress: bool, known: list[list[int | str | None]], progress: OnWork
) -> dict[str, Any]:
    """What the child does: ONNX in, the fields of `OpenVinoIr` out."""
    openvino = find_openvino()
    progress("reading", 0, 3)
    network = read_model(model)
    progress("writing", 1, 3)
    with tempfile.TemporaryDirectory() as folder, model_errors("OpenVINO cannot write it"):
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.save_model(network, xml, compress_to_fp16=compress)
        content, data = xml.read_bytes(), weights.read_bytes()
    progress("compiling", 2, 3)
    arithmetic = list(try_out(content, data, "CPU", EXACT, known)["arithmetic"].values())
    written = read_model(content, data)
    return {
        "xml": content,
        "weights": data,
        "inputs": [msgspec.to_builtins(port_info(port)) for port in written.inputs],
        "outputs": [msgspec.to_builtins(port_info(port)) for port in written.outputs],
        "facts": {
            "openvino": openvino.__version__.partition("-")[0],
            "int8_layers": f"{arithmetic.count('i8')} of {len(arithmetic)}",
        },
    }
