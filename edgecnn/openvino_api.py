"""What the converter to OpenVINO and the runtime share: import, reader, compiler, a trial of a model."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, repeat, zip_longest
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import ModelError, first_line, require
from edgecnn.manifest import TensorInfo
from edgecnn.packed_pixels import PREFIX, Unpacked

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
    _unpack_pixels(model)
    _change_layout_last(model)
    _write_down_shapes(model)
    _stop_bytes(model)
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


def _unpack_pixels(model: Any) -> None:
    """Let the first layer of an INT8 model read its pixels one by one again.

    Four at a time are for ONNX Runtime's kernels. The CPU plugin has others, and where the batch is open it
    moves all bytes before the layer and behind it.
    """
    opset = find_openvino().opset13
    added = [node for node in model.get_ordered_ops() if node.get_friendly_name().startswith(PREFIX)]
    if not added:
        return
    before = Unpacked.of(added[0].get_friendly_name())
    path = [next(node for node in reversed(added) if "/before" in node.get_friendly_name())]
    while path[-1].get_type_name() != "Convolution":
        path.append(next(iter(path[-1].output(0).get_target_inputs())).get_node())
    conv = path.pop()
    for node in added:
        _replace(node, node.input_value(0))
    for node in path[1:]:
        node.validate_and_infer_types()
    scaled = conv.input_value(1).get_node()
    whole, scales = scaled.input_value(0).get_node(), scaled.input_value(1)
    codes = before.codes(whole.input_value(0).get_node().data)

    def first(value: Any, axis: int) -> Any:
        """The first of four positions, or of two."""
        return opset.slice(value, [0], [len(codes)], [1], [axis])

    single = opset.convolution(
        conv.input_value(0),
        opset.multiply(opset.convert(opset.constant(codes), "f32"), first(scales, 0)),
        [conv.get_attributes()["strides"][0], before.stride],
        [before.top, before.left],
        [before.bottom, before.right],
        [1, 1],
        name=conv.get_friendly_name(),
    )
    _replace(conv, single.output(0))
    for reader in single.output(0).get_target_inputs():
        bias = reader.get_node()
        if bias.get_type_name() == "Add":
            bias.input(1).replace_source_output(first(bias.input_value(1), 1).output(0))


def _replace(node: Any, value: Any) -> None:
    """All that read a node read another value."""
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(value)


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


def _write_down_shapes(model: Any) -> None:
    """Give each Reshape whose result has a known shape that shape as a constant.

    OpenVINO reads a bias as a Reshape that asks what its convolution gives, and later asks there, too, where
    anything else wants to know the batch. With a second reader the CPU plugin does not add the bias in the
    convolution but in the FakeQuantize behind it, and there adds the first channel's to all channels.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Reshape" or node.get_output_partial_shape(0).is_dynamic:
            continue
        if node.input_value(1).get_node().get_type_name() != "Constant":
            shape = find_openvino().opset13.constant(np.array(node.get_output_shape(0), np.int64))
            node.input(1).replace_source_output(shape.output(0))


def _stop_bytes(model: Any) -> None:
    """Let an INT8 model be in float where OpenVINO would get bytes wrong.

    * An average pool: it would count a border as code 0, which is not zero where there is a zero point, and
      round what other operations read from the pool.
    * A Concat of tokens: it would quantise what the Concat reads, with a scale for each token.
    * A Reshape from (n * tokens, channels) to (n, tokens, channels): scales of channels would move past it.

    Its compiler stops at the latter two. A maximum with the lowest number changes nothing, but neither
    bytes nor scales pass it.
    """
    nodes = model.get_ordered_ops()
    if all(node.get_type_name() != "FakeQuantize" for node in nodes):
        return
    lowest = np.finfo(np.float32).min
    for node in nodes:
        if node.get_type_name() == "AvgPool" or _quantizes_joined_tokens(node) or _splits_batch(node):
            source = node.input_value(0)
            if source.get_node().get_type_name() == "Maximum":  # IR that was made here
                continue
            floats = find_openvino().opset13.maximum(source, lowest)
            node.input(0).replace_source_output(floats.output(0))


def _quantizes_joined_tokens(node: Any) -> bool:
    if node.get_type_name() != "FakeQuantize":
        return False
    source = node.input_value(0)
    return source.get_node().get_type_name() == "Concat" and bool(source.get_partial_shape().rank == 3)


def _splits_batch(node: Any) -> bool:
    if node.get_type_name() != "Reshape":
        return False
    before, after = node.get_input_partial_shape(0), node.get_output_partial_shape(0)
    if before.rank != 2 or after.rank.is_dynamic or not (before[1:].is_static and after[1:].is_static):
        return False
    return bool(math.prod(before[1:].to_shape()) != math.prod(after[1:].to_shape()))


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


def try_out(
    content: bytes,
    weights: bytes,
    device: str,
    config: Mapping[str, Any],
    known: Sequence[Sequence[int | str | None]] = (),
) -> dict[str, Any]:
    """Compile a model and run it on zeros; to be called in a child process.

    Kernels for sizes that are left open are made at an inference only, here for sizes of 1 and 2: in a model
    that takes one of them alone, OpenVINO reads past the end of its memory.

    Args:
        content: The model.
        weights: Its second file, where it has one.
        device: OpenVINO's name of the device.
        config: Its settings.
        known: Shapes of the inputs, for sizes that the model leaves open and that cannot be 1.

    Returns:
        ``arithmetic``: what each of the heavy layers computes in, such as ``f32`` or ``i8``, by name.
    """
    compiled = compile_model(read_model(content, weights), device, config)
    try:
        for size in (1, 2):
            shapes = chain(known, repeat(()))
            compiled([_zeros(port_info(port), size, shape) for port, shape in zip(compiled.inputs, shapes)])
    except Exception as error:  # as above
        raise ModelError(f"OpenVINO compiles it, but cannot run it ({useful_line(error)})") from error
    return {"arithmetic": _arithmetic(compiled) if device == "CPU" else {}}


def _zeros(info: TensorInfo, open_size: int, known: Sequence[int | str | None]) -> npt.NDArray[Any]:
    sizes = [
        next((size for size in pair if isinstance(size, int)), open_size)
        for pair in zip_longest(info.shape, known)
    ]
    return np.zeros(sizes, info.dtype)


def _arithmetic(compiled: Any) -> dict[str, str]:
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        notes = node.get_rt_info()
        if notes["layerType"].astype(str) in HEAVY:
            # such as brgconv_avx512_I8; the precision beside it may be that of stored weights
            found[node.get_friendly_name()] = notes["primitiveType"].astype(str).rsplit("_", 1)[-1].lower()
    return found
