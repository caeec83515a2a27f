"""From a PyTorch module to a bundle: load, prune, export, compare with the module, go below fp32, write."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn import __version__
from edgecnn.bundle import (
    GOLDEN_INPUT,
    GOLDEN_NAME,
    GOLDEN_OUTPUT,
    Bundle,
    checked_out,
    encode_npz,
)
from edgecnn.calibration import Samples, draw_samples
from edgecnn.calibration.selection import AUTO
from edgecnn.converters.load import LoadedModel, load_model
from edgecnn.converters.onnx_canonical import Canonical, canonical
from edgecnn.errors import EngineError, GateMissed, InputError, ModelError, SpecError, require
from edgecnn.judging import pool
from edgecnn.ladder import OnStep, OnWork, Precision
from edgecnn.manifest import ArtifactEntry, Calibration, Fidelity, Manifest, Pruning
from edgecnn.parity import Parity, compare
from edgecnn.pruned_model import pruned_model
from edgecnn.quantization import CALIBRATION_SAMPLES, REAL_INPUTS, Draft, Request, lower, save
from edgecnn.reference import reference_for
from edgecnn.runtimes import Artifact, Outputs, backend
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from edgecnn.calibration.data import FrameSource

__all__ = ["GOLDEN_SAMPLES", "convert"]

GOLDEN_SAMPLES = 4
SAMPLES_A_BATCH = 16
ARTIFACT_ID = "onnx-fp32"
ARTIFACT_PATH = "model.onnx"
PARITY_SAMPLES = 32


def convert(
    model: Any,
    *,
    out: str | os.PathLike[str],
    spec: ModelSpec | str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    calibration: FrameSource | None = None,
    samples: int | None = None,
    batch: int | None = None,
    precision: Precision = "fp32",
    target: Sequence[str] = ("onnx",),
    evaluation: FrameSource | None = None,
    max_drop: float | None = None,
    speed_gate: bool = True,
    prune: float | None = None,
    max_latency_ms: float | None = None,
    method: str = AUTO,
    threads: int | None = None,
    on_step: OnStep | None = None,
    on_work: OnWork | None = None,
) -> Bundle:
    """Convert a model to a bundle and prove that it computes the same.

    The module is put in eval mode, exported to ONNX with its preprocessing and activation inside,
    run on samples through ONNX Runtime and compared with the module itself.

    Args:
        model: A ``torch.nn.Module``, or ``torchvision:NAME``, ``package.module:factory``,
            ``path/file.py:factory``, ``model.pt2``, ``model.onnx``.
        out: The bundle to write, ``NAME.edge``; an older bundle there is replaced at the end.
        spec: A `ModelSpec` or its file; may be left out where the model brings one (torchvision).
        weights: ``.safetensors`` or a state_dict file for the module.
        calibration: Where the samples come from: a folder, a video, an npz, frames
            (n, h, w, 3) uint8 BGR; None makes images up.
        samples: Number of inputs to compare on, and to calibrate with; None is 32, below fp32 128.
        batch: A fixed batch size; None allows any.
        precision: ``fp32``, or what to go down to: ``fp16``, ``int8``.
        target: As `edgecnn.quantize`.
        evaluation: As `edgecnn.quantize`; what it is compared with is the model before pruning.
        max_drop: As `edgecnn.quantize`.
        speed_gate: As `edgecnn.quantize`.
        prune: Share of the multiply-accumulates to cut, without training; see `edgecnn.prune`.
        max_latency_ms: Cut until the fp32 model is as fast as this here; instead of prune.
        method: As `edgecnn.quantize`.
        threads: As `edgecnn.quantize`.
        on_step: Called with the name and the seconds of each finished step.
        on_work: Called during long steps with what is under way, how much is done, and how much there is.

    Returns:
        The written bundle, opened and checked.

    Raises:
        ModelError: The model cannot be loaded or converted; names the layer.
        SpecError: There is no spec or it does not fit the model.
        GateMissed: The converted model computes something else, or a budget cannot be held; no bundle was
            written, of a missed budget ``NAME.report.html``.
    """
    out = checked_out(out)
    request = Request(
        precision=precision,
        target=target,
        evaluation=evaluation,
        max_drop=max_drop,
        speed_gate=speed_gate,
        method=method,
        threads=threads,
    )
    cuts = prune is not None or max_latency_ms is not None
    lowers = precision != "fp32" or cuts
    if prune is not None and max_latency_ms is not None:
        raise InputError("prune and max_latency_ms both say how much to cut; give one")
    if not lowers and (evaluation is not None or max_drop is not None):
        raise InputError(
            "evaluation and max_drop need something to judge: --precision int8, fp16, or --prune"
        )
    if lowers and calibration is None:
        raise InputError(REAL_INPUTS.format("pruning" if precision == "fp32" else precision))
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise InputError(f"batch must be a whole number of at least 1, not {batch!r}")
    if not isinstance(spec, (ModelSpec, type(None))):
        spec = ModelSpec.from_file(spec)
    steps = _Steps(on_step)
    with steps("load"):
        loaded = load_model(model, weights)
        spec = spec or loaded.default_spec
        if spec is None:
            raise SpecError(f"{loaded.name}: how frames become its input is not known; pass a spec (--spec)")
    with steps("samples"):
        count = samples if samples is not None else CALIBRATION_SAMPLES if lowers else PARITY_SAMPLES
        drawn = draw_samples(calibration, spec, count * pool(spec) if lowers else count)
    whole, pruning = None, None
    if cuts:
        whole = canonical(loaded, spec, batch=batch).model
        with steps("prune"):
            loaded, pruning = pruned_model(
                loaded,
                spec,
                drawn.images,
                ratio=prune,
                max_latency_ms=max_latency_ms,
                batch=batch,
                threads=threads,
                on_work=on_work,
            )
    converted = canonical(loaded, spec, batch=batch)
    for step in converted.steps:
        steps.report(step.name, step.seconds)
    with steps("parity"):
        reference, parity = _parity(loaded, converted, drawn, spec)
    draft = _draft(out.stem, loaded, spec, converted, drawn, reference, parity, pruning)
    if lowers:
        # a fixed batch leaves out the samples that fill none
        drawn = replace(drawn, images=drawn.images[: parity.n])
        draft = lower(
            draft,
            drawn,
            count,
            reference,
            request,
            out,
            original=whole,
            on_step=steps.report,
            on_work=on_work,
        )
    with steps("bundle"):
        return save(out, draft)


class _Steps:
    """Times the steps of a conversion and reports each one when it is done."""

    def __init__(self, on_step: OnStep | None) -> None:
        self.report: OnStep = on_step or (lambda name, seconds: None)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.report(name, time.perf_counter() - start)


def _parity(
    loaded: LoadedModel, converted: Canonical, samples: Samples, spec: ModelSpec
) -> tuple[Outputs, Parity]:
    images = samples.images
    step = converted.inputs[0].shape[0]
    if isinstance(step, int):
        if len(images) < step:
            raise InputError(
                f"{loaded.name}: a fixed batch of {step} needs as many samples, there are {len(images)}"
            )
        images = images[: len(images) // step * step]
    else:
        step = SAMPLES_A_BATCH
    batches = [images[i : i + step] for i in range(0, len(images), step)]
    artifact = Artifact(format="onnx", content=converted.model, name=loaded.name)
    try:
        with backend("ort")(artifact) as runtime:
            actual = _joined([runtime.run({runtime.inputs[0].name: batch}) for batch in batches])
        reference = reference_for(loaded, converted, spec)
        expected = _joined([reference(batch) for batch in batches])
    except EngineError as error:
        # nothing is missing on this machine: it is the model that does not run
        raise ModelError(str(error)) from error
    _check_reference(expected, spec, loaded.name)
    parity = compare(expected, actual, _of_bundle(spec))
    missed = parity.missed("fp32")
    if missed:
        raise GateMissed(
            f"{loaded.name}: the converted model differs from the original on {parity.n} inputs: {missed}",
            {"id": ARTIFACT_ID, "runtime": "ort", **asdict(parity)},
        )
    return expected, parity


def _check_reference(expected: Outputs, spec: ModelSpec, name: str) -> None:
    """The original's own answers have to be usable before anything is compared with them."""
    for output, values in expected.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ModelError(f"{name}: the model itself gives values in {output} that are not finite")
    scores = next(iter(expected.values()))
    low, high = float(scores.min()), float(scores.max())
    if spec.task == "window_detection" and not (low >= 0 and high <= 1 + 1e-6):
        raise SpecError(
            f"{name}: its scores go from {low:.3g} to {high:.3g}; scores of windows are in 0..1, "
            'set activation = "sigmoid" or "softmax"'
        )


