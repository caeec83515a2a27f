"""Rounds weights to int8 so that what a layer gives, not the weights themselves, changes least.

Rounding each weight to the nearest step is best for inputs that have nothing to do with one another. Inputs
of real layers are correlated, so the error that one weight makes can be taken back by the weights of its
neighbours, and what is left of it on average by the bias. Both need the mean and the covariance of the
inputs, which a few images show; nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.activations import OnProgress, expose, runs
from edgecnn.calibration.layers import ConvGeometry, QuantLayer, constant
from edgecnn.calibration.ranges import QuantParams, weight_scales
from edgecnn.errors import ModelError, require
from edgecnn.runtimes import Artifact, Outputs, RuntimeOptions, backend

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Int8Weights", "round_weights"]

Values = npt.NDArray[np.float64]

# output positions of a layer that are looked at, per image: neighbours say nearly the same
POSITIONS = 32
# covariances that are in memory together; where there are more, the images run once more
BYTES_A_PASS = 1 << 30
# a layer with a larger one is rounded to the nearest: its inverse would take hours
BYTES_A_LAYER = 1 << 28
# what is added to each variance, in shares of their mean: samples are too few to trust small ones
DAMPING = 0.03
# columns whose errors are handed on to all later ones at once
BLOCK = 128
# half of what an int32 holds: the bias may still grow by its correction
BIAS_MAX = 2.0**30


@dataclass(frozen=True, eq=False)
class Int8Weights:
    """The weights of a layer: ``real = scales * codes``, by output channel.

    Attributes:
        codes: int8 in -127..127, of the weight's shape.
        scales: float32 (output channels,).
        bias: float32 (output channels,) with the correction in it, also of layers that had none before;
            None where there was none and none can be worked out.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None


def round_weights(
    model: ir.Model,
    layers: Sequence[QuantLayer],
    params: Mapping[str, QuantParams],
    images: npt.NDArray[np.uint8],
    *,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Int8Weights]:
    """Round the weights of layers for inputs that are quantised too.

    The model runs in float. With x the input patches of a layer at sampled positions and q(x) the same
    behind quantisation, the codes of a channel w with scale s are chosen for a small
    ``var((w - s codes) q(x))``: column by column, each error handed on to the columns to come, as in
    "GPTQ" (Frantar et al., 2022) after the Optimal Brain Surgeon (Hassibi and Stork, 1993). The mean is
    left to the bias, corrected as in "Data-Free Quantization Through Weight Equalization and Bias
    Correction" (Nagel et al., 2019), there the empirical form::

        bias += w E[x] - s codes E[q(x)]

    The scales are those with the smallest squared error of the weights, and large enough for the bias to
    be an int32 in steps of ``input scale * scale``. ConvTranspose, Conv of other than two dimensions,
    and layers that read more than 5,792 values at once are rounded to the nearest code.

    Args:
        model: Canonical model in float; stays as it is.
        layers: Those of its layers to round.
        params: Of each layer's input, by name of the tensor.
        images: uint8 (n, h, w, c), as the model takes them.
        threads: Threads of the engine; None is all processors.
        on_progress: Called after each run with the images done and the number of all; the images count
            as often as they have to run.

    Returns:
        By name of the layer, in the order of ``layers``.

    Raises:
        InputError: There are fewer images than the model is fixed to, or they do not fit it.
        ModelError: The model does not compute the input of a layer.
    """
    seen = [
        layer
        for layer in layers
        if (layer.geometry is not None or layer.op in ("Gemm", "MatMul"))
        and _covariance_bytes(model, layer) <= BYTES_A_LAYER
    ]
    passes = _passes(model, seen)
    content = require("onnx_ir", "convert").to_proto(model).SerializeToString()
    rounded: dict[str, Int8Weights] = {}
    done = 0
    for part in passes:
        sums = {layer.name: _PatchSums(layer, params[layer.input], _depth(model, layer)) for layer in part}
        exposed, _ = expose(content, list(dict.fromkeys(layer.input for layer in part)))
        artifact = Artifact(format="onnx", content=exposed)
        with backend("ort")(artifact, RuntimeOptions(threads=threads)) as runtime:
            taken = runtime.inputs[0]
            for batch in runs([images], taken.shape[0]):
                _add(sums.values(), runtime.run({taken.name: batch}), len(batch))
                done += len(batch)
                if on_progress:
                    on_progress(done, len(passes) * len(images))
        for layer in part:
            rounded[layer.name] = _rounded(model, layer, params[layer.input], sums.pop(layer.name))
    return {
        layer.name: rounded.get(layer.name) or _rounded(model, layer, params[layer.input], None)
        for layer in layers
    }


