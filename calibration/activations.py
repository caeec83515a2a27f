"""Runs a model on samples and observes the tensors inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.observers import Observation, Observer
from edgecnn.errors import InputError, ModelError, require
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, RuntimeOptions, backend

__all__ = ["IMAGES_A_RUN", "OnProgress", "expose", "observe", "runs"]

# all tensors of one run are in memory together, and larger runs are not faster
IMAGES_A_RUN = 2

OnProgress = Callable[[int, int], None]


def observe(
    model: bytes,
    tensors: Sequence[str],
    batches: Iterable[npt.NDArray[np.uint8]],
    *,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Observation]:
    """Observe tensors of a model while ONNX Runtime runs it.

    Memory is that of the tensors for a few images at a time, however many batches come. Tensors that
    are asked for are made outputs of the graph, so the engine cannot fuse them away.

    Args:
        model: Canonical ONNX with one input, uint8 (n, h, w, c).
        tensors: Names of float32 tensors in its graph.
        batches: uint8 (n, h, w, c) each, any n; cut into runs of `IMAGES_A_RUN` images, or of the batch
            that the model is fixed to, where the last, incomplete one is left out.
        threads: Threads of the engine; None is all processors.
        on_progress: Called after each run with the images done and the number of all, which is 0 where
            ``batches`` has no length.

    Returns:
        What was seen, by name, in the order of ``tensors``.

    Raises:
        ModelError: A tensor is not in the graph or not float32, or holds a value that is not finite; names
            the tensor and its layer.
        InputError: There is no image to run, or one does not fit the model.
    """
    exposed, layers = expose(model, tensors)
    artifact = Artifact(format="onnx", content=exposed)
    observers = {name: Observer() for name in layers}
    total = sum(map(len, batches)) if isinstance(batches, Sequence) else 0
    done = 0
    with backend("ort")(artifact, RuntimeOptions(threads=threads)) as runtime:
        _check_float32(runtime.outputs, layers)
        taken = runtime.inputs[0]
        for images in runs(batches, taken.shape[0]):
            outputs = runtime.run({taken.name: images})
            for name, observer in observers.items():
                # let go of it before the next run
                _update(observer, outputs.pop(name), name, layers[name])
            done += len(images)
            if on_progress:
                on_progress(done, total)
    return {name: observers[name].result() for name in tensors}


def expose(model: bytes, tensors: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """The model with the tensors as outputs, and the layer that makes each, in the order of the graph.

    Raises:
        ModelError: A tensor is not in the graph.
    """
    onnx = require("onnx", "convert")
    proto = onnx.load_from_string(model)
    wanted, given = set(tensors), {value.name for value in proto.graph.output}
    layers = {
        name: node.name or node.op_type for node in proto.graph.node for name in node.output if name in wanted
    }
    unknown = [name for name in tensors if name not in layers]
    if unknown:
        raise ModelError(f"{unknown[0]}: no layer of the model makes such a tensor")
    # without a type: the engine infers it
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in layers if name not in given)
    return proto.SerializeToString(), layers


def runs(batches: Iterable[npt.NDArray[np.uint8]], size: int | str | None) -> Iterator[npt.NDArray[np.uint8]]:
    """Cut batches into runs of `IMAGES_A_RUN` images, or of ``size`` where the model is fixed to a number.

    Raises:
        InputError: There are too few for one run.
    """
    fixed = size if isinstance(size, int) else None
    step = fixed or IMAGES_A_RUN
    ran = False
    for batch in batches:
        for start in range(0, len(batch), step):
            images = batch[start : start + step]
            if fixed is None or len(images) == fixed:
                ran = True
                yield images
    if not ran:
        least = fixed or 1
        raise InputError(f"calibration: there are fewer samples than the {least} that the model runs at once")


def _check_float32(outputs: Sequence[TensorInfo], layers: dict[str, str]) -> None:
    for info in outputs:
        if info.name in layers and info.dtype != "float32":
            raise ModelError(f"{info.name} (layer {layers[info.name]}): {info.dtype}, not float32")


def _update(observer: Observer, values: npt.NDArray[Any], tensor: str, layer: str) -> None:
    try:
        observer.update(values)
    except InputError as error:
        raise ModelError(f"{tensor} (layer {layer}): {error}") from error