def _of_bundle(spec: ModelSpec) -> ModelSpec:
    """The spec of the converted model: it gives the chosen output first, whatever its name was."""
    return spec.replace(output=None)


def _joined(outputs: list[Outputs]) -> Outputs:
    return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}


def _draft(
    name: str,
    loaded: LoadedModel,
    spec: ModelSpec,
    converted: Canonical,
    samples: Samples,
    reference: Outputs,
    parity: Parity,
    pruning: Pruning | None,
) -> Draft:
    kept = _golden_rows(converted, reference)
    golden = {GOLDEN_INPUT: samples.images[kept]}
    golden |= {GOLDEN_OUTPUT + output: array[kept] for output, array in reference.items()}
    manifest = Manifest(
        name=name,
        created=_now(),
        spec=_of_bundle(spec),
        inputs=converted.inputs,
        outputs=converted.outputs,
        artifacts=(
            ArtifactEntry(
                id=ARTIFACT_ID,
                format="onnx",
                precision="fp32",
                path=ARTIFACT_PATH,
                build_s=round(sum(step.seconds for step in converted.steps), 3),
                requires={"opset": str(converted.opset)},
            ),
        ),
        files=(),
        calibration=Calibration(source=samples.source, n=len(samples), generated=samples.generated),
        fidelity=(
            Fidelity(
                id=ARTIFACT_ID,
                runtime="ort",
                n=parity.n,
                max_abs=parity.max_abs,
                mean_abs=parity.mean_abs,
                cosine=parity.cosine,
                agreement=parity.agreement,
            ),
        ),
        pruning=pruning,
        network=converted.network,
        provenance=_provenance(loaded),
    )
    return Draft(manifest, {ARTIFACT_PATH: converted.model, GOLDEN_NAME: encode_npz(golden)})


