"""What commands show of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecnn.cli import _common

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle
    from edgecnn.manifest import ArtifactEntry, Fidelity

__all__ = [
    "accuracy_lines",
    "artifact_table",
    "device_lines",
    "fidelity_table",
    "measured_on",
    "window_lines",
]


def artifact_table(bundle: Bundle) -> str:
    """What a bundle holds for which engines."""
    rows = [["artifact", "format", "precision", "size", "file", "needs"]]
    rows += [
        [
            entry.id,
            entry.format,
            entry.precision,
            _common.human_bytes(_bytes(bundle, entry)),
            entry.path,
            _needs(entry),
        ]
        for entry in bundle.manifest.artifacts
    ]
    return _common.table(rows)


def fidelity_table(fidelity: Sequence[Fidelity]) -> str:
    """How close each artifact is to the model it was made from."""
    rows = [["artifact", "runtime", "inputs", "max |difference|", "cosine", "agreement"]]
    rows += [
        [
            row.id,
            row.runtime if row.compute == "f32" else f"{row.runtime} in {row.compute}",
            str(row.n),
            _common.figure(row.max_abs, ".3g"),
            _common.figure(row.cosine, ".6f"),
            _common.figure(row.agreement, ".1%"),
        ]
        for row in fidelity
    ]
    return _common.table(rows)


def accuracy_lines(bundle: Bundle) -> list[str]:
    """What the artifacts score, which layers stay in float, what was cut; empty where nobody asked."""
    manifest = bundle.manifest
    if manifest.evaluated is None:
        return []
    metric = manifest.evaluated.metric
    rows = [["artifact", metric, "drop", "int8 MACs", "kept in float"]]
    int8 = {entry.artifact: entry for entry in manifest.quantization}
    for row in manifest.fidelity:
        made = int8.get(row.id)
        rows.append(
            [
                row.id,
                _common.figure(row.metric, ".4f"),
                _common.figure(row.drop, "+.4f"),
                "-" if made is None else f"{made.int8_macs_share:.1%}",
                ", ".join(f"{kept.layer} ({kept.macs_share:.1%})" for kept in made.kept_float)
                if made
                else "",
            ]
        )
    on = f"  {metric} on {manifest.evaluated.n} inputs from {manifest.evaluated.source}"
    budget = manifest.evaluated.max_drop
    lines = [f"{_common.table(rows)}\n{on}" + ("" if budget is None else f", budget {budget:g}")]
    if manifest.pruning is not None:
        cut = manifest.pruning
        lines.append(
            f"  pruned: {cut.macs_before / 1e6:.1f} M to {cut.macs_after / 1e6:.1f} M multiply-accumulates, "
            f"{cut.params_before} to {cut.params_after} parameters"
        )
        kept = [f"{layer.layer} ({layer.reason})" for layer in cut.layers if layer.reason]
        if kept:
            lines[-1] += f"\n  cannot be pruned: {'; '.join(kept)}"
    return lines


def measured_on(bundle: Bundle) -> list[str]:
    """The line that says which inputs the fidelity was measured on; none where that is not known."""
    calibration = bundle.manifest.calibration
    if calibration is None:
        return []
    made_up = " (made up: convert with --calib for figures on real inputs)" if calibration.generated else ""
    return [f"  measured on {calibration.n} inputs from {calibration.source}{made_up}"]


def window_lines(bundle: Bundle) -> list[str]:
    """How windows are scored: all at once by which artifacts, and why not by others."""
    lines = []
    for entry in bundle.manifest.artifacts:
        if (form := entry.dense) is None:
            continue
        same = "the same network" if form.exact else "padding aside the same network"
        faster = "" if form.speedup is None else f", {form.speedup:.1f}× as fast"
        lines.append(
            f"  all windows at once: {entry.id} ({same}; {form.agreement:.2%} of the decisions "
            f"on {form.n} windows, scores within {form.max_abs:.2g}{faster})"
        )
    if bundle.manifest.not_dense:
        lines.append(f"  windows one by one: {bundle.manifest.not_dense}")
    return ["\n".join(lines)] if lines else []


def device_lines(bundle: Bundle) -> list[str]:
    """What it was converted for, and what is made on the device itself; empty where no device was named."""
    device = bundle.manifest.device
    if device is None:
        return []
    lines = [f"  for {device.profile}: {', then '.join(device.runtimes)}"]
    lines += [f"  built there: {what}" for what in device.built_there]
    return ["\n".join(lines)]


def _needs(entry: ArtifactEntry) -> str:
    needs = entry.requires
    if entry.format == "tensorrt":
        flavor, version, capability = (
            needs.get(name, "unknown") for name in ("flavor", "tensorrt", "compute_capability")
        )
        return f"{flavor} {version}, compute capability {capability}"
    return ", ".join(f"{name} {value}" for name, value in needs.items())


def _bytes(bundle: Bundle, entry: ArtifactEntry) -> int:
    return sum(bundle.file(path).bytes for path in entry.paths)
