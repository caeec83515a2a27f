"""One network of the zoo through every engine in every precision: the cells of its row."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgecnn.calibration import rounding
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters import canonical, load_model
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.errors import EdgeCnnError, MissingDependency, first_line
from edgecnn.parity import agreement
from edgecnn.reference import reference_for
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from edgecnn.spec import ModelSpec
from tests.zoo import Row, images

ENGINES = ("ort", "openvino", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")

# largest difference over the largest value of the reference; whole numbers: share of those that differ
LARGEST_ERROR = {"fp32": 1e-4, "fp16": 1e-2}
# of int8 beside the fp32 artifact: a tenth of the signal's power may be noise
LEAST_SQNR_DB = 10.0
MOST_FLIPPED = 0.2

CALIBRATION_IMAGES, JUDGED_IMAGES = 16, 4
# images of more pixels are so slow that fewer of them calibrate
MANY_PIXELS, FEW_IMAGES = 300 * 300, 4
# wider layers are rounded to the nearest here: what takes minutes for them has its own tests and figures
BYTES_A_LAYER = 1 << 24
THREADS = RuntimeOptions(threads=1)
COMPUTE_CAPABILITY = "8.9"

Arrays = dict[str, npt.NDArray[Any]]
Forms = dict[str, Callable[[], bytes]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What became of a row on an engine in a precision.

    Attributes:
        status: ``pass``, ``builds`` (an engine for another machine), ``refused`` (by an error a user can act on),
            ``failed`` or ``absent`` (the engine is not installed).
        error: See `LARGEST_ERROR`, the worst output.
        sqnr_db: Signal to quantisation noise of the worst output, for int8.
        agreement: Share of images with the same decision, for classification.
        reason: Why, where it is not a pass.
    """

    engine: str
    precision: str
    status: str
    error: float | None = None
    sqnr_db: float | None = None
    agreement: float | None = None
    reason: str = ""
    seconds: float = 0.0


def cells(row: Row) -> Iterator[dict[str, Any]]:
    """Each cell as it is done, ready for JSON."""
    torch.set_num_threads(1)
    rounding.BYTES_A_LAYER = BYTES_A_LAYER
    for cell in _cells(row):
        yield asdict(cell)


def _cells(row: Row) -> Iterator[Cell]:
    spec = row.spec
    try:
        loaded = load_model(row.make())
        converted = canonical(loaded, spec)
    except EdgeCnnError as error:
        for engine in ENGINES:
            for precision in PRECISIONS:
                yield Cell(engine=engine, precision=precision, status="refused", reason=str(error))
        return
    judged = images(spec, JUDGED_IMAGES, seed=1)
    exact = reference_for(loaded, converted, spec)(judged)
    forms = _forms(converted.model, spec)
    float_ort: Arrays | None = None
    for engine in ENGINES:
        for precision in PRECISIONS:
            reference = float_ort or exact if precision == "int8" else exact
            cell, outputs = _cell(engine, precision, forms, judged, reference, spec)
            if (engine, precision) == ("ort", "fp32"):
                float_ort = outputs
            yield cell


def _forms(model: bytes, spec: ModelSpec) -> Forms:
    """The ONNX form of each precision, made once and when it is asked for; an error is raised each time."""
    made: dict[str, bytes | EdgeCnnError] = {}
    builders: list[Int8Builder] = []

    def builder() -> Int8Builder:
        if not builders:
            few = spec.size_hw[0] * spec.size_hw[1] > MANY_PIXELS
            samples = images(spec, FEW_IMAGES if few else CALIBRATION_IMAGES, seed=0)
            builders.append(Int8Builder(model, samples, method="minmax", threads=1))
        return builders[0]

    def once(name: str, make: Callable[[], bytes]) -> bytes:
        if name not in made:
            try:
                made[name] = make()
            except EdgeCnnError as error:
                made[name] = error
        found = made[name]
        if isinstance(found, EdgeCnnError):
            raise found
        return found

    def half() -> bytes:
        return bytes(OnnxToFp16()(onnx.load_from_string(model)).SerializeToString())

    return {
        "fp32": lambda: model,
        "fp16": lambda: once("fp16", half),
        "int8-cpu": lambda: once("int8-cpu", lambda: builder().build("cpu")),
        "int8-tensorrt": lambda: once("int8-tensorrt", lambda: builder().build("tensorrt")),
    }


