"""``edgecnn convert``: a model becomes a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgecnn.cli import _common
from edgecnn.errors import GateMissed

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle

__all__ = ["command"]

FIDELITY_KEYS = ("id", "runtime", "n", "max_abs", "cosine", "agreement", "metric", "metric_fp32", "drop")


@click.command("convert", short_help="Convert a model to a bundle and prove it.")
@click.argument("model")
@click.option("-o", "--output", "out", required=True, metavar="OUT.edge", help="The bundle to write.")
@click.option("--spec", metavar="FILE", help="What the model wants and gives: .toml or .json.")
@click.option("--weights", metavar="FILE", help="A .safetensors or state_dict file for the model.")
@click.option(
    "--calib", metavar="SOURCE", help="Real inputs to compare on: a folder of images, a video, an .npz."
)
@click.option("--samples", type=click.IntRange(1), default=32, show_default=True, help="How many inputs.")
@click.option("--batch", type=click.IntRange(1), help="Fix the batch size; any size is accepted otherwise.")
@_common.json_flag
@_common.verbosity
def command(
    model: str,
    out: str,
    spec: str | None,
    weights: str | None,
    calib: str | None,
    samples: int,
    batch: int | None,
    as_json: bool,
) -> None:
    """Convert MODEL to a bundle and prove that it computes the same.

    MODEL is torchvision:NAME, package.module:factory, path/file.py:factory, model.pt2 or model.onnx.

    \b
    edgecnn convert torchvision:mobilenet_v2 -o net.edge --calib photos/
    edgecnn convert net.py:Net --spec net.toml --weights net.safetensors -o net.edge
    """
    from edgecnn.conversion import convert

    steps: list[dict[str, Any]] = []
    try:
        with _common.step_reporter(f"converting {model}") as report:

            def on_step(name: str, seconds: float) -> None:
                steps.append({"name": name, "seconds": round(seconds, 3)})
                report(name, seconds)

            bundle = convert(
                model,
                spec=spec,
                out=out,
                weights=weights,
                calibration=calib,
                samples=samples,
                batch=batch,
                on_step=on_step,
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
            }
            for entry in manifest.artifacts
        ],
        "fidelity": [_fidelity(msgspec.structs.asdict(row)) for row in manifest.fidelity],
        "steps": steps,
        "gate": _gate(met=True),
    }


def _refused(missed: GateMissed, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The same object for a conversion that wrote no bundle, with what was measured."""
    return {
        "bundle": None,
        "artifacts": [],
        "fidelity": [_fidelity(missed.figures)] if missed.figures else [],
        "steps": steps,
        "gate": _gate(met=False),
    }


def _fidelity(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: figures.get(key) for key in FIDELITY_KEYS}


def _gate(met: bool) -> dict[str, Any]:
    return {"max_drop": None, "met": met, "kept_float": []}


def _card(bundle: Bundle) -> str:
    parts = [f"{bundle.path} is written and agrees with the model", _common.artifact_table(bundle)]
    parts.append(_common.fidelity_table(bundle.manifest.fidelity))
    return "\n\n".join([*parts, *_common.measured_on(bundle)])
