"""From a bundle in fp32 to smaller artifacts that keep its accuracy, or to a report that says why not."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edgecnn.bundle import (
    GOLDEN_INPUT,
    GOLDEN_NAME,
    GOLDEN_OUTPUT,
    Bundle,
    checked_out,
)
from edgecnn.calibration import RECIPES, Samples, check_samples, draw_samples
from edgecnn.calibration.data import FrameSource
from edgecnn.calibration.selection import AUTO
from edgecnn.compiled import check_installed, openvino_rungs, with_engines
from edgecnn.dense import draw_scenes, with_dense
from edgecnn.draft import Draft, save, with_rungs
from edgecnn.errors import BundleError, GateMissed, InputError, MediaError
from edgecnn.judging import judge_for, outputs_of, pool, telling_rows
from edgecnn.ladder import Ladder
from edgecnn.loading import open_bundle
from edgecnn.manifest import Calibration, Evaluated
from edgecnn.npz import decode_npz
from edgecnn.paths import replace_file
from edgecnn.progress import OnStep, OnWork, silent_work
from edgecnn.reporting import REPORT_NAME, report_page
from edgecnn.rungs import PLACEMENTS, Compared, Examiner, Goal, Precision, Rung, marked
from edgecnn.runtimes import Artifact, Outputs, RuntimeOptions, backend

__all__ = ["CALIBRATION_SAMPLES", "MAX_DROP", "REAL_INPUTS", "Request", "lower", "quantize"]

log = logging.getLogger(__name__)

CALIBRATION_SAMPLES = 128
MAX_DROP = 0.01
REAL_INPUTS = "{} is made for real inputs: pass some of them as calibration (--calib)"
FP32_ID = "onnx-fp32"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a caller wants below fp32; see `quantize` for the meaning of its parts."""

    precision: Precision = "int8"
    target: Sequence[str] = ("onnx",)
    evaluation: FrameSource | None = None
    max_drop: float | None = None
    speed_gate: bool = True
    method: str = AUTO
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "fp16", "int8"):
            raise InputError(f"precision is fp32, fp16 or int8, not {self.precision!r}")
        if isinstance(self.target, str):
            raise InputError(f"target is a list of names, such as [{self.target!r}], not {self.target!r}")
        unknown = [name for name in self.target if name not in PLACEMENTS]
        if unknown or not self.target:
            named = f"{unknown[0]!r} is not" if unknown else "none is given of"
            raise InputError(f"target: {named} {', '.join(PLACEMENTS)}")
        if self.method != AUTO and self.method not in RECIPES:
            raise InputError(f"method is {AUTO}, {', '.join(RECIPES)}, not {self.method!r}")
        if isinstance(self.evaluation, (str, os.PathLike)) and not Path(self.evaluation).exists():
            raise MediaError(f"{self.evaluation}: no such file or folder")
        if self.max_drop is not None and not (
            isinstance(self.max_drop, (int, float)) and 0 <= self.max_drop <= 1
        ):
            raise InputError(
                f"max_drop is a fraction in 0..1 (0.005 for half a point), not {self.max_drop!r}"
            )

    def goal(self) -> Goal:
        """The same for the ladder; with evaluation data there is always a budget."""
        budget = MAX_DROP if self.max_drop is None and self.evaluation is not None else self.max_drop
        return Goal(
            precision=self.precision,
            targets=tuple(dict.fromkeys(self.target)),
            max_drop=budget,
            speed_gate=self.speed_gate,
            method=self.method,
            threads=self.threads,
        )


