"""docs/coverage.md out of the results of the matrix."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from coverage_cells import (
    BYTES_A_LAYER,
    CALIBRATION_IMAGES,
    ENGINES,
    FEW_IMAGES,
    JUDGED_IMAGES,
    LARGEST_ERROR,
    LEAST_SQNR_DB,
    PRECISIONS,
)
from tables import table

from tests.zoo import Row

Cells = list[dict[str, Any]]
Results = Mapping[str, dict[str, Any]]

GOALS = {"core": {"fp32": 1.0, "int8": 0.95}, "others": {"fp32": 0.98, "int8": 0.95}}
NAMES = {"ort": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT (builds)"}
FINE = ("pass", "builds")


def document(rows: Mapping[str, Row], results: Results, versions: Mapping[str, str]) -> str:
    """The whole page."""
    states = Counter(results[name]["fingerprint"] for name in rows if name in results)
    ((state, alike),) = states.most_common(1)
    known = {name: results[name]["cells"] for name in rows if name in results}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    missing = [name for name in rows if name not in known]
    return f"""# Coverage

Written by `benchmarks/coverage.py`; do not edit. {len(known)} of {len(rows)} networks of `tests/zoo`, each through every
engine in every precision, in a process of its own. Weights are random, brought to the statistics of trained
ones. {packages}.

{alike} of these rows were run on one and the same state of the sources ({state}){"" if alike == len(known) else "; the others on others"}.

A network passes in fp32 where no output is further from PyTorch's than {LARGEST_ERROR["fp32"]:g} of the largest value of that
output (``max|a - b| / max|a|``; of whole numbers, such as an argmax, the share that differs), in fp16 at {LARGEST_ERROR["fp16"]:g}. INT8
passes with {LEAST_SQNR_DB:g} dB of signal to quantisation noise beside the fp32 model; with random weights that says whether
the network is quantised as it is meant, not how accurate a trained one is. It is calibrated on {CALIBRATION_IMAGES} made-up images
({FEW_IMAGES} where they are large) and judged on {JUDGED_IMAGES} others; layers of more than {BYTES_A_LAYER >> 20} MiB of weights are rounded to the nearest. fp16 is float16 weights and values in ONNX
(ONNX Runtime may compute them in float32 on a CPU) and float16 weights for OpenVINO on a CPU. TensorRT *builds*
engines for compute capability 8.9 without a GPU; they are not run here. A network that must not be converted counts
as covered where it is refused with the reason that it should be.

## Summary

{_summary(rows, known)}

{_decisions(known)}

## What is refused

{_reasons(rows, known, "refused")}

## What fails

{_reasons(rows, known, "failed")}

## All cells

fp32 and fp16: the error. int8: decibels of signal to noise, and for classifiers the share of the same decisions. ✓ builds, – refused, ✗ failed, · not installed.

{_matrix(rows, known)}
{_not_run(missing)}"""


def covered(row: Row, cell: dict[str, Any]) -> bool:
    """Whether a cell came out as it should."""
    if row.refused:
        return cell["status"] == "refused" and bool(re.search(row.refused, cell["reason"]))
    return cell["status"] in FINE


def shares(
    rows: Mapping[str, Row], known: Mapping[str, Cells]
) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Covered rows and all rows by group, engine and precision; engines that were not there do not count."""
    counted: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for name, cells in known.items():
        row = rows[name]
        groups = ("core" if row.importance == "core" else "others", row.section)
        for cell in cells:
            if cell["status"] == "absent":
                continue
            for group in groups:
                entry = counted[group, cell["engine"], cell["precision"]]
                entry[0] += covered(row, cell)
                entry[1] += 1
    return {key: (good, total) for key, (good, total) in counted.items()}


def _summary(rows: Mapping[str, Row], known: Mapping[str, Cells]) -> str:
    found = shares(rows, known)
    sections = list(dict.fromkeys(row.section for row in rows.values()))
    header = ["rows", *(f"{NAMES[engine]} {precision}" for engine in ENGINES for precision in PRECISIONS)]
    lines = []
    for group in ("core", "others", *sections):
        line = [group]
        for engine in ENGINES:
            for precision in PRECISIONS:
                good, total = found.get((group, engine, precision), (0, 0))
                goal = GOALS.get(group, {}).get(precision, 0.0)
                text = f"{good / total:.0%} ({good}/{total})" if total else "·"
                line.append(f"**{text}**" if total and good / total < goal else text)
        lines.append(line)
    return table(header, lines) + (
        "\n\nGoals: all core rows and 98 % of the others in fp32, 95 % in int8; bold is below."
    )


def _decisions(known: Mapping[str, Cells]) -> str:
    """How many decisions stay the same in int8, in a sentence for each engine."""
    lines = []
    for engine in ENGINES:
        shares = [
            cell["agreement"]
            for cells in known.values()
            for cell in cells
            if (cell["engine"], cell["precision"]) == (engine, "int8") and cell.get("agreement") is not None
        ]
        if shares:
            lines.append(
                f"* {NAMES[engine]}: {sum(shares) / len(shares):.1%} of the decisions of {len(shares)} "
                "classifiers in int8 are those of fp32."
            )
    lines.append(
        "\nA network that was not trained often has two best classes that are about equally likely, and then any "
        "noise decides; [measurements.md](measurements.md) has the decisions of trained ones."
    )
    return "\n".join(lines)


def _reasons(rows: Mapping[str, Row], known: Mapping[str, Cells], status: str) -> str:
    """Rows by reason, the engines and precisions it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, cells in known.items():
        for cell in cells:
            if cell["status"] == status:
                found.setdefault((name, cell["reason"]), []).append(f"{cell['engine']} {cell['precision']}")
    if not found:
        return "Nothing."
    lines = []
    for (name, reason), where in found.items():
        everywhere = len(where) == len(ENGINES) * len(PRECISIONS)
        meant = (
            " (as it should be)" if rows[name].refused and re.search(rows[name].refused or "", reason) else ""
        )
        lines.append(
            f"* **{name}**{meant}, {'everywhere' if everywhere else ', '.join(where)}: {_plain(reason)}"
        )
    return "\n".join(lines)


def _plain(reason: str) -> str:
    return reason.replace("<", "&lt;").replace("*", r"\*").replace("|", r"\|").replace("_", r"\_")


def _matrix(rows: Mapping[str, Row], known: Mapping[str, Cells]) -> str:
    header = [
        "network",
        "input",
        "",
        *(f"{engine} {precision}" for engine in ENGINES for precision in PRECISIONS),
    ]
    lines = []
    for name, cells in known.items():
        row, spec = rows[name], rows[name].spec
        by_key = {(cell["engine"], cell["precision"]): cell for cell in cells}
        texts = [_text(by_key[engine, precision]) for engine in ENGINES for precision in PRECISIONS]
        lines.append([name, "×".join(map(str, spec.input_shape)), row.importance, *texts])
    return table(header, lines)


def _text(cell: dict[str, Any]) -> str:
    if cell["status"] == "pass":
        if cell.get("sqnr_db") is None:
            return f"{cell['error']:.0e}"
        same = cell.get("agreement")
        return f"{cell['sqnr_db']:.0f}" + ("" if same is None else f", {same:.0%}")
    return {"builds": "✓", "refused": "–", "failed": "✗", "absent": "·"}[cell["status"]]


def _not_run(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"\nNot run: {listed}.\n" if listed else ""
