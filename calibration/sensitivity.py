"""How much each layer costs when it alone is in INT8: measured once, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.activations import OnProgress, runs
from edgecnn.calibration.cache import cache_folder
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.calibration.placement import Placement
from edgecnn.calibration.search import LayerSensitivity
from edgecnn.paths import make_private, replace_file
from edgecnn.runtimes import Artifact, RuntimeOptions, backend

__all__ = ["IMAGES_MAX", "layer_sensitivities"]

log = logging.getLogger(__name__)

# errors of layers differ by factors, which a few images show
IMAGES_MAX = 24
FORMAT = 1


def layer_sensitivities(
    builder: Int8Builder,
    placement: Placement,
    macs: Mapping[str, int],
    images: npt.NDArray[np.uint8],
    *,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    cache_dir: Path | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Measure the error of the network's first output with one layer in INT8, for each layer.

    With p the outputs then and f those with no layer in INT8: ``error = sqrt(sum (p - f)**2 / sum f**2)``.

    Args:
        builder: Of the network.
        placement: Style of the INT8 model.
        macs: Multiply-accumulates by name of the layer.
        images: uint8 (n, h, w, c); up to 24, evenly spread over them, are run, or the batch that the
            network is fixed to.
        threads: Threads of the engine; None is all processors.
        on_progress: Called after each layer with the layers done and the number of all; not where the
            cache answers.
        cache_dir: Where the figures are kept; None is beside the observations.

    Returns:
        One a layer, in the order of the network.

    Raises:
        InputError: There are fewer images than the network runs at once.
    """
    names = [layer.name for layer in builder.layers]
    all_int8 = builder.build(placement)
    parts = [str(FORMAT).encode(), placement.encode(), all_int8, images.tobytes()]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    file = (cache_dir or cache_folder().parent / "sensitivities") / f"{key}.json"
    errors = _read(file, names)
    if errors is None:
        errors = _measure(lambda kept: builder.build(placement, kept), names, images, threads, on_progress)
        _write(file, errors)
    return tuple(LayerSensitivity(name, macs.get(name, 0), errors[name]) for name in names)


def _measure(
    build: Callable[[Collection[str]], bytes],
    names: list[str],
    images: npt.NDArray[np.uint8],
    threads: int | None,
    on_progress: OnProgress | None,
) -> dict[str, float]:
    exact = _first_output(build(names), images, threads)
    size = float(np.linalg.norm(exact)) or 1.0
    errors = {}
    for done, name in enumerate(names, 1):
        rounded = _first_output(build([other for other in names if other != name]), images, threads)
        errors[name] = float(np.linalg.norm(rounded - exact)) / size
        if on_progress:
            on_progress(done, len(names))
    return errors


def _first_output(
    model: bytes, images: npt.NDArray[np.uint8], threads: int | None
) -> npt.NDArray[np.float64]:
    with backend("ort")(Artifact("onnx", model), RuntimeOptions(threads=threads)) as runtime:
        taken, given = runtime.inputs[0], runtime.outputs[0].name
        size = taken.shape[0]
        most = max(IMAGES_MAX, size) if isinstance(size, int) else IMAGES_MAX
        picked = np.linspace(0, len(images) - 1, min(len(images), most)).round().astype(int)
        parts = [runtime.run({taken.name: batch})[given] for batch in runs([images[picked]], size)]
    return np.concatenate(parts).astype(np.float64)


def _read(file: Path, names: list[str]) -> dict[str, float] | None:
    try:
        errors = json.loads(file.read_bytes())
        if sorted(errors) == sorted(names):
            return {name: float(errors[name]) for name in names}
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    return None


def _write(file: Path, errors: dict[str, float]) -> None:
    try:
        make_private(file.parent)
        replace_file(file, json.dumps(errors).encode())
    except OSError as error:
        log.warning("%s: sensitivities cannot be kept (%s)", file.parent, error.strerror)