class _PatchSums:
    """Adds up the input patches of a layer.

    Quantised ones count in steps of the input's scale: of whole numbers all sums are exact, in any order.
    """

    def __init__(self, layer: QuantLayer, params: QuantParams, depth: int) -> None:
        self.layer = layer
        self._params = params
        self._products = np.zeros((layer.group, depth, depth))
        self._steps = np.zeros((layer.group, depth))
        self._values = np.zeros((layer.group, depth))
        self._rows = 0
        self._rng = np.random.default_rng(0)

    def add(self, tensor: npt.NDArray[np.float32], images: int) -> None:
        """Take patches of the layer's input for some images."""
        patches = _patches(tensor, self.layer, images * POSITIONS, self._rng)
        params = self._params
        lowest, highest = params.qmin - params.zero_point, params.qmax - params.zero_point
        rounded = np.clip(np.rint(patches / np.float32(params.scale)), lowest, highest)
        steps = rounded.astype(np.float64).transpose(1, 2, 0)
        self._products += steps @ steps.transpose(0, 2, 1)
        self._steps += steps.sum(axis=2)
        self._values += patches.sum(axis=0, dtype=np.float64)
        self._rows += len(patches)

    def means(self) -> tuple[Values, Values]:
        """The mean patch as it is and quantised, (groups, depth) each."""
        return self._values / self._rows, self._steps / self._rows * self._params.scale

    def covariance(self, *, centred: bool = True) -> Values:
        """Of the quantised patches in steps, (groups, depth, depth); about zero where not centred."""
        mean = self._steps / self._rows * centred
        return self._products / self._rows - mean[:, :, None] * mean[:, None, :]


def _array(model: ir.Model, name: str) -> npt.NDArray[Any]:
    array = constant(model.graph.initializers[name])
    if array is None:
        raise ModelError(f"{name}: is no constant of the model")
    return array


