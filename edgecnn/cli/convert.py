"""``edgecnn convert``: a model becomes a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgecnn.cli import _cards, _common
from edgecnn.errors import GateMissed

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle

__all__ = ["command"]

REPORT = "report.html"
FIDELITY_KEYS = ("id", "runtime", "n", "max_abs", "cosine", "agreement", "metric", "metric_fp32", "drop")


@click.command("convert", short_help="Convert a model to a bundle and prove it.")
@click.argument("model")
@click.option("-o", "--output", "out", required=True, metavar="OUT.edge", help="The bundle to write.")
@click.option("--spec", metavar="FILE", help="What the model wants and gives: .toml or .json.")
@click.option("--weights", metavar="FILE", help="A .safetensors or state_dict file for the model.")
@click.option(
    "--calib",
    "calibration",
    metavar="SOURCE",
    help="Real inputs to compare on and calibrate with: a folder of images, a video, an .npz.",
)
@click.option(
    "--samples", type=click.IntRange(1), help="How many inputs: 32, for int8, fp16 and pruning 128."
)
@click.option("--batch", type=click.IntRange(1), help="Fix the batch size; any size is accepted otherwise.")
@click.option(
    "--device",
    metavar="PROFILE",
    help="Convert for this device, such as jetson-orin-nano or x86; edgecnn doctor names this machine's.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Add artifacts of this precision; fp32 stays in the bundle. Default: fp32, or with --calib what "
    "suits the device.",
)
@click.option(
    "--target",
    metavar="NAME,…",
    help="What to write for: onnx (any CPU), openvino, tensorrt. Default: onnx, or what suits the device.",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="DATA",
    help="Labelled images (folder a class, CSV, COCO JSON) or frames to hold the budget on.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    metavar="DROP",
    help="The accuracy budget, 0.005 for half a point; with --eval 0.01.",
)
@click.option(
    "--speed-gate/--no-speed-gate", default=True, help="Keep only what is faster than fp32 on this machine."
)
@click.option("--prune", type=click.FloatRange(0, 0.9), metavar="RATIO", help="Cut this share of the MACs.")
@click.option(
    "--max-latency", type=float, metavar="MS", help="Prune until the fp32 model takes no longer here."
)
@click.option(
    "--ranges",
    "method",
    default="auto",
    show_default=True,
    metavar="METHOD",
    help="How int8 ranges are chosen: auto, minmax, moving_average, percentile, entropy, mse.",
)
@_common.json_flag
@_common.verbosity
def command(model: str, target: str | None, max_latency: float | None, as_json: bool, **options: Any) -> None:
    """Convert MODEL to a bundle and prove that it computes the same.

    MODEL is torchvision:NAME, package.module:factory, path/file.py:factory, model.pt2 or model.onnx.

    \b
    edgecnn convert torchvision:mobilenet_v2 -o net.edge --calib photos/
    edgecnn convert net.py:Net --spec net.toml --weights net.safetensors -o net.edge
    edgecnn convert net.py:Net --spec net.toml -o net.edge --precision int8 --calib photos/ --eval val/
    edgecnn convert net.onnx --spec net.toml -o net.edge --device jetson-orin-nano --calib photos/
    """
    from edgecnn.conversion import convert

    steps: list[dict[str, Any]] = []
    try:
        with _common.step_reporter(f"converting {model}") as report:

            def on_step(name: str, seconds: float) -> None:
                steps.append({"name": name, "seconds": round(seconds, 3)})
                report.step(name, seconds)

            bundle = convert(
                model,
                target=tuple(part.strip() for part in target.split(",")) if target is not None else None,
                max_latency_ms=max_latency,
                on_step=on_step,
                on_work=report.work,
                **options,
            )
    except GateMissed as missed:
        if as_json:
            _common.print_json(_refused(missed, steps))
        raise
    if as_json:
        _common.print_json(_facts(bundle, steps))
    elif not _common.is_quiet():
        _common.echo(_card(bundle))


def _facts(bundle: Bundle, steps: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "artifacts": [
            {
                "id": entry.id,
                "format": entry.format,
                "precision": entry.precision,
                "placement": entry.placement,
                "path": entry.path,
                "bytes": bundle.file(entry.path).bytes,
                "sha256": bundle.file(entry.path).sha256,
                "build_s": round(entry.build_s, 3),
                "dense": msgspec.to_builtins(entry.dense),
            }
            for entry in manifest.artifacts
        ],
        "fidelity": [_fidelity(msgspec.structs.asdict(row)) for row in manifest.fidelity],
        "steps": steps,
        "gate": {
            "max_drop": manifest.evaluated.max_drop if manifest.evaluated else None,
            "met": True,
            "kept_float": sorted({kept.layer for made in manifest.quantization for kept in made.kept_float}),
        },
        "device": msgspec.to_builtins(manifest.device),
        "not_dense": manifest.not_dense,
    }


def _refused(missed: GateMissed, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The same object for a conversion that wrote no bundle, with what was measured."""
    return {
        "bundle": None,
        "artifacts": [],
        "fidelity": [_fidelity(missed.figures)] if missed.figures else [],
        "steps": steps,
        "gate": {
            "max_drop": missed.figures.get("max_drop") if missed.figures else None,
            "met": False,
            "kept_float": [],
        },
        "device": None,
        "not_dense": "",
    }


def _fidelity(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: figures.get(key) for key in FIDELITY_KEYS}


def _headline(bundle: Bundle) -> str:
    """What matters most: whether it is what the model was, or how much of it."""
    evaluated = bundle.manifest.evaluated
    if evaluated is None:
        return f"{bundle.path} is written and agrees with the model"
    rows = bundle.manifest.fidelity
    precision = {entry.id: entry.precision for entry in bundle.manifest.artifacts}
    row = next((row for row in rows if precision[row.id] != "fp32"), rows[0])
    budget = (
        "no budget was set" if evaluated.max_drop is None else f"within the budget of {evaluated.max_drop:g}"
    )
    return (
        f"{bundle.path} is written: {evaluated.metric} of {row.id} is {_common.figure(row.metric, '.4f')}, "
        f"of the original {_common.figure(row.metric_fp32, '.4f')} ({budget})"
    )


def _card(bundle: Bundle) -> str:
    parts = [_headline(bundle), _cards.artifact_table(bundle)]
    parts.append(_cards.fidelity_table(bundle.manifest.fidelity))
    parts += _cards.measured_on(bundle)
    parts += _cards.accuracy_lines(bundle)
    parts += _cards.window_lines(bundle)
    parts += _cards.device_lines(bundle)
    if any(file.path == REPORT for file in bundle.manifest.files):
        parts.append(f"  {bundle.path / REPORT} shows layers, ranges and the worst inputs")
    return "\n\n".join(parts)