def quantize(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    out: str | os.PathLike[str],
    calibration: FrameSource,
    samples: int = CALIBRATION_SAMPLES,
    precision: Precision = "int8",
    target: Sequence[str] = ("onnx",),
    evaluation: FrameSource | None = None,
    max_drop: float | None = None,
    speed_gate: bool = True,
    method: str = AUTO,
    threads: int | None = None,
    on_step: OnStep | None = None,
    on_work: OnWork | None = None,
) -> Bundle:
    """Add INT8 or fp16 artifacts to a copy of a bundle; its model is not trained.

    Ranges are observed on samples through the bundle's own preprocessing, weights are rounded for the
    smallest error of each layer's output, and where the budget is missed the fewest layers go back to float.
    A rung that is not faster than fp32 on this machine is left out.

    Args:
        bundle: A bundle with an fp32 artifact; it is not changed unless ``out`` is its own path.
        out: The bundle to write, ``NAME.edge``.
        calibration: Where samples come from: a folder, a video, an npz, frames (n, h, w, 3) uint8 BGR.
        samples: How many are drawn.
        precision: ``int8`` or ``fp16``.
        target: What to write besides the ONNX that all else is made from: ``onnx`` (faster ONNX for any CPU),
            ``openvino`` (IR), ``tensorrt`` (an ONNX file with Q/DQ where TensorRT wants it).
        evaluation: Labelled images (see `edgecnn.evaluate`), or any source of frames, whose decisions are
            compared with those of fp32. None compares on the samples.
        max_drop: The largest loss of the metric, a fraction; None is 0.01 with evaluation, else no budget.
        speed_gate: Keep only what is faster here.
        method: ``auto``, or one recipe for all ranges: minmax, moving_average, percentile, entropy, mse.
        threads: Threads of the engine; None is all processors.
        on_step: Called with the name and the seconds of each finished step.
        on_work: Called during long steps with what is under way, how much is done, and how much there is.

    Raises:
        GateMissed: The budget cannot be held; nothing but ``NAME.report.html`` beside ``out`` was written.
        InputError: An argument or the data does not fit.
        MediaError: The data is missing or cannot be read.
    """
    request = Request(
        precision=precision,
        target=target,
        evaluation=evaluation,
        max_drop=max_drop,
        speed_gate=speed_gate,
        method=method,
        threads=threads,
    )
    if precision == "fp32":
        raise InputError("precision is fp16 or int8 here: fp32 is what the bundle holds")
    check_installed(request.target)
    path = checked_out(out)
    opened = open_bundle(bundle)
    manifest = opened.manifest
    entry = next((e for e in manifest.artifacts if e.format == "onnx" and e.precision == "fp32"), None)
    if entry is None:
        raise BundleError(f"{opened.path}: holds no ONNX model in fp32, which all others are made from")
    entry = msgspec.structs.replace(entry, dense=None)
    model = opened.read(entry.path)
    drawn = draw_samples(calibration, manifest.spec, samples * pool(manifest.spec))
    scenes = draw_scenes(calibration, manifest.spec)
    with backend("ort")(Artifact("onnx", model), RuntimeOptions(threads=threads)) as runtime:
        reference = outputs_of(runtime, drawn.images)
    kept = {entry.path: model}
    if any(file.path == GOLDEN_NAME for file in manifest.files):
        kept[GOLDEN_NAME] = opened.read(GOLDEN_NAME)
    fidelity = tuple(row for row in manifest.fidelity if row.id == entry.id)
    base = msgspec.structs.replace(
        manifest,
        name=path.stem,
        artifacts=(entry,),
        fidelity=fidelity,
        files=(),
        quantization=(),
        evaluated=None,
    )
    draft = lower(
        Draft(base, kept), drawn, samples, reference, request, path, on_step=on_step, on_work=on_work
    )
    if "tensorrt" in request.target:
        draft = with_engines(draft, on_step=on_step, on_work=on_work)
    draft = with_dense(draft, scenes, threads=threads, speed_gate=speed_gate, on_step=on_step)
    return save(path, draft)


