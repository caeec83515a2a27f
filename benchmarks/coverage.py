"""Runs the zoo (tests/zoo) through every engine in every precision and writes docs/coverage.md.

usage: python benchmarks/coverage.py [--only REGEX] [--fresh | --failed] [--seconds 600] [--jobs N]

Each network has a process of its own and a limit of time. What is done is kept in build/coverage/results.jsonl,
so that a run that was stopped goes on where it was; rows are done again after a change of the sources or of an
engine. `--fresh` does all again, `--failed` what is missing, failed or was refused, whatever changed; `--page` only
writes the page.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

RESULTS = ROOT / "build" / "coverage" / "results.jsonl"
PAGE = ROOT / "docs" / "coverage.md"
CHILDREN: set[subprocess.Popen[str]] = set()
SOURCES = ("converters", "calibration", "runtimes", "tests/zoo", "edgecnn/spec.py", "edgecnn/isolation.py")
# runs engines on a GPU, and here they are only built
NO_PART = ("runtimes/tensorrt.py",)
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt-rtx-cu13-bindings",
    "numpy",
)
# the order of a run: what is quick first, so that most is known early
SECTIONS = ("operations", "models", "detection", "segmentation", "timm", "torchvision")
SLOW = re.compile(
    "alexnet|vgg16|retinanet|u-net|fcn-32|vgg|vit_[lh]|_128gf|_32gf|convnext_(base|large)|_32x|_64x4d|maxvit|"
    "swin_(v2_)?[bs]|efficientnet_(b[4-7]|v2_[ml])"
)


def versions() -> dict[str, str]:
    """Of the packages that have a part in the results."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def available(package: str | None) -> bool:
    """Whether what a row needs is installed."""
    return package is None or importlib.util.find_spec(package) is not None


def fingerprint() -> str:
    """Changes with the sources and the versions."""
    digest = hashlib.sha256(json.dumps(versions()).encode())
    for source in SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if (place := file.relative_to(ROOT).as_posix()) not in NO_PART:
                digest.update(place.encode() + file.read_bytes())
    for file in sorted(Path(__file__).parent.glob("coverage_cells.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def results() -> dict[str, dict[str, Any]]:
    """The last result of each row."""
    if not RESULTS.exists():
        return {}
    found = {}
    for line in RESULTS.read_text().splitlines():
        with suppress(json.JSONDecodeError):  # the last line of a run that was killed
            row = json.loads(line)
            found[row["row"]] = row
    return found


def settled(*, anyhow: bool) -> set[str]:
    """Rows that need not be run: done with these sources, or, anyhow, with nothing failed, refused or absent."""
    mark = fingerprint()
    fine = ("pass", "builds")
    return {
        name
        for name, row in results().items()
        if (all(cell["status"] in fine for cell in row["cells"]) if anyhow else row["fingerprint"] == mark)
    }


def run_row(name: str, seconds: float) -> tuple[list[dict[str, Any]], str, float]:
    """The cells of a row, why the others are not there, and the time it took."""
    start = time.perf_counter()
    command = ["nice", "-n", "10", sys.executable, __file__, "--row", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    CHILDREN.add(child)
    try:
        out, err = child.communicate(timeout=seconds)
        why = "" if child.returncode == 0 else _death(child.returncode, err)
    except subprocess.TimeoutExpired:
        stop(child)
        out, _ = child.communicate()
        why = f"not done within {seconds:.0f} s"
    CHILDREN.discard(child)
    cells = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return cells, why, round(time.perf_counter() - start, 1)


def stop(child: subprocess.Popen[str]) -> None:
    """End a child and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _death(code: int, err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "nothing was said"
    return f"died of {signal.Signals(-code).name}" if code < 0 else last


def finish(row: str, cells: list[dict[str, Any]], why: str) -> list[dict[str, Any]]:
    """All cells of a row: those that it did not reach failed for the reason it stopped."""
    from coverage_cells import ENGINES, PRECISIONS

    reached = {(cell["engine"], cell["precision"]) for cell in cells}
    wanted = [(engine, precision) for engine in ENGINES for precision in PRECISIONS]
    missing = [key for key in wanted if key not in reached]
    return [*cells, *({"engine": e, "precision": p, "status": "failed", "reason": why} for e, p in missing)]


def run_rows(names: list[str], seconds: float, jobs: int) -> None:
    """Run rows and keep each result as soon as it is there."""
    mark = fingerprint()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool, RESULTS.open("a") as file:
        waiting: dict[Future[Any], str] = {}
        left = list(names)
        done = 0
        try:
            while left or waiting:
                while left and len(waiting) < jobs:
                    name = left.pop(0)
                    waiting[pool.submit(run_row, name, seconds)] = name
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    name = waiting.pop(future)
                    cells, why, took = future.result()
                    result = {
                        "row": name,
                        "fingerprint": mark,
                        "seconds": took,
                        "cells": finish(name, cells, why),
                    }
                    file.write(json.dumps(result) + "\n")
                    file.flush()
                    done += 1
                    print(f"{done}/{len(names)} {name} {took:.0f} s: {_brief(result['cells'])}", flush=True)
        except KeyboardInterrupt:
            for child in CHILDREN:
                stop(child)
            raise


def _brief(cells: Any) -> str:
    counted = Counter(cell["status"] for cell in cells)
    text = ", ".join(f"{count} {status}" for status, count in counted.items())
    bad = [
        f"{c['engine']} {c['precision']}: {c['reason']}"
        for c in cells
        if c["status"] in ("failed", "refused")
    ]
    return f"{text}; {bad[0][:160]}" if bad else text


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression that names of rows match")
    parser.add_argument("--fresh", action="store_true", help="do again what is done")
    parser.add_argument("--failed", action="store_true", help="do what is missing or did not pass")
    parser.add_argument("--seconds", type=float, default=600, help="limit of a row")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    from tests.zoo import ROWS

    if options.row:
        from coverage_cells import cells

        for cell in cells(ROWS[options.row]):
            print(json.dumps(cell), flush=True)
        return 0
    if not options.page:
        done = set() if options.fresh else settled(anyhow=options.failed)
        names = [name for name in ROWS if re.search(options.only, name) and name not in done]
        for name in [name for name in names if not available(ROWS[name].needs)]:
            print(f"skipped {name}: {ROWS[name].needs} is not installed")
            names.remove(name)
        names.sort(key=lambda name: (bool(SLOW.search(name)), SECTIONS.index(ROWS[name].section)))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            run_rows(names, options.seconds, options.jobs)
        except KeyboardInterrupt:
            print("stopped; what is done is kept", file=sys.stderr)
            return 130
    from coverage_page import document

    beside = PAGE.with_suffix(".part")
    beside.write_text(document(ROWS, results(), versions()))
    beside.replace(PAGE)
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
