"""From a PyTorch module to a bundle: load, prune, export, compare with the module, go below fp32, write."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn import devices
from edgecnn.bundle import (
    Bundle,
    checked_out,
)
from edgecnn.calibration import Samples, draw_samples
from edgecnn.calibration.selection import AUTO
from edgecnn.compiled import check_installed, openvino_rungs, with_engines
from edgecnn.converters.load import LoadedModel, load_model
from edgecnn.converters.onnx_canonical import Canonical
from edgecnn.dense import draw_scenes, with_dense
from edgecnn.draft import ARTIFACT_ID, Draft, first_draft, save, with_rungs
from edgecnn.errors import EngineError, GateMissed, InputError, ModelError, SpecError
from edgecnn.judging import pool
from edgecnn.manifest import DeviceTarget
from edgecnn.parity import Parity, compare
from edgecnn.progress import OnStep, OnWork
from edgecnn.pruned_model import pruned_model
from edgecnn.quantization import CALIBRATION_SAMPLES, REAL_INPUTS, Request, lower
from edgecnn.reference import reference_for
from edgecnn.rungs import Compared, Examiner, Precision
from edgecnn.runtimes import Artifact, Outputs, backend
from edgecnn.spec import ModelSpec
from edgecnn.untrusted import canonical_of
from edgecnn.vision.detection import batch_scores

if TYPE_CHECKING:
    from edgecnn.calibration.data import FrameSource

__all__ = ["convert"]

log = logging.getLogger(__name__)

SAMPLES_A_BATCH = 16
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
    device: str | None = None,
    precision: Precision | None = None,
    target: Sequence[str] | None = None,
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
        device: A profile of `edgecnn.devices`, such as ``jetson-orin-nano``, which then decides what is not
            given here: the precision where there are real inputs, the targets, a fixed batch.
        precision: ``fp32``, or what to go down to: ``fp16``, ``int8``; None is fp32 without a device.
        target: As `edgecnn.quantize`; None is ``("onnx",)`` without a device.
        evaluation: As `edgecnn.quantize`; what it is compared with is the model before pruning.
        max_drop: As `edgecnn.quantize`.
        speed_gate: As `edgecnn.quantize`; off where the device is not this machine.
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
    profile = devices.profile(device) if device is not None else None
    if profile is not None:
        precision = precision or (profile.default_precision if calibration is not None else "fp32")
        if calibration is None and precision == "fp32" and profile.default_precision != "fp32":
            log.warning(
                "%s runs %s best: pass real inputs as calibration (--calib) to get it",
                profile.name,
                profile.default_precision,
            )
        target = profile.targets if target is None else target
        if not isinstance(target, str) and not set(profile.targets) <= set(target):
            log.warning("%s takes %s; target asks for other forms", profile.name, ", ".join(profile.targets))
        batch = profile.fixed_batch if batch is None else batch
        # another device may be faster with what is slower here
        speed_gate = speed_gate and devices.is_here(profile, devices.this_device())
    precision, target = precision or "fp32", ("onnx",) if target is None else target
    opset = profile.opset if profile is not None else None
    capabilities = profile.compute_capabilities if profile is not None and not profile.jetson else ()
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
    check_installed(target, capabilities)
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
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
        scenes = draw_scenes(calibration, spec)
    whole, pruning = None, None
    if cuts:
        whole = canonical_of(loaded, spec, batch=batch, opset=opset).model
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
    converted = canonical_of(loaded, spec, batch=batch, opset=opset)
    for step in converted.steps:
        steps.report(step.name, step.seconds)
    with steps("parity"):
        reference, parity = _parity(loaded, converted, drawn, spec)
    draft = first_draft(out.stem, loaded, _of_bundle(spec), converted, drawn, reference, parity, pruning)
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
    elif "openvino" in target:
        draft = _with_openvino(draft, drawn.images[: parity.n], reference, request, steps.report)
    if "tensorrt" in target:
        draft = with_engines(draft, compute_capabilities=capabilities, on_step=steps.report, on_work=on_work)
    draft = with_dense(draft, scenes, threads=threads, speed_gate=speed_gate, on_step=steps.report)
    if profile is not None:
        draft = _for_device(draft, profile)
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


def _with_openvino(
    draft: Draft, images: npt.NDArray[np.uint8], reference: Outputs, request: Request, on_step: OnStep
) -> Draft:
    """Add OpenVINO's form of a model that stays in fp32."""
    manifest, fp32 = draft.manifest, draft.manifest.artifacts[0]
    examiner = Examiner(Compared(images, reference), manifest.spec, None, request.goal())
    rungs = openvino_rungs(
        draft.contents[fp32.path], None, examiner, opset=fp32.requires["opset"], on_step=on_step
    )
    for rung in rungs:
        if rung.missed:
            raise GateMissed(f"{rung.entry.id}: {rung.missed}", msgspec.structs.asdict(rung.fidelity))
    files = {path: content for rung in rungs for path, content in rung.files.items()}
    return Draft(with_rungs(manifest, rungs), {**draft.contents, **files})


def _for_device(draft: Draft, profile: devices.DeviceProfile) -> Draft:
    """Say what it was converted for, and what that device makes of it."""
    target = DeviceTarget(
        profile=profile.name,
        runtimes=profile.runtimes,
        built_there=devices.built_there(profile, draft.manifest.artifacts),
    )
    return replace(draft, manifest=msgspec.structs.replace(draft.manifest, device=target))


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
    _check_reference(expected, _of_bundle(spec), loaded.name)
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
    if not spec.finds_boxes:
        return
    scores = batch_scores(expected, spec) if spec.task == "detection" else next(iter(expected.values()))
    low, high = float(scores.min()), float(scores.max())
    if not (low >= 0 and high <= 1 + 1e-6):
        inside = spec.decoder not in ("scores", "ssd")
        raise SpecError(
            f"{name}: its scores go from {low:.3g} to {high:.3g}; scores of boxes are in 0..1, "
            + ("let the model end in a sigmoid" if inside else 'set activation = "sigmoid" or "softmax"')
        )


def _of_bundle(spec: ModelSpec) -> ModelSpec:
    """The spec of the converted model: it gives the chosen output first, whatever its name was."""
    return spec.replace(output=None)


def _joined(outputs: list[Outputs]) -> Outputs:
    return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}
