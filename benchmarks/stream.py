"""What a stream costs beside its engine, and what overlapping gains.

usage: python benchmarks/stream.py [--data DIR]

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. A street scene (vtest.avi) goes through SqueezeNet
and FastestDet in four ways, in turns: the bare engine on an input that is ready beside a bare reading of the video, one
thing after the other, and overlapped in both modes. And it is read in this process beside one of its own. The clip and
the networks are not part of the project: --data, $EDGECNN_DATA or ../shared/data names the folder that holds them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from faces import data_folder
from networks import networks, split
from tables import table

import edgecnn
from edgecnn.stream import Source, open_pipeline, open_source
from edgecnn.vision import VideoReader

FRAMES, ROUNDS = 100, 7
READ_FRAMES = 600  # of reading alone
# goals
LARGEST_CPU, LARGEST_BUSY = 1.15, 2.1


@dataclass(frozen=True)
class Cost:
    """Of a frame, in ms: of wall time, and of processor time on all cores."""

    wall_ms: float
    cpu_ms: float


def cpu_s(source: Source) -> float:
    """Processor time of this process and of the one that reads the source."""
    reader = source._reader._process.pid  # type: ignore[attr-defined]
    # the clock of another process: clock_getcpuclockid of glibc
    return time.process_time() + time.clock_gettime((~reader << 3) | 2)


def timed(call: Callable[[Source], object], video: Path) -> Cost:
    """Cost of each of so many frames of a video that has been opened and has given its first one."""
    with open_source(video) as source:
        next(source)
        wall, cpu = time.perf_counter(), cpu_s(source)
        call(source)
        return Cost((time.perf_counter() - wall) / FRAMES * 1e3, (cpu_s(source) - cpu) / FRAMES * 1e3)


def bundles(data: Path, folder: Path) -> Iterator[tuple[str, edgecnn.Bundle]]:
    """A classifier in INT8, and a detector in float."""
    network = next(each for each in networks(data) if each.key == "squeezenet")
    yield (
        "SqueezeNet 1.1, int8, 224×224",
        edgecnn.convert(
            network.model,
            weights=network.weights,
            spec=network.spec,
            calibration=split(network, data).calibration[:32],
            precision="int8",
            target=("onnx", "openvino"),
            out=folder / "squeezenet.edge",
        ),
    )
    newer = onnx.version_converter.convert_version(onnx.load(data / "models" / "fastestdet_coco80.onnx"), 17)
    onnx.save(newer, folder / "fastestdet.onnx")
    labels = tuple(str(number) for number in range(80))
    yield (
        "FastestDet, fp32, 352×352",
        edgecnn.convert(
            folder / "fastestdet.onnx",
            spec=edgecnn.ModelSpec(
                task="detection", decoder="fastestdet", size_hw=(352, 352), color="bgr", labels=labels
            ),
            calibration=split(network, data).calibration[:4],
            target=("onnx", "openvino"),
            out=folder / "fastestdet.edge",
        ),
    )


def read(source: Source) -> None:
    """Read the frames and do nothing with them."""
    for _ in islice(source, FRAMES):
        pass


def bare(predictor: edgecnn.Predictor, source: Source) -> None:
    """The engine on an input that is ready, and the video's frames."""
    feeds = {predictor.runtime.inputs[0].name: np.zeros((1, *predictor.spec.size_hw, 3), np.uint8)}
    for _ in range(FRAMES):
        predictor.runtime.run(feeds)
    read(source)


def serial(predictor: edgecnn.Predictor, source: Source) -> None:
    """One thing after the other."""
    for frame in islice(source, FRAMES):
        predictor(frame.image)


def overlapped(predictor: edgecnn.Predictor, source: Source) -> None:
    """As `Predictor.stream`."""
    with open_pipeline(source, predictor, predictor.workers) as pipeline:
        for _ in range(FRAMES):
            prediction = pipeline.take()
            if prediction is None:
                raise SystemExit(f"stream: {source.name} has fewer than {FRAMES} frames")
            prediction.result()


def in_turns(calls: dict[str, Callable[[Source], object]], video: Path) -> dict[str, Cost]:
    """Medians of rounds, after one that does not count."""
    found: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            found[name].append(timed(call, video))
    return {
        name: Cost(
            statistics.median(cost.wall_ms for cost in costs[1:]),
            statistics.median(cost.cpu_ms for cost in costs[1:]),
        )
        for name, costs in found.items()
    }