def lower(
    draft: Draft,
    samples: Samples,
    count: int,
    reference: Outputs,
    request: Request,
    out: Path,
    *,
    original: bytes | None = None,
    on_step: OnStep | None = None,
    on_work: OnWork | None = None,
) -> Draft:
    """Add to a draft in fp32 what a request asks for, and the report.

    Args:
        draft: Holds one artifact, ONNX in fp32.
        samples: To calibrate with; of windows, `pool` times as many as are kept.
        count: How many of them are kept.
        reference: The outputs that the original model gives for the samples.
        request: What is wanted.
        out: Where the bundle will be; a missed budget leaves its report beside it.
        original: The fp32 model before pruning, which then is what accuracy is compared with.
        on_step: As `quantize`.
        on_work: As `quantize`.

    Raises:
        GateMissed: The budget cannot be held.
        InputError: The samples are of no use.
    """
    if samples.generated:
        raise InputError(REAL_INPUTS.format(request.precision))
    manifest = draft.manifest
    rows = telling_rows(reference, manifest.spec, count)
    samples = replace(samples, images=samples.images[rows])
    reference = {name: values[rows] for name, values in reference.items()}
    network = manifest.network
    if network is None:
        raise BundleError(f"{manifest.name}: does not say what its network consists of; convert it again")
    warnings = check_samples(samples.images, manifest.spec)
    for warning in warnings:
        log.warning("%s: %s", samples.source, warning)
    goal, fp32 = request.goal(), manifest.artifacts[0]
    model = draft.contents[fp32.path]
    options = RuntimeOptions(threads=request.threads)
    with backend("ort")(Artifact("onnx", original or model), options) as runtime:
        judge = judge_for(
            request.evaluation,
            manifest.spec,
            runtime,
            samples,
            on_progress=lambda done, total: (on_work or silent_work)("evaluating fp32", done, total),
        )
    mark = judge.fp32
    if original is not None:
        with backend("ort")(Artifact("onnx", model), options) as runtime:
            mark = judge.measure(runtime)
    fp32_row = marked(manifest.fidelity[0], judge, mark)
    manifest = msgspec.structs.replace(
        manifest,
        fidelity=(fp32_row,),
        calibration=Calibration(source=samples.source, n=len(samples), generated=False),
        evaluated=Evaluated(metric=judge.metric, source=judge.source, n=judge.n, max_drop=goal.max_drop),
    )
    spent = judge.missed(mark, goal.max_drop)
    opset = fp32.requires["opset"]
    examiner = Examiner(_with_golden(draft, samples, reference), manifest.spec, judge, goal)
    ladder = Ladder(model, network, samples, examiner, opset=opset, on_step=on_step, on_work=on_work)
    rungs = [] if spent else ladder.descend()
    if "openvino" in goal.targets and not spent:
        int8 = next((rung for rung in rungs if rung.entry.placement == "cpu" and not rung.missed), None)
        rungs += openvino_rungs(model, int8, examiner, opset=opset, on_step=on_step)
    made = with_rungs(manifest, rungs)
    failed = [
        (rung.missed, rung.fidelity)
        for rung in rungs
        if rung.missed and rung.entry.precision == goal.precision
    ]
    if spent:
        failed = [(f"pruning: {spent}", fp32_row)]
    page = report_page(
        made, ladder, judge, goal, samples, reference, warnings, failed[0][0] if failed else ""
    )
    if failed:
        missed, figures = failed[0]
        beside = out.with_suffix(".report.html")
        _write_report(beside, page)
        raise GateMissed(
            f"{figures.id}: {missed}; no bundle was written, {beside} says more",
            {**msgspec.structs.asdict(figures), "max_drop": goal.max_drop},
        )
    for rung in rungs:
        if not rung.kept:
            log.warning("%s: left out: %s", rung.entry.id, rung.missed or slow_text(rung))
    contents = {**draft.contents, REPORT_NAME: page.encode("utf-8")}
    for rung in rungs:
        contents |= rung.files if rung.kept else {}
    return Draft(made, contents)


def slow_text(rung: Rung) -> str:
    """Why a rung is no gain on this machine."""
    if rung.speed is None:
        return ""
    return (
        f"it takes {rung.speed.candidate_ms:.2f} ms here, fp32 {rung.speed.reference_ms:.2f} ms "
        "(--no-speed-gate keeps it)"
    )


def _with_golden(draft: Draft, samples: Samples, reference: Outputs) -> Compared:
    """Samples and golden inputs: on a device, artifacts are compared with what they were on the latter."""
    if GOLDEN_NAME not in draft.contents:
        return Compared(samples.images, reference)
    golden = decode_npz(draft.contents[GOLDEN_NAME], GOLDEN_NAME)
    return Compared(
        np.concatenate([samples.images, golden[GOLDEN_INPUT]]),
        {name: np.concatenate([values, golden[GOLDEN_OUTPUT + name]]) for name, values in reference.items()},
    )


def _write_report(path: Path, page: str) -> None:
    try:
        replace_file(path, page.encode("utf-8"))
    except OSError as error:
        log.warning("%s: cannot be written (%s)", path, error.strerror)
