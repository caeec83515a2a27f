"""The model before conversion, run on the very inputs that its artifacts take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.load import LoadedModel
from edgecnn.converters.onnx_canonical import Canonical
from edgecnn.runtimes import Artifact, Outputs, backend
from edgecnn.spec import ModelSpec

__all__ = ["activate", "normalise", "reference_for"]

Reference = Callable[[npt.NDArray[np.uint8]], Outputs]


def reference_for(loaded: LoadedModel, converted: Canonical, spec: ModelSpec) -> Reference:
    """A function from uint8 (n, h, w, c) to the outputs that a perfect conversion would give.

    A torch model runs in torch with its preprocessing written in torch. An ONNX model runs as it
    came, with preprocessing and activation in numpy.
    """
    if loaded.kind == "torch":
        artifact = Artifact("torch", converted.reference, loaded.name, converted.inputs, converted.outputs)
        runtime = backend("torch")(artifact)
        return lambda images: runtime.run({runtime.inputs[0].name: images})
    return _onnx_reference(loaded, converted, spec)


def normalise(images: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """``(pixel * scale - mean) / std`` per channel, uint8 (n, h, w, c) to float32 (n, c, h, w)."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    values = (images.astype(np.float32) * np.float32(spec.scale) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def activate(values: npt.NDArray[Any], spec: ModelSpec) -> npt.NDArray[Any]:
    """The spec's activation, over the last axis for softmax; finite for logits of any size."""
    if spec.activation == "softmax":
        shifted = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
    if spec.activation == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -values)), values.dtype)
    return values


def _onnx_reference(loaded: LoadedModel, converted: Canonical, spec: ModelSpec) -> Reference:
    runtime = backend("ort")(Artifact(format="onnx", content=converted.reference, name=loaded.name))
    taken = runtime.inputs[0]
    chosen = spec.output or runtime.outputs[0].name
    names = [info.name for info in converted.outputs]

    def run(images: npt.NDArray[np.uint8]) -> Outputs:
        outputs = runtime.run({taken.name: images if taken.dtype == "uint8" else normalise(images, spec)})
        first = activate(outputs.pop(chosen), spec)
        return dict(zip(names, [first, *outputs.values()]))

    return run