def _depth(model: ir.Model, layer: QuantLayer) -> int:
    """Weights of one output channel."""
    weight = _array(model, layer.weight)
    return int(weight.size // weight.shape[layer.channel_axis])


def _covariance_bytes(model: ir.Model, layer: QuantLayer) -> int:
    return 8 * layer.group * _depth(model, layer) ** 2


def _passes(model: ir.Model, layers: Sequence[QuantLayer]) -> list[list[QuantLayer]]:
    """The layers in parts whose covariances fit into memory."""
    passes: list[list[QuantLayer]] = []
    used = 0
    for layer in layers:
        size = _covariance_bytes(model, layer)
        if not passes or used + size > BYTES_A_PASS:
            passes.append([])
            used = 0
        passes[-1].append(layer)
        used += size
    return passes


def _add(sums: Iterable[_PatchSums], outputs: Outputs, images: int) -> None:
    # a function of its own, so that nothing holds the tensors during the next run
    for each in sums:
        each.add(outputs[each.layer.input], images)


def _patches(
    tensor: npt.NDArray[np.float32], layer: QuantLayer, count: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Inputs of the layer at so many random output positions, or at all: (positions, groups, depth)."""
    if layer.geometry is None:
        rows = tensor.reshape(-1, tensor.shape[-1])
        return rows[_sample(len(rows), count, rng), None]
    windows = _windows(tensor, layer.geometry)
    shape = windows.shape[0], *windows.shape[2:4]
    image, y, x = np.unravel_index(_sample(math.prod(shape), count, rng), shape)
    patches = windows[image, :, y, x]
    return patches.reshape(len(patches), layer.group, -1)


def _sample(size: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rng.choice(size, min(size, count), replace=False)


def _windows(tensor: npt.NDArray[np.float32], geometry: ConvGeometry) -> npt.NDArray[np.float32]:
    """What each output position reads: a view (n, c, output h, output w, kernel h, kernel w)."""
    top, left, bottom, right = geometry.pads
    padded = np.pad(tensor, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spans = [step * (size - 1) + 1 for step, size in zip(geometry.dilations, geometry.kernel_hw)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    (down, across), (dilation_y, dilation_x) = geometry.strides, geometry.dilations
    return windows[:, :, ::down, ::across, ::dilation_y, ::dilation_x]


def _rounded(model: ir.Model, layer: QuantLayer, params: QuantParams, sums: _PatchSums | None) -> Int8Weights:
    weight = np.moveaxis(_array(model, layer.weight), layer.channel_axis, 0)
    bias = None if layer.bias is None else _array(model, layer.bias)
    scales = weight_scales(weight, 0, mse=True)
    if bias is not None:
        # a channel that is all but dead can have a bias that is out of reach for its steps
        largest = np.abs(bias.astype(np.float64)).reshape(-1, len(scales)).max(axis=0)
        scales = np.maximum(scales, largest / params.scale / BIAS_MAX).astype(np.float32)
    groups = 1 if sums is None else layer.group
    rows = weight.reshape(groups, len(scales) // groups, -1).astype(np.float64)
    steps = scales.astype(np.float64).reshape(groups, -1)
    if sums is None:
        codes = _nearest(rows, steps[:, :, None])
    else:
        # a MatMul has no bias that could take the mean
        codes = _compensated(rows, steps, sums.covariance(centred=layer.op != "MatMul"))
        values, quantised = sums.means()
        shift = rows @ values[:, :, None] - (codes * steps[:, :, None]) @ quantised[:, :, None]
        bias = (shift.ravel() + (0 if bias is None else bias)).astype(np.float32)
    shaped = np.moveaxis(codes.reshape(weight.shape), 0, layer.channel_axis)
    return Int8Weights(np.ascontiguousarray(shaped, np.int8), scales, bias)


def _nearest(values: Values, steps: Values) -> Values:
    return np.clip(np.rint(values / steps), -127, 127)


def _compensated(weights: Values, steps: Values, covariance: Values) -> Values:
    """Round one column after the other and let the later ones make up for its error.

    With C the covariance, damped, and U the upper triangle for which ``U U^T = C``, the error that errors e
    make in the output is ``|e U|^2``. Column j is left with ``e U[:, j]``, to which no later one adds, so it
    is rounded where that is nearest to zero: at ``w[j] + e[:j] U[:j, j] / U[j, j]``. These are the codes of
    "GPTQ", without the inverse that it works with (Babai's nearest plane, 1986).

    Args:
        weights: (groups, channels, depth).
        steps: (groups, channels).
        covariance: (groups, depth, depth).

    Returns:
        Whole numbers in -127..127, as the weights.
    """
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    # large ones first, while there are many columns left to make up for them
    order = np.argsort(-variances, axis=1, kind="stable")
    groups, depth = order.shape
    group = np.arange(groups)[:, None, None]
    mean = variances.mean(axis=1)
    damped = covariance[group, order[:, :, None], order[:, None, :]]
    # where no input varies any codes do, and the nearest are taken
    damped[:, range(depth), range(depth)] += np.where(mean > 0, DAMPING * mean, 1.0)[:, None]
    # the lower factor of the matrix turned about is the upper one of the matrix
    upper = np.linalg.cholesky(damped[:, ::-1, ::-1])[:, ::-1, ::-1]
    carried = upper / np.diagonal(upper, axis1=1, axis2=2)[:, None]
    # columns as rows, which lie together in memory
    wanted = np.take_along_axis(weights.transpose(0, 2, 1), order[:, :, None], axis=1)
    codes, errors = np.empty_like(wanted, order="C"), np.empty_like(wanted, order="C")
    for start in range(0, depth, BLOCK):
        stop = min(start + BLOCK, depth)
        made_up = carried[:, :start, start:stop].transpose(0, 2, 1) @ errors[:, :start]
        for j in range(start, stop):
            codes[:, j] = _nearest(wanted[:, j] + made_up[:, j - start], steps)
            errors[:, j] = wanted[:, j] - codes[:, j] * steps
            made_up[:, j - start + 1 :] += carried[:, j, j + 1 : stop, None] * errors[:, j, None]
    codes = np.take_along_axis(codes, np.argsort(order, axis=1)[:, :, None], axis=1)
    in_place: Values = codes.transpose(0, 2, 1)
    return in_place