def _cell(
    engine: str,
    precision: str,
    forms: Forms,
    judged: npt.NDArray[np.uint8],
    reference: Arrays,
    spec: ModelSpec,
) -> tuple[Cell, Arrays | None]:
    start = time.perf_counter()

    def done(status: str, **figures: Any) -> Cell:
        seconds = round(time.perf_counter() - start, 1)
        return Cell(engine=engine, precision=precision, status=status, seconds=seconds, **figures)

    if engine != "ort" and importlib.util.find_spec(f"edgecnn.converters.onnx_{engine}") is None:
        return done("absent", reason=f"no converter for {engine}"), None
    try:
        outputs = RUN[engine](forms, precision, judged)
    except MissingDependency as error:
        return done("absent", reason=str(error)), None
    except EdgeCnnError as error:
        return done("refused", reason=str(error)), None
    except Exception as error:
        return done("failed", reason=f"{type(error).__name__}: {first_line(error)}"), None
    if outputs is None:
        return done("builds"), None
    figures, reason = _judge(reference, outputs, precision, spec)
    return done("failed" if reason else "pass", reason=reason, **figures), outputs


def _judge(reference: Arrays, outputs: Arrays, precision: str, spec: ModelSpec) -> tuple[dict[str, Any], str]:
    """Figures of a cell, and why they are not good enough, if so."""
    if [(k, v.shape) for k, v in reference.items()] != [(k, v.shape) for k, v in outputs.items()]:
        return {}, f"gives {_shapes(outputs)}, the reference {_shapes(reference)}"
    broken = [name for name, values in outputs.items() if not np.isfinite(values).all()]
    if broken:
        return {}, f"{broken[0]} is not finite"
    names = list(reference)
    errors = {name: _error(reference[name], outputs[name]) for name in names}
    worst = max(names, key=lambda name: errors[name])
    figures: dict[str, Any] = {"error": errors[worst]}
    if spec.task != "tensors":
        figures["agreement"] = agreement(reference, outputs, spec)
    if precision != "int8":
        limit = LARGEST_ERROR[precision]
        return figures, f"{worst} differs by {errors[worst]:.2g}, at most {limit:g}" if errors[
            worst
        ] > limit else ""
    floats = [name for name in names if reference[name].dtype.kind == "f"]
    noise = {name: _sqnr_db(reference[name], outputs[name]) for name in floats}
    if noise:
        worst = min(noise, key=lambda name: noise[name])
        figures["sqnr_db"] = min(noise[worst], 99.0)
        if noise[worst] < LEAST_SQNR_DB:
            return (
                figures,
                f"{worst} has {noise[worst]:.1f} dB of signal to noise, at least {LEAST_SQNR_DB:g}",
            )
    flipped = max((errors[name] for name in names if name not in floats), default=0.0)
    return figures, f"{flipped:.0%} of the whole numbers differ" if flipped > MOST_FLIPPED else ""


def _error(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """``max|a - b| / max|a|``; of whole numbers the share that differs."""
    if expected.dtype.kind != "f":
        return float((expected != actual).mean())
    scale = float(np.abs(expected).max())
    return float(np.abs(expected.astype(np.float64) - actual).max()) / (scale or 1.0)


def _sqnr_db(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """``10 log10(Σ a² / Σ (a - b)²)``."""
    signal = float((expected.astype(np.float64) ** 2).sum())
    noise = float(((expected.astype(np.float64) - actual) ** 2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _shapes(outputs: Arrays) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, values.shape))}" for name, values in outputs.items())


def _ort(forms: Forms, precision: str, judged: npt.NDArray[np.uint8]) -> Arrays:
    content = forms["int8-cpu" if precision == "int8" else precision]()
    return _run("ort", Artifact(format="onnx", content=content, precision=precision), judged)


def _openvino(forms: Forms, precision: str, judged: npt.NDArray[np.uint8]) -> Arrays:
    from edgecnn.converters.onnx_openvino import OnnxToOpenVino

    source = forms["int8-cpu" if precision == "int8" else "fp32"]()
    made = OnnxToOpenVino(compress=precision == "fp16")(source)
    artifact = Artifact(format="openvino", content=made.xml, weights=made.weights, precision=precision)
    return _run("openvino", artifact, judged)


def _tensorrt(forms: Forms, precision: Any, judged: npt.NDArray[np.uint8]) -> None:
    from edgecnn.converters.onnx_tensorrt import OnnxToTensorRT

    source = forms["int8-tensorrt" if precision == "int8" else precision]()
    OnnxToTensorRT(precision=precision, compute_capability=COMPUTE_CAPABILITY)(source)


RUN: dict[str, Callable[[Forms, str, npt.NDArray[np.uint8]], Arrays | None]] = {
    "ort": _ort,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}


def _run(name: str, artifact: Artifact, judged: npt.NDArray[np.uint8]) -> Arrays:
    with backend(name)(artifact, THREADS) as runtime:
        return runtime.run({runtime.inputs[0].name: judged})
