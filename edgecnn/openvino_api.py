"""What the converter to OpenVINO and the runtime share: import, reader, compiler, a trial of a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import ModelError, first_line, require
from edgecnn.manifest import TensorInfo

__all__ = ["compile_model", "core", "find_openvino", "port_info", "read_model", "try_out", "useful_line"]

TELEMETRY = "openvino_telemetry"
# how the lines of its errors begin that say where in OpenVINO, not where in the model
NOISE = (
    "Exception from ",
    "Check '",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "Summary:",
    "To facilitate the conversion",
)
# its layers that do the bulk of the work
HEAVY = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def find_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which would report each import over the network.

    Raises:
        MissingDependency: It is not installed.
    """
    if "openvino" not in sys.modules and TELEMETRY not in sys.modules:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment] # not installed, as far as it can see
        try:
            return require("openvino", "openvino")
        finally:
            del sys.modules[TELEMETRY]
    return require("openvino", "openvino")


@cache
def core() -> Any:
    """The one entry to OpenVINO in this process.

    Raises:
        MissingDependency: It is not installed.
    """
    return find_openvino().Core()


def read_model(content: bytes, weights: bytes = b"") -> Any:
    """Read ONNX, or IR with its weights, from memory.

    Raises:
        ModelError: OpenVINO refuses it; says which operation or why.
    """
    reader = core()
    try:
        model = reader.read_model(content, weights) if weights else reader.read_model(content)
    except Exception as error:  # OpenVINO raises RuntimeError and others
        raise ModelError(f"OpenVINO refuses it ({useful_line(error)})") from error
    _change_layout_last(model)
    _average_in_float(model)
    model.validate_nodes_and_infer_types()
    return model


def compile_model(model: Any, device: str, config: Mapping[str, Any]) -> Any:
    """Make a model ready to run.

    Args:
        model: As `read_model` gives it.
        device: OpenVINO's own name, such as ``CPU``.
        config: Its settings.

    Raises:
        ModelError: OpenVINO's compiler refuses it.
    """
    compiler = core()
    try:
        return compiler.compile_model(model, device, dict(config))
    except Exception as error:  # as above
        raise ModelError(f"OpenVINO's compiler refuses it ({useful_line(error)})") from error


def useful_line(error: BaseException) -> str:
    """The line of one of OpenVINO's long errors that speaks of the model."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(NOISE)]
    return first_line(RuntimeError("; ".join((useful or lines)[:2])))


def _change_layout_last(model: Any) -> None:
    """Move the transposition of uint8 pixels behind their scale and zero point.

    With the transposition first, the CPU plugin would run the layer that reads them in float.
    """
    for pixels in model.get_parameters():
        transpose = _only_reader(pixels, "Transpose")
        first = last = _only_reader(transpose, "Convert")
        for kind in ("Subtract", "Multiply"):
            following = _only_reader(last, kind)
            # a scalar stands for all channels, wherever they are
            if following is not None and following.input_value(1).get_partial_shape().rank == 0:
                last = following
        if transpose is None or first is None or last.get_type_name() != "Multiply":
            continue
        readers = last.output(0).get_target_inputs()
        first.input(0).replace_source_output(pixels.output(0))
        transpose.input(0).replace_source_output(last.output(0))
        for reader in readers:
            reader.replace_source_output(transpose.output(0))


def _average_in_float(model: Any) -> None:
    """Let average pools of an INT8 model read floats.

    On bytes the CPU plugin counts a border as code 0, which is not zero where there is a zero point, and
    rounds what other operations read from a pool. A maximum with the lowest number changes nothing, but bytes
    do not pass through it.
    """
    nodes = model.get_ordered_ops()
    if all(node.get_type_name() != "FakeQuantize" for node in nodes):
        return
    lowest = np.finfo(np.float32).min
    for pool in nodes:
        source = pool.input_value(0) if pool.get_type_name() == "AvgPool" else None
        if source is not None and source.get_node().get_type_name() != "Maximum":
            floats = find_openvino().opset13.maximum(source, lowest)
            pool.input(0).replace_source_output(floats.output(0))


def _only_reader(node: Any, kind: str) -> Any:
    """The one node that reads another, if it is of this kind."""
    readers = list(node.output(0).get_target_inputs()) if node is not None else []
    found = readers[0].get_node() if len(readers) == 1 else None
    return found if found is not None and found.get_type_name() == kind else None


def port_info(port: Any) -> TensorInfo:
    """An input or output of a model; a size that is left open is None.

    Other values that share its tensor, such as what an Identity copies, have left their names on it, too.
    """
    own, names = port.get_node().get_friendly_name().removesuffix("/sink_port_0"), port.get_names()
    return TensorInfo(
        name=min(names) if names and own not in names else own,
        dtype=port.get_element_type().to_dtype().name,
        shape=tuple(int(size.get_length()) if size.is_static else None for size in port.get_partial_shape()),
    )


def try_out(content: bytes, weights: bytes, device: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Compile a model and run it on zeros; to be called in a child process.

    Kernels for sizes that are left open are made at an inference only, here for sizes of 1 and 2: in a model
    that takes one of them alone, OpenVINO reads past the end of its memory.

    Returns:
        ``arithmetic``: what each of the heavy layers computes in, such as ``f32`` or ``i8``, by name.
    """
    compiled = compile_model(read_model(content, weights), device, config)
    try:
        for size in (1, 2):
            compiled([_zeros(port_info(port), size) for port in compiled.inputs])
    except Exception as error:  # as above
        raise ModelError(f"OpenVINO compiles it, but cannot run it ({useful_line(error)})") from error
    return {"arithmetic": _arithmetic(compiled) if device == "CPU" else {}}


def _zeros(info: TensorInfo, open_size: int) -> npt.NDArray[Any]:
    return np.zeros([size if isinstance(size, int) else open_size for size in info.shape], info.dtype)


def _arithmetic(compiled: Any) -> dict[str, str]:
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        notes = node.get_rt_info()
        if notes["layerType"].astype(str) in HEAVY:
            # such as brgconv_avx512_I8; the precision beside it may be that of stored weights
            found[node.get_friendly_name()] = notes["primitiveType"].astype(str).rsplit("_", 1)[-1].lower()
    return found