def reading(video: Path) -> list[tuple[str, str, str, str]]:
    """Rows: what a video costs that is read here, and in a process of its own, in turns."""
    found: dict[str, list[tuple[float, float, float]]] = {"in this process": [], "in its own": []}
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        with VideoReader(video) as reader:
            frames = iter(reader)
            next(frames)
            first, cpu = time.perf_counter(), time.process_time()
            for _frame in islice(frames, READ_FRAMES):
                pass
            spent = time.perf_counter() - first, time.process_time() - cpu
        found["in this process"].append((first - begun, *spent))
        begun = time.perf_counter()
        with open_source(video) as source:
            next(source)
            first, cpu = time.perf_counter(), cpu_s(source)
            for _frame in islice(source, READ_FRAMES):
                pass
            spent = time.perf_counter() - first, cpu_s(source) - cpu
        found["in its own"].append((first - begun, *spent))
    rows = []
    for name, costs in found.items():
        first_s, wall_s, cpu_all_s = (statistics.median(column) for column in zip(*costs[1:]))
        figures = (
            f"{first_s * 1e3:.0f}",
            f"{wall_s / READ_FRAMES * 1e3:.2f}",
            f"{cpu_all_s / READ_FRAMES * 1e3:.2f}",
        )
        rows.append((name, *figures))
    return rows


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy_core() -> Iterator[None]:
    """Another program that never rests."""
    other = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    other.start()
    try:
        yield
    finally:
        other.kill()
        other.join()


def measure(data: Path) -> list[tuple[str, str, dict[str, Cost], dict[str, Cost]]]:
    """Of each network and engine: costs on an idle machine, and with one core busy."""
    video, found = data / "video" / "vtest.avi", []
    with tempfile.TemporaryDirectory() as folder:
        for what, bundle in bundles(data, Path(folder)):
            for runtime in ("ort", "openvino"):
                with ExitStack() as opened:
                    quick = opened.enter_context(edgecnn.load(bundle, runtime=runtime))
                    many = opened.enter_context(edgecnn.load(bundle, runtime=runtime, mode="throughput"))
                    streams = {
                        "overlapped": partial(overlapped, quick),
                        "throughput": partial(overlapped, many),
                    }
                    calls = {
                        "bare": partial(bare, quick),
                        "serial": partial(serial, quick),
                        **streams,
                    }
                    idle = in_turns(calls, video)
                    with busy_core():
                        busy = in_turns(streams, video)
                found.append((what, runtime, idle, busy))
    return found


def section(data: Path) -> tuple[str, bool]:
    """Its part of the page, and whether a goal is missed."""
    rows, misses = [], []
    for what, runtime, idle, busy in measure(data):
        for mode in ("overlapped", "throughput"):
            cpu = idle[mode].cpu_ms / idle["bare"].cpu_ms
            slower = busy[mode].wall_ms / idle[mode].wall_ms
            rows.append(
                (
                    what,
                    runtime,
                    "latency" if mode == "overlapped" else mode,
                    f"{idle['bare'].cpu_ms:.2f}",
                    f"{idle[mode].cpu_ms:.2f}",
                    f"{cpu:.2f}×",
                    f"{idle['serial'].wall_ms:.2f}",
                    f"{idle[mode].wall_ms:.2f}",
                    f"{idle['serial'].wall_ms / idle[mode].wall_ms:.2f}×",
                    f"{slower:.2f}×",
                )
            )
            if cpu > LARGEST_CPU:
                misses.append(
                    f"{what}, {runtime}, {mode}: {cpu:.2f}× the processor time, the goal is {LARGEST_CPU}."
                )
            if slower > LARGEST_BUSY:
                misses.append(
                    f"{what}, {runtime}, {mode}: {slower:.2f}× with a core busy, the goal is {LARGEST_BUSY}."
                )
    header = ["network", "engine", "mode", "bare CPU ms", "stream CPU ms", "ratio"]
    header += ["serial ms", "stream ms", "gain", "a core busy"]
    lines = [
        "## Streams",
        "",
        f"A video of 768×576 (vtest.avi) on {len(os.sched_getaffinity(0))} cores, ms a frame, medians of {ROUNDS} turns of",
        f"{FRAMES} frames. *Bare* is the engine on an input that is ready and the reading of the frames, nothing else; *serial*",
        "does one thing after the other; the stream overlaps them. Processor time is of all threads together. With *a core",
        "busy*, another program never rests: how many times as long the stream takes then.",
        "",
        table(header, rows),
        "",
        f"Goals: {LARGEST_CPU} times the bare processor time; {LARGEST_BUSY} times as long with a core busy.",
        *(f"- Goal missed: {miss}" for miss in misses),
        "",
        "Beside networks of one to three milliseconds, geometry, decoding and cold caches are no small part; inferences of one",
        "thread each (throughput) lose least to one another.",
        "",
        "Videos are read in a process of their own, so that a file that crashes the decoder ends nothing else; its processor time",
        "is counted above. What that costs beside reading in this process, where OpenCV is loaded already:",
        "",
        table(
            ["reading", "first frame ms", "ms a frame", "CPU ms a frame"],
            reading(data / "video" / "vtest.avi"),
        ),
    ]
    return "\n".join([*lines, ""]), bool(misses)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="as of benchmarks/still.py")
    text, missed = section(data_folder(parser.parse_args(arguments).data))
    print(text)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
