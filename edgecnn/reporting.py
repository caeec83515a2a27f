"""Fills the report of a conversion with what the ladder measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecnn.judging import Judge, outputs_of
from edgecnn.ladder import Ladder
from edgecnn.manifest import Manifest
from edgecnn.report import (
    ArtifactRow,
    Histogram,
    LayerRow,
    PruningRow,
    RangeRow,
    Report,
    Trial,
    Verdict,
    WorstImage,
    render,
)
from edgecnn.report import Samples as SamplesRow
from edgecnn.rungs import Goal, Rung
from edgecnn.runtimes import Artifact, Outputs, backend
from edgecnn.spec import ModelSpec
from edgecnn.timing import SpeedComparison
from edgecnn.vision.detection import decode_in_input, each_frame, read_head

if TYPE_CHECKING:
    from edgecnn.calibration import Samples

__all__ = ["REPORT_NAME", "report_page"]

REPORT_NAME = "report.html"
WORST = 16
METRICS = {"top1": "top-1", "ap50": "AP50", "agreement": "agreement"}


def report_page(
    manifest: Manifest,
    ladder: Ladder,
    judge: Judge,
    goal: Goal,
    samples: Samples,
    reference: Outputs,
    warnings: Sequence[str],
    missed: str,
) -> str:
    """The page for what a ladder tried; ``manifest`` holds what was kept, ``missed`` the gate, if any."""
    in_onnx = [rung for rung in ladder.rungs if rung.entry.format == "onnx"]
    first = next((rung for rung in in_onnx if rung.quantization is not None), None)
    return render(
        Report(
            title=manifest.name,
            created=manifest.created,
            model=manifest.provenance.get("model", ""),
            task=manifest.spec.task,
            artifacts=(_fp32_row(manifest, ladder, judge), *map(_row, ladder.rungs)),
            verdict=_verdict(manifest, ladder.rungs, judge, goal, missed),
            metric_name=METRICS[judge.metric],
            max_drop=goal.max_drop,
            layers=_layers(ladder, first, manifest) if first else (),
            ranges=_ranges(ladder, first) if first else (),
            worst=_worst(first or in_onnx[0], samples, reference, manifest.spec) if in_onnx else (),
            samples=SamplesRow(samples.source, len(samples), tuple(warnings)),
            trials=_trials(first),
            pruning=_pruning(manifest),
        )
    )


def _fp32_row(manifest: Manifest, ladder: Ladder, judge: Judge) -> ArtifactRow:
    entry = next(entry for entry in manifest.artifacts if entry.precision == "fp32")
    fidelity = next((row for row in manifest.fidelity if row.id == entry.id), None)
    speed = next((rung.speed for rung in ladder.rungs if rung.speed), None)
    return ArtifactRow(
        id=entry.id,
        format=entry.format,
        precision="fp32",
        bytes=ladder.model_bytes,
        latency_ms=speed.reference_ms if speed else None,
        metric=fidelity.metric if fidelity else None,
        metric_fp32=judge.fp32,
        drop=fidelity.drop if fidelity else None,
        agreement=fidelity.agreement if fidelity else None,
        cosine=fidelity.cosine if fidelity else None,
        max_abs=fidelity.max_abs if fidelity else None,
        reason="what all others are made from",
    )


def _row(rung: Rung) -> ArtifactRow:
    entry, fidelity = rung.entry, rung.fidelity
    return ArtifactRow(
        id=entry.id,
        format=entry.format,
        precision=entry.precision,
        placement=entry.placement,
        bytes=sum(map(len, rung.files.values())),
        latency_ms=rung.speed.candidate_ms if rung.speed else None,
        metric=fidelity.metric,
        metric_fp32=fidelity.metric_fp32,
        drop=fidelity.drop,
        agreement=fidelity.agreement,
        cosine=fidelity.cosine,
        max_abs=fidelity.max_abs,
        status="kept" if rung.kept else "dropped",
        reason=_why(rung),
    )


def _times(speed: SpeedComparison) -> float:
    """How many times as fast as fp32, by the latencies that the page shows."""
    return speed.reference_ms / speed.candidate_ms


def _why(rung: Rung) -> str:
    if rung.missed:
        return rung.missed
    if rung.in_bf16 is not None:
        return f"in bfloat16 faster here, drop {rung.in_bf16.drop or 0:.4f}: chosen where a processor has it"
    if rung.speed is None:
        return "accuracy holds; its speed is for its own device to say"
    return f"{_times(rung.speed):.2f}× as fast as fp32 here" + (": not worth it" if rung.slow else "")


def _verdict(manifest: Manifest, rungs: Sequence[Rung], judge: Judge, goal: Goal, missed: str) -> Verdict:
    name = METRICS[judge.metric] + (" with the float model" if judge.metric == "agreement" else "")
    if missed:
        return Verdict(False, f"{missed}.")
    met = None if goal.max_drop is None else True
    kept = [rung for rung in rungs if rung.kept]
    if not kept and rungs:
        return Verdict(met, "Nothing smaller is faster than fp32 here: the bundle holds fp32 alone.")
    if not kept:
        row = manifest.fidelity[0]
        return Verdict(met, f"Pruned, {name} goes from {judge.fp32:.1%} to {row.metric or 0:.1%}.")
    rung = kept[0]
    drop = rung.fidelity.drop or 0.0
    budget = "" if goal.max_drop is None else f", within the budget of {goal.max_drop * 100:.3g} points"
    speed = "" if rung.speed is None else f", and runs {_times(rung.speed):.2f}× as fast as fp32 here"
    change = f"loses {drop * 100:.2f} points" if drop > 0 else "loses nothing"
    marks = f"({judge.fp32:.1%} → {rung.fidelity.metric or 0:.1%})"
    return Verdict(met, f"{rung.entry.precision} {change} of {name} {marks}{budget}{speed}.")


def _layers(ladder: Ladder, rung: Rung, manifest: Manifest) -> tuple[LayerRow, ...]:
    assert rung.quantization is not None
    kept = {layer.layer: layer.reason for layer in rung.quantization.kept_float}
    rows = ladder.sensitivities[str(rung.entry.placement)]
    ops = {layer.name: layer.op for layer in ladder.builder.layers} if ladder.builder else {}
    total = (manifest.network.macs if manifest.network else 0) or 1
    return tuple(
        LayerRow(
            name=row.name,
            op=ops.get(row.name, ""),
            macs=row.macs,
            macs_share=row.macs / total,
            precision="fp32" if row.name in kept else "int8",
            error=row.error,
            reason=kept.get(row.name, ""),
        )
        for row in rows
    )


def _ranges(ladder: Ladder, rung: Rung) -> tuple[RangeRow, ...]:
    builder = ladder.builder
    if builder is None or rung.entry.placement is None:
        return ()
    makers = {layer.output: layer.name for layer in builder.layers}
    rows = []
    for tensor, chosen in builder.ranges(rung.entry.placement).items():
        seen = builder.observations[tensor]
        rows.append(
            RangeRow(
                tensor=tensor,
                layer=makers.get(tensor, ""),
                low=seen.low,
                high=seen.high,
                clip_low=chosen.low,
                clip_high=chosen.high,
                method=chosen.method,
                histogram=Histogram.coarse(seen.counts.tolist(), seen.start, seen.width),
            )
        )
    return tuple(rows)


def _pruning(manifest: Manifest) -> tuple[PruningRow, ...]:
    if manifest.pruning is None:
        return ()
    layers = manifest.pruning.layers
    return tuple(PruningRow(layer.layer, layer.before, layer.after) for layer in layers)


def _trials(rung: Rung | None) -> tuple[Trial, ...]:
    if rung is None or rung.search is None:
        return ()
    return tuple(Trial(len(names), drop) for names, drop in rung.search.trials)


def _worst(rung: Rung, samples: Samples, reference: Outputs, spec: ModelSpec) -> tuple[WorstImage, ...]:
    """The samples whose scores moved most."""
    with backend("ort")(Artifact("onnx", rung.content)) as model:
        outputs = outputs_of(model, samples.images)
    expected, actual = (list(each_frame(each)) for each in (reference, outputs))
    difference = [float(np.abs(_scores(a, spec) - _scores(b, spec)).max()) for a, b in zip(actual, expected)]
    return tuple(
        WorstImage(
            image=_bgr(samples.images[i], spec),
            label_float=_label(expected[i], spec),
            label_int8=_label(actual[i], spec),
            difference=difference[i],
        )
        for i in np.argsort(-np.array(difference), kind="stable")[:WORST]
    )


def _bgr(image: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    if spec.color == "gray":
        return np.repeat(image, 3, axis=2)
    return image[..., ::-1] if spec.color == "rgb" else image


def _scores(outputs: Outputs, spec: ModelSpec) -> npt.NDArray[np.float64]:
    """Of one frame: those of its boxes, or the first output."""
    scores = read_head(outputs, spec)[1] if spec.task == "detection" else next(iter(outputs.values()))
    return scores.astype(np.float64)


def _label(outputs: Outputs, spec: ModelSpec) -> str:
    if spec.task == "tensors":
        return ""
    if spec.task == "detection":
        return f"{len(decode_in_input(outputs, spec))} boxes"
    flat = next(iter(outputs.values())).ravel()
    best = int(flat.argmax())
    return f"{spec.label(best)} {float(flat[best]):.2f}"
