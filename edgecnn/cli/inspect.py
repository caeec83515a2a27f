"""``edgecnn inspect``: what is in a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli import _cards, _common

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle
    from edgecnn.manifest import Layer, TensorInfo
    from edgecnn.spec import ModelSpec

__all__ = ["command"]

LABELS_SHOWN = 8


@click.command("inspect", short_help="Show what a bundle expects and contains.")
@click.argument("bundle")
@_common.json_flag
@_common.verbosity
def command(bundle: str, as_json: bool) -> None:
    """Show what BUNDLE expects, gives and contains, and how it runs here; -v lists its layers."""
    from edgecnn.loading import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        _common.print_json(_facts(opened))
    else:
        _common.echo(_card(opened))


def _facts(bundle: Bundle) -> dict[str, Any]:
    from edgecnn.auto import explain

    facts = bundle.manifest.to_dict()
    network = facts["network"] or {"layers": [], "params": None, "macs": None}
    return {**facts, **network, "input": facts["inputs"][0], "auto": explain(bundle)}


def _card(bundle: Bundle) -> str:
    from edgecnn.auto import explain

    manifest, spec = bundle.manifest, bundle.manifest.spec
    rows = [("bundle", f"{manifest.name} ({bundle.path})"), ("made", manifest.created), ("task", spec.task)]
    rows += [("input", _tensor(info)) for info in manifest.inputs]
    rows += _preprocessing(spec)
    rows += [("output", _tensor(info)) for info in manifest.outputs]
    rows += _decoding(spec)
    if manifest.network is not None:
        network = manifest.network
        rows.append(
            ("network", f"{network.params:,} parameters, {network.macs / 1e6:,.1f} M multiply-adds an input")
        )
    rows += [("", f"{name}: {value}") for name, value in manifest.provenance.items()]
    width = max(len(name) for name, _ in rows)
    parts = ["\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)]
    parts.append(_cards.artifact_table(bundle))
    if manifest.fidelity:
        parts.append(_cards.fidelity_table(manifest.fidelity))
    parts += _cards.measured_on(bundle)
    parts += _cards.window_lines(bundle)
    parts += _cards.device_lines(bundle)
    parts.append(f"  runs here: {explain(bundle)}")
    if manifest.network is not None and _common.is_verbose():
        parts.append(_layers(manifest.network.layers))
    return "\n\n".join(parts)


def _tensor(info: TensorInfo) -> str:
    return f"{info.name}: {info.dtype} {_shape(info.shape)}"


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape) or "one number"


def _preprocessing(spec: ModelSpec) -> list[tuple[str, str]]:
    antialias = ", antialiased" if spec.antialias else ""
    height, width = spec.size_hw
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (spec.mean, spec.std))
    how = "windows of" if spec.window is not None else f"{spec.resize} to"
    return [
        ("frames", f"{how} {height}×{width} ({spec.interpolation}{antialias}), {spec.color}"),
        ("values", f"(pixel × {spec.scale:.6g} - [{mean}]) / [{std}], inside the model"),
    ]


def _decoding(spec: ModelSpec) -> list[tuple[str, str]]:
    more = f" … {len(spec.labels)} in all" if len(spec.labels) > LABELS_SHOWN else ""
    rows = [("labels", ", ".join(spec.labels[:LABELS_SHOWN]) + more if spec.labels else "none")]
    thresholds = [f"{spec.threshold:g}", *(f"{k} {v:g}" for k, v in spec.class_thresholds.items())]
    if spec.task == "classification":
        rows.append(("reported", f"the best {min(spec.top_k, len(spec.labels) or spec.top_k)} classes"))
    if spec.finds_boxes:
        method = "" if spec.nms_method == "hard" else f" ({spec.nms_method})"
        rows.append(
            ("reported", f"score ≥ {', '.join(thresholds)}; NMS {spec.nms} at IoU {spec.nms_iou:g}{method}")
        )
    if spec.task == "detection":
        rows.append(("decoder", spec.decoder))
    if spec.window is not None:
        window = spec.window
        rows.append(
            (
                "windows",
                f"stride {window.stride}, scale step {window.scale_step:g}, from {_px(window.min_size)}",
            )
        )
    return rows


def _px(size: int | None) -> str:
    return "the model's own size" if size is None else f"{size} px"


def _layers(layers: tuple[Layer, ...]) -> str:
    rows = [["layer", "op", "output", "parameters", "multiply-adds"]]
    rows += [
        [row.name, row.op, _shape(row.output_shape), f"{row.params:,}", f"{row.macs:,}"] for row in layers
    ]
    return _common.table(rows)