def _golden_rows(converted: Canonical, reference: Outputs) -> list[int]:
    """Which samples to keep: spread over the best scores, so that they hold what is found and what is not."""
    batch = converted.inputs[0].shape[0]
    first = next(iter(reference.values()))
    count = batch if isinstance(batch, int) else min(GOLDEN_SAMPLES, len(first))
    order = np.argsort(first.reshape(len(first), -1).max(axis=1), kind="stable")
    return [int(row) for row in order[np.linspace(0, len(order) - 1, count).round().astype(int)]]


def _now() -> str:
    """The time of day, or SOURCE_DATE_EPOCH for bundles that can be built twice alike."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if seconds and not seconds.isdigit():
        raise InputError(f"SOURCE_DATE_EPOCH is {seconds!r}; it has to be whole seconds since 1970")
    moment = datetime.fromtimestamp(int(seconds), timezone.utc) if seconds else datetime.now(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _provenance(loaded: LoadedModel) -> dict[str, str]:
    found = {
        **loaded.provenance,
        # the folders of a workstation do not belong into what is shipped
        "model": Path(loaded.provenance["model"]).name,
        "python": platform.python_version(),
        "edgecnn": __version__,
        "onnx": require("onnx", "convert").__version__,
        "onnxruntime": backend("ort").version(),
    }
    # some packages give their version as a string of a kind of their own
    return {name: str(value) for name, value in found.items()}
