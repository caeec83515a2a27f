"""A bundle before it is written."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

from edgecnn import __version__
from edgecnn.bundle import GOLDEN_INPUT, GOLDEN_NAME, GOLDEN_OUTPUT, Bundle, write_bundle
from edgecnn.calibration import Samples
from edgecnn.converters.load import LoadedModel
from edgecnn.converters.onnx_canonical import Canonical
from edgecnn.errors import InputError, require
from edgecnn.manifest import ArtifactEntry, Calibration, Fidelity, Manifest, Pruning
from edgecnn.npz import encode_npz
from edgecnn.parity import Parity
from edgecnn.rungs import Rung
from edgecnn.runtimes import Outputs, backend
from edgecnn.spec import ModelSpec
from edgecnn.vision.detection import batch_scores

__all__ = ["ARTIFACT_ID", "Draft", "first_draft", "save", "with_rungs"]

GOLDEN_SAMPLES = 4
ARTIFACT_ID = "onnx-fp32"
ARTIFACT_PATH = "model.onnx"


@dataclass(frozen=True)
class Draft:
    """A bundle before it is written: its manifest without files, and the files."""

    manifest: Manifest
    contents: Mapping[str, bytes]


def first_draft(
    name: str,
    loaded: LoadedModel,
    spec: ModelSpec,
    converted: Canonical,
    samples: Samples,
    reference: Outputs,
    parity: Parity,
    pruning: Pruning | None,
) -> Draft:
    """The draft of a model in fp32: its ONNX, what was measured of it, and a few golden inputs.

    Args:
        name: Of the bundle.
        loaded: The model.
        spec: Of the converted model.
        converted: Its canonical form.
        samples: What it was compared on.
        reference: What the model itself gives for them.
        parity: How far the canonical form is from that.
        pruning: What was cut; None where nothing was.
    """
    kept = _golden_rows(converted, reference, spec)
    golden = {GOLDEN_INPUT: samples.images[kept]}
    golden |= {GOLDEN_OUTPUT + output: array[kept] for output, array in reference.items()}
    manifest = Manifest(
        name=name,
        created=_now(),
        spec=spec,
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


def _golden_rows(converted: Canonical, reference: Outputs, spec: ModelSpec) -> list[int]:
    """Which samples to keep: spread over the best scores, so that they hold what is found and what is not."""
    batch = converted.inputs[0].shape[0]
    first = batch_scores(reference, spec) if spec.task == "detection" else next(iter(reference.values()))
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


def with_rungs(manifest: Manifest, rungs: Sequence[Rung]) -> Manifest:
    """The manifest with the rungs that are kept; what this machine should run comes first."""
    kept = [rung for rung in rungs if rung.kept]
    here = [rung.entry for rung in kept if rung.speed is not None]
    elsewhere = [rung.entry for rung in kept if rung.speed is None]
    rows = [row for rung in kept for row in (rung.fidelity, rung.in_bf16) if row is not None]
    return msgspec.structs.replace(
        manifest,
        artifacts=(*here, *manifest.artifacts, *elsewhere),
        fidelity=(*manifest.fidelity, *rows),
        quantization=tuple(rung.quantization for rung in kept if rung.quantization is not None),
    )


def save(out: Path, draft: Draft) -> Bundle:
    """Write a draft, all of it or nothing."""
    with write_bundle(out) as writer:
        for path, content in draft.contents.items():
            writer.add(path, content)
        writer.finish(msgspec.structs.replace(draft.manifest, files=writer.files))
    # what an earlier attempt that failed left
    out.with_suffix(".report.html").unlink(missing_ok=True)
    return Bundle(out)
