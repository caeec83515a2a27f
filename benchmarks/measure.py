"""Writes docs/measurements.md: every figure that the project states, printed by the scripts beside this one.

usage: python benchmarks/measure.py docs/measurements.md [--data DIR]

Takes about half an hour on two cores, and nncf (pip install nncf). The data are not part of the project (see docs/data.md).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import budget
import faces
import int8
import parity
import stages
from tables import table

PACKAGES = ("edgecnn", "torch", "torchvision", "onnx", "onnxruntime", "opencv-python-headless", "numpy")


def machine() -> str:
    """Processor, cores and versions."""
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{models[0] if models else platform.processor()}, {len(os.sched_getaffinity(0))} cores; "
        f"Python {platform.python_version()}, {packages}."
    )


def parity_section(data: Path) -> str:
    """Converted models beside their modules."""
    rows = [
        [
            row["model"],
            row["inputs"],
            f"{row['max_abs']:.2g}",
            f"{row['cosine']:.9f}",
            f"{row['agreement']:.1%}",
            "–" if row["top1"] is None else f"{row['top1']:.1%}",
            "–" if row["published_top1"] is None else f"{row['published_top1']:.1%}",
        ]
        for row in parity.measure(data)
    ]
    header = [
        "model",
        "inputs",
        "max abs difference",
        "worst cosine",
        "same decision",
        "top-1 of the bundle",
        "reference",
    ]
    return table(header, rows)


def faces_section(data: Path) -> tuple[str, dict[str, Any]]:
    """The shipped detector beside the Haar cascade."""
    report = faces.measure("face", data)
    rows = []
    for name in ("faces_dlib", "coco128"):
        for detector in ("edgecnn", "haar"):
            row = report[name][detector]
            rows.append(
                [
                    name,
                    "edgecnn face" if detector == "edgecnn" else "OpenCV Haar cascade",
                    f"{row['found']} of {row['objects']}",
                    f"{row['recall']:.1%}",
                    f"{row['false_positives_an_image']:.2f}",
                    "–" if row["ap30"] is None else f"{row['ap30']:.3f}",
                ]
            )
    return table(
        ["photographs", "detector", "found", "recall", "false positives an image", "AP@0.3"], rows
    ), report


def stages_section() -> str:
    """Time per stage."""
    rows = [
        [
            row["what"],
            row["frame"],
            row["windows"],
            *(f"{row[stage]:.2f}" for stage in stages.STAGES),
            f"{row['total']:.1f}",
        ]
        for row in stages.measure()
    ]
    return table(["what", "frame", "windows", *(f"{s} ms" for s in stages.STAGES), "total ms"], rows)


def document(data: Path) -> tuple[str, list[str]]:
    """The whole page, and the promises that its figures do not keep."""
    print("measure: stages", file=sys.stderr)
    timing, start = stages_section(), stages.measure_start()
    print("measure: parity", file=sys.stderr)
    agreement = parity_section(data)
    small, held = int8.measure(data), budget.measure(data)
    print("measure: faces", file=sys.stderr)
    found, report = faces_section(data)
    missed = [*faces.missed(report), *small["missed"], *held["missed"]]
    text = f"""# Measurements

Written by `make measure` (`benchmarks/measure.py`); do not edit. {machine()}

## Parity of converted models

ONNX Runtime beside the PyTorch module, on real images through the bundle's own preprocessing; differences are
of probabilities (`benchmarks/parity.py`). Top-1 is that of the bundle on all images of the set; the reference is
what is published for the weights and the set, with whatever preprocessing was used there.

{agreement}

## INT8 without training

`edgecnn.quantize` beside `onnxruntime.quantization.quantize_static` (per channel) and `nncf.quantize`, both with
their defaults otherwise: at most {int8.CALIBRATION_IMAGES} images calibrate, others judge (`benchmarks/int8.py`). Points lost are of top-1
and the decisions are compared with fp32; file and speed are beside fp32, speed with one image and one thread in ONNX
Runtime, calls in turn. The placement for TensorRT is emulated in ONNX Runtime, so its speed is not given. Person has
64 labelled images for the points and 650 more for the decisions. Averaged, the placement for the CPU decides otherwise
than fp32 **{small["disagreement_ratio"]:.2f}** times as often as the better library (limit {int8.MOST_DISAGREEMENT}).

{int8.markdown(small)}

## The accuracy budget

Networks in which channels between two layers were multiplied by random factors of 1 to {budget.WIDEST:.0f} and divided again
in the next layer: they compute the same, but plain INT8 fails. `edgecnn.quantize` with labelled images and
`max_drop={budget.MAX_DROP}` puts layers back to float (`benchmarks/budget.py`). Negative is a gain.

{budget.markdown(held)}

{budget.minimality(held)}

## The face detector that ships

Threshold {report["threshold"]}, a face counts as found at IoU ≥ {report["iou"]}; regions marked as unclear are left out
(`benchmarks/faces.py`). The cascade is `haarcascade_frontalface_default` with OpenCV's defaults and has no scores.

{found}

## Time per stage

Medians of one process on this machine, one frame at a time, all cores; read them as shares of one another,
not as promises (`benchmarks/stages.py`).

{timing}

A fresh process takes {start["import_s"] * 1e3:.0f} ms to import edgecnn, {start["load_s"] * 1e3:.0f} ms to import numpy, OpenCV and
ONNX Runtime and to check and load the face bundle, and {start["first_result_s"] * 1e3:.0f} ms to its first result on 640×480
from 120 px.
"""
    return text, missed


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data")
    options = parser.parse_args(arguments)
    text, missed = document(faces.data_folder(options.data))
    beside = options.out.with_suffix(".part")
    beside.write_text(text)
    beside.replace(options.out)
    print(f"wrote {options.out}")
    for promise in missed:
        print(f"measure: not kept: {promise}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
