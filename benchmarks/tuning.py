"""What ``edgecnn tune`` picks beside the best of an exhaustive search.

usage: python benchmarks/tuning.py [--data DIR]

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. Every setting is timed in turns for many rounds; then
the pick and the best of them take turns by themselves. The networks are not part of the project: --data, $EDGECNN_DATA or
../shared/data names the folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from faces import data_folder
from networks import networks, split
from tables import table

import edgecnn
from edgecnn.auto import choose
from edgecnn.candidates import Candidate, engines_here, find_candidates
from edgecnn.devices.state import Others
from edgecnn.progress import silent_work
from edgecnn.runtimes import RuntimeOptions
from edgecnn.timing import race
from edgecnn.tuning.search import Search
from edgecnn.tuning.settings import Grid, Setting

KEYS = ("mobilenet_v2", "squeezenet")
OBJECTIVES = ("latency", "throughput")
ROUNDS, ROUNDS_ALONE = 15, 60
MAX_DROP = 0.02
# goal
MOST = 1.03


def bundles(data: Path, folder: Path) -> list[edgecnn.Bundle]:
    """The face detector as it ships, and classifiers in fp32 and INT8 for both engines."""
    found = [edgecnn.load("face", runtime="ort").bundle]
    for network in networks(data):
        if network.key in KEYS:
            print(f"tuning: {network.name}: converting", file=sys.stderr)
            made = edgecnn.convert(
                network.model,
                spec=network.spec,
                weights=network.weights,
                calibration=split(network, data).calibration,
                samples=32,
                precision="int8",
                target=("onnx", "openvino"),
                max_drop=MAX_DROP,
                speed_gate=False,
                out=folder / f"{network.key}.edge",
            )
            found.append(made)
    return found


def all_settings(grid: Grid, candidates: Sequence[Candidate]) -> list[Setting]:
    """Every setting that can be reached."""
    new = [start for each in candidates for start in grid.starts(each, on_processor=True)]
    found: dict[str, Setting] = {}
    while new:
        found |= {str(setting): setting for setting in new}
        new = [each for near in new for each in grid.neighbours(near) if str(each) not in found]
    return list(found.values())


def compared(bundle: edgecnn.Bundle, objective: Any) -> dict[str, Any]:
    """The pick beside the best of all and what is taken where nothing was tuned; the fastest of them is 1."""
    others, untuned = Others(), choose(bundle).candidate
    start = time.perf_counter()
    tuned = edgecnn.tune(bundle, objective=objective)
    tune_s = time.perf_counter() - start
    processors = RuntimeOptions().thread_count
    grid = Grid.of(bundle, objective, processors)
    precisions = sorted({entry.precision for entry in bundle.manifest.artifacts})
    candidates, _ = find_candidates(bundle, engines_here(None)[0], precisions)
    settings = all_settings(grid, candidates)
    with ExitStack() as closing:
        search = Search(bundle, None, grid, closing, silent_work)
        start = time.perf_counter()
        every = race(search.turns(settings), drop=float("inf"), min_rounds=ROUNDS)
        exhaustive_s = time.perf_counter() - start
        usual = Setting(untuned, processors, 1, grid.batches[0])
        last = [search.tried[tuned.best], search.tried[every.leader], usual]
        found = race(search.turns(last), drop=float("inf"), min_rounds=ROUNDS_ALONE)
    least = min(found.ratios.values())
    return {
        "settings": len(every.ratios),
        "tune_s": tune_s,
        "exhaustive_s": exhaustive_s,
        "pick": tuned.best,
        "best": every.leader,
        "pick_ms": found.leader_ms * found.ratios[tuned.best],
        "best_ms": found.leader_ms * least,
        "ratio": found.ratios[tuned.best] / least,
        "untuned": found.ratios[str(usual)] / least,
        "others": others.share(),
    }


def section(data: Path) -> tuple[str, list[str]]:
    """Its part of the page, and the goals that are missed."""
    rows, misses = [], []
    with tempfile.TemporaryDirectory() as folder:
        # what is tuned here is not what this user's programs take from now on
        before, os.environ["EDGECNN_CACHE"] = os.environ.get("EDGECNN_CACHE"), folder
        try:
            for bundle in bundles(data, Path(folder)):
                for objective in OBJECTIVES:
                    print(f"tuning: {bundle.manifest.name}: {objective}", file=sys.stderr)
                    found = compared(bundle, objective)
                    name = f"{bundle.manifest.name}, {objective}"
                    rows.append(
                        [
                            name,
                            found["settings"],
                            f"{found['tune_s']:.0f}",
                            f"{found['exhaustive_s']:.0f}",
                            found["pick"],
                            found["best"] if found["best"] != found["pick"] else "the same",
                            f"{found['pick_ms']:.2f}",
                            f"{found['best_ms']:.2f}",
                            f"{found['ratio']:.3f}",
                            f"{found['untuned']:.2f}",
                            "–" if found["others"] is None else f"{found['others']:.0%}",
                        ]
                    )
                    if found["ratio"] > MOST:
                        misses.append(f"{name}: {found['ratio']:.3f}, the most is {MOST:g}")
        finally:
            os.environ.pop("EDGECNN_CACHE")
            if before is not None:
                os.environ["EDGECNN_CACHE"] = before
    header = ["bundle, objective", "settings", "tune s", "all s", "pick", "best of all"]
    header += ["pick ms", "best ms", "ratio", "untuned", "others"]
    listed = "\n".join(f"- Goal missed: {miss}." for miss in misses)
    text = f"""## What tune picks

`edgecnn tune` beside all settings of engine, precision, arithmetic, threads, streams and batch, each timed in turns for
{ROUNDS} rounds; then the pick, the best of all and what `auto` takes where nothing was tuned, with one inference at a time, in
turns by themselves for {ROUNDS_ALONE}. Of those the fastest is the best here, which the pick and *untuned* are compared with. Times
are for one input; of the face detector for all windows of a small picture. *Others* is what other programs took of the
processors meanwhile: with them the best number of threads is another from one minute to the next.

{table(header, rows)}

Goal: at most {MOST:g} times the best.
{listed}
"""
    return text, misses


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    text, misses = section(data_folder(parser.parse_args(arguments).data))
    print(text)
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
