"""``edgecnn convert``: a model becomes a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli import _common

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle

__all__ = ["command"]


@click.command("convert")
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
    if as_json:
        _common.print_json(_facts(bundle, steps))
    elif not _common.is_quiet():
        click.echo(_card(bundle))


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
        "fidelity": [
            {
                "id": row.id,
                "runtime": row.runtime,
                "n": row.n,
                "max_abs": row.max_abs,
                "cosine": row.cosine,
                "agreement": row.agreement,
                "metric": None,
                "metric_fp32": None,
                "drop": None,
            }
            for row in manifest.fidelity
        ],
        "steps": steps,
        "gate": {"max_drop": None, "met": True, "kept_float": []},
    }


def _card(bundle: Bundle) -> str:
    manifest = bundle.manifest
    artifacts = [["artifact", "format", "precision", "size"]]
    artifacts += [
        [entry.id, entry.format, entry.precision, _common.human_bytes(bundle.file(entry.path).bytes)]
        for entry in manifest.artifacts
    ]
    lines = [f"{bundle.path} is written and agrees with the model", "", _common.table(artifacts), ""]
    lines.append(_common.fidelity_table(manifest.fidelity))
    if manifest.calibration is not None:
        made_up = (
            " (made up: give --calib for figures on real inputs)" if manifest.calibration.generated else ""
        )
        lines += [
            "",
            f"  measured on {manifest.calibration.n} inputs from {manifest.calibration.source}{made_up}",
        ]
    return "\n".join(lines)
