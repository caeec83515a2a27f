"""Artifacts in an engine's own form, made of those in ONNX: OpenVINO IR, TensorRT engines."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from edgecnn.converters.onnx_openvino import OnnxToOpenVino
from edgecnn.converters.onnx_tensorrt import OnnxToTensorRT, TensorRtEngine
from edgecnn.devices import engine_source
from edgecnn.draft import Draft
from edgecnn.errors import Unavailable
from edgecnn.manifest import ArtifactEntry
from edgecnn.progress import OnStep, OnWork, silent_step
from edgecnn.rungs import Examiner, Precision, Rung
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from edgecnn.tensorrt_api import find_tensorrt

__all__ = ["check_installed", "openvino_rungs", "with_engines"]

log = logging.getLogger(__name__)


def check_installed(targets: Sequence[str], compute_capabilities: Sequence[str] = ()) -> None:
    """See that what the targets are made with is installed, before any work is done for them.

    Raises:
        MissingDependency: It is not.
    """
    if "openvino" in targets:
        backend("openvino").version()
    if compute_capabilities:
        find_tensorrt()


def openvino_rungs(
    fp32: bytes, int8: Rung | None, examiner: Examiner, *, opset: str, on_step: OnStep | None = None
) -> list[Rung]:
    """Write OpenVINO IR and try it: of fp32, with weights in fp16 where that was asked for, and of INT8.

    INT8 is timed against fp32 on OpenVINO. Where a budget is given and this processor has bfloat16, the
    float form is tried in that too: OpenVINO would choose it by itself.

    Args:
        fp32: The canonical model.
        int8: The rung in ONNX that it is made from; None where there is none.
        examiner: Tries them.
        opset: Of the ONNX.
        on_step: Called with the name and the seconds of each.
    """
    rungs: list[Rung] = []
    plans: list[tuple[Precision, bytes]] = [("fp32", fp32)]
    if examiner.goal.precision == "fp16":
        plans.append(("fp16", fp32))
    if int8 is not None:
        plans.append(("int8", int8.content))
    for precision, model in plans:
        start = time.perf_counter()
        made = OnnxToOpenVino(compress=precision == "fp16")(model)
        entry = ArtifactEntry(
            id=f"openvino-{precision}",
            format="openvino",
            precision=precision,
            placement="cpu" if precision == "int8" else None,
            path=f"openvino/model.{precision}.xml",
            weights=f"openvino/model.{precision}.bin",
            requires={"opset": opset, "openvino": backend("openvino").version().split("-")[0]},
        )
        artifact = Artifact("openvino", made.xml, entry.id, precision=precision, weights=made.weights)
        against = _artifact(rungs[0]) if precision == "int8" else None
        rung = examiner.examine(entry, artifact, against, "openvino")
        if precision == "int8" and int8 is not None and int8.quantization is not None:
            record = msgspec.structs.replace(int8.quantization, artifact=entry.id)
            rung = replace(rung, quantization=record)
        elif precision != "int8" and not rung.missed:
            rung = _in_bf16(rung, examiner)
        seconds = time.perf_counter() - start
        rungs.append(replace(rung, entry=msgspec.structs.replace(entry, build_s=round(seconds, 3))))
        (on_step or silent_step)(f"openvino {precision}", seconds)
    return rungs


def _in_bf16(rung: Rung, examiner: Examiner) -> Rung:
    """The rung with its fidelity in bfloat16, where that holds a budget and is faster here."""
    if examiner.goal.max_drop is None or "bf16" not in backend("openvino").computes():
        return rung
    artifact = _artifact(rung)
    with examiner.open(artifact, "openvino", RuntimeOptions(compute="bf16")) as model:
        row, missed = examiner.measure(rung.entry, model, "fp16")
        if missed or not examiner.speed(model, artifact).faster:
            return rung
    return replace(rung, in_bf16=msgspec.structs.replace(row, compute="bf16"))


def _artifact(rung: Rung) -> Artifact:
    entry = rung.entry
    return Artifact("openvino", rung.content, entry.id, precision=entry.precision, weights=rung.weights)


def with_engines(
    draft: Draft,
    *,
    compute_capabilities: Sequence[str] = (),
    on_step: OnStep | None = None,
    on_work: OnWork | None = None,
) -> Draft:
    """Add engines for GPUs that are not here to a draft, or at least see that TensorRT takes its model.

    A Jetson builds its engine itself. Building one here and throwing it away shows that it can; the
    provenance then says with what.

    Args:
        draft: Holds the ONNX files.
        compute_capabilities: GPUs to build for, such as ``8.9``; needs TensorRT for RTX.
        on_step: Called with the name and the seconds of each build.
        on_work: Called during a build.

    Raises:
        ModelError: TensorRT refuses the model; names the node.
        Unavailable: Engines are asked for and TensorRT is not installed.
    """
    manifest = draft.manifest
    source = engine_source(manifest.artifacts)
    if source is None:
        return draft
    entries, contents = [], dict(draft.contents)
    for capability in compute_capabilities or (None,):
        arrow = OnnxToTensorRT(
            precision=source.precision,
            batch=manifest.spec.batch_range,
            compute_capability=capability,
            on_work=on_work,
        )
        try:
            tensorrt = find_tensorrt()
            engine = arrow(draft.contents[source.path])
        except Unavailable as error:
            if compute_capabilities:
                raise
            log.warning("that TensorRT takes %s is not proven: %s", source.path, error)
            return draft
        for warning in engine.warnings:
            log.info("TensorRT on %s: %s", source.path, warning)
        name = "" if capability is None else f" for {capability}"
        (on_step or silent_step)(f"tensorrt {source.precision}{name}", engine.build_s)
        if capability is not None:
            entry = _engine_entry(source, capability, engine)
            entries.append(entry)
            contents[entry.path] = engine.plan
    proof = {"tensorrt": f"{tensorrt.flavor} {tensorrt.version} builds {source.id}"}
    made = msgspec.structs.replace(
        manifest,
        artifacts=(*manifest.artifacts, *entries),
        provenance={**manifest.provenance, **proof},
    )
    return Draft(made, contents)


def _engine_entry(source: ArtifactEntry, capability: str, engine: TensorRtEngine) -> ArtifactEntry:
    tag = f"sm{capability.replace('.', '')}"
    return ArtifactEntry(
        id=f"tensorrt-{source.precision}-{tag}",
        format="tensorrt",
        precision=source.precision,
        placement="tensorrt",
        path=f"tensorrt/model.{source.precision}.{tag}.engine",
        build_s=round(engine.build_s, 3),
        requires={"source": source.id, **engine.facts},
    )
