"""Spreads the channels that depthwise convolutions read over the whole range of their tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.activations import expose, runs
from edgecnn.calibration.layers import QuantLayer, constant, quant_layers
from edgecnn.errors import require
from edgecnn.runtimes import Artifact, RuntimeOptions, backend

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["equalize"]

Values = npt.NDArray[np.float32]

# a channel that is nearly always zero would get weights of any size
SCALE_MAX = 64.0


def equalize(model: ir.Model, images: npt.NDArray[np.uint8], *, threads: int | None = None) -> ir.Model:
    """Scale channels so that each uses all eight bits of its tensor; the network computes the same.

    One scale holds for all channels of a tensor, so a channel with small values has few steps. Between a
    convolution and the depthwise ones that alone read it, channel c can be multiplied by any s > 0: the
    weights and the bias that make it are, and the weights that read it are divided, as
    ``relu(s x) = s relu(x)``. With r the largest value seen of each channel ::

        s[c] = min(max(r) / r[c], 64)

    Weights have a scale for each output channel, and a depthwise convolution has one input channel for
    each, so no weight becomes coarser. Layers whose activation has an upper bound are left as they are:
    a channel that was scaled would meet it. After "Data-Free Quantization Through Weight Equalization and
    Bias Correction" (Nagel et al., ICCV 2019), which also scales what dense convolutions read.

    Args:
        model: Canonical network with one input, uint8 (n, h, w, c); left as it is.
        images: uint8 (n, h, w, c), to see the channels' values on.
        threads: Threads of the engine; None is all processors.

    Returns:
        A new model with other weights; a copy where there is nothing to scale.

    Raises:
        InputError: There are fewer images than the model runs at once.
    """
    equalized = model.clone()
    pairs = _pairs(equalized)
    if not pairs:
        return equalized
    largest = _largest(model, [maker.output for maker, _ in pairs], images, threads)
    initializers = equalized.graph.initializers
    for maker, readers in pairs:
        seen = largest[maker.output]
        if not seen.any():
            continue
        scale = seen.max() / np.maximum(seen, seen.max() / SCALE_MAX)
        for name in filter(None, (maker.weight, maker.bias)):
            _multiply(initializers[name], scale)
        for reader in readers:
            _multiply(initializers[reader.weight], 1 / scale)
    return equalized


def _pairs(model: ir.Model) -> list[tuple[QuantLayer, list[QuantLayer]]]:
    """Convolutions with the depthwise ones that read them, where nothing else does."""
    layers = quant_layers(model)
    values = {value.name: (value, node.op_type) for node in model.graph for value in node.outputs}
    initializers = model.graph.initializers
    pairs = []
    for maker in layers:
        value, op_type = values[maker.output]
        readers = [layer for layer in layers if layer.input == maker.output]
        weights = [maker.weight, maker.bias, *(reader.weight for reader in readers)]
        if (
            maker.op == "Conv"
            and op_type in ("Conv", "Relu")
            and readers
            and len(value.uses()) == len(readers)
            and not value.is_graph_output()
            and all(_depthwise(reader, initializers) for reader in readers)
            and all(len(initializers[name].uses()) == 1 for name in weights if name)
        ):
            pairs.append((maker, readers))
    return pairs


def _depthwise(layer: QuantLayer, initializers: Mapping[str, ir.Value]) -> bool:
    weight = constant(initializers[layer.weight])
    return layer.op == "Conv" and layer.group > 1 and weight is not None and weight.shape[1] == 1


def _largest(
    model: ir.Model, tensors: list[str], images: npt.NDArray[np.uint8], threads: int | None
) -> dict[str, Values]:
    """The largest magnitude in each channel of tensors (n, channels, ...)."""
    content, _ = expose(require("onnx_ir", "convert").to_proto(model).SerializeToString(), tensors)
    largest: dict[str, Values] = dict.fromkeys(tensors, np.zeros(1, np.float32))
    artifact = Artifact(format="onnx", content=content)
    with backend("ort")(artifact, RuntimeOptions(threads=threads)) as runtime:
        taken = runtime.inputs[0]
        for batch in runs([images], taken.shape[0]):
            outputs = runtime.run({taken.name: batch})
            for name in tensors:
                channels = np.abs(outputs[name]).max((0, *range(2, outputs[name].ndim)))
                largest[name] = np.maximum(largest[name], channels)
    return largest


def _multiply(value: ir.Value, factors: Values) -> None:
    """Multiply the channels of a constant along its first axis."""
    import onnx_ir as ir

    array = np.asarray(constant(value))
    # a depthwise convolution may make several channels of one
    factors = np.repeat(factors, len(array) // len(factors)).reshape(-1, *[1] * (array.ndim - 1))
    value.const_value = ir.tensor((array * factors).astype(np.float32), name=value.name)
