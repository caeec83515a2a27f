"""``benchmark()``: all that runs a bundle here, timed in turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from edgecnn.benchmarking.child import measure_first_result
from edgecnn.benchmarking.contenders import Contender, find_candidates, open_contenders
from edgecnn.benchmarking.facts import describe_frames, describe_machine, draw
from edgecnn.benchmarking.figures import block_medians, histogram, percentiles, ratio_interval
from edgecnn.benchmarking.results import Benchmark, Row, Stages
from edgecnn.bundle import Bundle
from edgecnn.devices.energy import EnergyMeter, find_meter
from edgecnn.devices.state import machine_state
from edgecnn.errors import EdgeCnnError, InputError, first_line
from edgecnn.loading import open_bundle
from edgecnn.progress import OnWork, silent_work

__all__ = ["Interrupted", "benchmark", "take_turns", "warm_up"]

Clock = Callable[[], int]
Frames = Sequence[npt.NDArray[np.uint8]]

WARM_WINDOW = 5
WARM_CHANGE = 0.03
# rounds that percentiles need, and after how many times the seconds that were asked for they are given up
ROUNDS_MIN = 20
PATIENCE = 3
ROUNDS_MAX = 5000
ENERGY_SECONDS = 2.0
YARDSTICK = 1 << 15


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came when something had been measured.

    Attributes:
        found: What had been measured until then.
    """

    def __init__(self, found: Benchmark) -> None:
        super().__init__(f"interrupted after {max(row.n for row in found.rows)} rounds")
        self.found = found


def benchmark(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    runtime: str = "all",
    source: str | os.PathLike[str] | None = None,
    precision: str = "auto",
    threads: int | None = None,
    seconds: float = 5.0,
    on_work: OnWork = silent_work,
) -> Benchmark:
    """Time every artifact of a bundle on every engine that runs it here, from frame to result.

    All are opened side by side and have their turns in rounds, so that what slows the machine down for a
    while slows all alike. Counting begins when latencies have become stable. Time and memory to a first
    result are those of fresh processes.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships.
        runtime: Names with commas between them, or ``all`` that are installed here.
        source: A video, an image, a folder of images or a camera's number; None makes up frames of 640×480.
        precision: ``fp32``, ``fp16`` or ``int8``; ``auto`` is all that the bundle holds.
        threads: Threads of one inference; None uses the processors this process may use.
        seconds: Measure each of them for so long.
        on_work: Told what goes on.

    Raises:
        BundleError: The bundle is missing, altered or unsafe, or a runtime takes nothing of it.
        InputError: An argument cannot be used.
        MediaError: The source holds no frame.
        Unavailable: No runtime on this machine can run it.
        Interrupted: Ctrl-C; it has what was measured until then.
    """
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, not {seconds!r}")
    opened = open_bundle(bundle)
    candidates = find_candidates(opened, runtime, precision)
    frames, read_ms = draw(source)
    before = machine_state()
    first_results: dict[int, tuple[dict[str, float | None], str]] = {}
    yardstick: list[float] = []
    meter, no_meter = find_meter()
    with ExitStack() as models:
        contenders, left_out = open_contenders(opened, candidates, frames[0], threads, models, on_work)

        def found(*, interrupted: bool = False) -> Benchmark:
            timed = [contender for contender in contenders if contender.latencies_ms]
            best = min(timed, key=lambda contender: statistics.median(contender.latencies_ms))
            rows = [
                _row(opened, each, best, read_ms, *first_results.get(id(each), ({}, "interrupted")))
                for each in timed
            ]
            rows.sort(key=lambda row: row.p50_ms)
            return Benchmark(
                created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                machine=describe_machine(
                    [each.candidate.runtime for each in timed], before, block_medians(yardstick)
                ),
                timed=describe_frames(opened, source, frames),
                rows=tuple(rows),
                best=rows[0].name,
                metric=opened.manifest.evaluated.metric if opened.manifest.evaluated else "agreement",
                energy=meter.what if meter else no_meter,
                left_out=tuple(left_out),
                interrupted=interrupted,
            )

        try:
            warm_up(contenders, frames, seconds, on_work)
            take_turns(contenders, frames, seconds * len(contenders), yardstick, on_work)
            if meter is not None:
                _measure_energy(contenders, frames, meter, on_work)
            models.close()  # so that a fresh process has the memory for itself
            for number, each in enumerate(contenders):
                on_work("first results", number, len(contenders))
                first_results[id(each)] = _first_result(opened, each, frames[0])
        except KeyboardInterrupt:
            if not yardstick:
                raise
            raise Interrupted(found(interrupted=True)) from None
        return found()


def warm_up(
    contenders: Sequence[Contender],
    frames: Frames,
    seconds: float,
    on_work: OnWork = silent_work,
    clock: Clock = time.perf_counter_ns,
) -> None:
    """Let each run until the median of its latest calls is that of the calls before them.

    Args:
        contenders: What to run.
        frames: Seen one after the other.
        seconds: For each at most so long.
        on_work: Told what goes on.
        clock: Gives ns.
    """
    window = max(WARM_WINDOW, len(frames))
    for number, each in enumerate(contenders):
        on_work(f"warming up {each.candidate}", number, len(contenders))
        begin = clock()
        while not each.settled and clock() - begin < seconds * 1e9:
            start = clock()
            each.predictor(frames[len(each.warm_ms) % len(frames)])
            each.warm_ms.append((clock() - start) / 1e6)
            each.settled = _is_stable(each.warm_ms, window)


def take_turns(
    contenders: Sequence[Contender],
    frames: Frames,
    seconds: float,
    yardstick: list[float],
    on_work: OnWork = silent_work,
    clock: Clock = time.perf_counter_ns,
) -> None:
    """Time all of them in rounds, on the same frame in a round; each round begins with the next.

    Args:
        contenders: Filled with a latency for each round.
        frames: Seen one after the other.
        seconds: All together, longer where that is less than 20 rounds.
        yardstick: Filled with ms of a fixed computation, one for each round.
        on_work: Told what goes on.
        clock: Gives ns.
    """
    fixed = np.random.default_rng(0).integers(0, YARDSTICK, YARDSTICK, np.int32)
    begin, rounds, elapsed = clock(), 0, 0.0
    while rounds < ROUNDS_MAX and (
        elapsed < seconds or (rounds < ROUNDS_MIN and elapsed < PATIENCE * seconds)
    ):
        on_work("measuring", min(round(elapsed), round(seconds)), round(seconds))
        first = rounds % len(contenders)
        frame = frames[rounds % len(frames)]
        for each in (*contenders[first:], *contenders[:first]):
            start = clock()
            result = each.predictor(frame)
            each.latencies_ms.append((clock() - start) / 1e6)
            for stage, values in each.stages_ms.items():
                values.append(result.timing_ms[stage])
        start = clock()
        np.sort(fixed)
        yardstick.append((clock() - start) / 1e6)
        rounds += 1
        elapsed = (clock() - begin) / 1e9


def _is_stable(latencies_ms: Sequence[float], window: int) -> bool:
    if len(latencies_ms) < 2 * window:
        return False
    now = statistics.median(latencies_ms[-window:])
    then = statistics.median(latencies_ms[-2 * window : -window])
    return abs(now - then) <= WARM_CHANGE * then


def _measure_energy(
    contenders: Sequence[Contender], frames: Frames, meter: EnergyMeter, on_work: OnWork
) -> None:
    """Run each by itself: meters are too slow for single calls."""
    for number, each in enumerate(contenders):
        on_work("energy", number, len(contenders))
        calls, begin = 0, time.monotonic()
        meter.start()
        while time.monotonic() - begin < ENERGY_SECONDS:
            each.predictor(frames[calls % len(frames)])
            calls += 1
        total = meter.stop()
        each.energy_mj = None if total is None else round(total / calls, 3)


def _first_result(
    bundle: Bundle, each: Contender, frame: npt.NDArray[np.uint8]
) -> tuple[dict[str, float | None], str]:
    """The figures, and the reason where there are none."""
    candidate = each.candidate
    try:
        return measure_first_result(
            bundle, candidate.entry.id, candidate.runtime.name, each.options, frame
        ), ""
    except EdgeCnnError as error:
        return {}, first_line(error)


def _row(
    bundle: Bundle,
    each: Contender,
    best: Contender,
    read_ms: float | None,
    first_result: dict[str, float | None],
    first_result_reason: str,
) -> Row:
    entry = each.candidate.entry
    dense = each.predictor.is_dense
    form = entry.dense if dense and entry.dense is not None else entry
    in_rounds = [own / other for own, other in zip(each.latencies_ms, best.latencies_ms)]
    ratio = ratio_interval(block_medians(in_rounds), [1.0])
    return Row(
        id=entry.id,
        runtime=each.candidate.runtime.name,
        precision=entry.precision,
        compute=each.candidate.compute,
        dense=dense,
        threads=each.options.thread_count,
        n=len(each.latencies_ms),
        **percentiles(each.latencies_ms),  # type: ignore[arg-type]
        ratio=round(statistics.median(in_rounds), 4),
        ratio_low=round(ratio.low, 4),
        ratio_high=round(ratio.high, 4),
        blocks_ms=block_medians(each.latencies_ms),
        histogram=histogram(each.latencies_ms),
        warm_calls=len(each.warm_ms),
        settled=each.settled,
        first_result_reason=first_result_reason,
        **first_result,  # type: ignore[arg-type]
        energy_mj=each.energy_mj,
        size_bytes=sum(bundle.file(path).bytes for path in (form.path, form.weights) if path),
        metric=_metric(bundle, each),
        stages_ms=Stages(
            read=read_ms,
            **{stage: round(statistics.median(values), 3) for stage, values in each.stages_ms.items()},
        ),
    )


def _metric(bundle: Bundle, each: Contender) -> float | None:
    """What the bundle says of the accuracy on this engine, else on the one that it was measured on."""
    candidate = each.candidate
    rows = [
        row
        for row in bundle.manifest.fidelity
        if (row.id, row.compute) == (candidate.entry.id, candidate.compute)
    ]
    rows.sort(key=lambda row: row.runtime != candidate.runtime.name)
    if not rows:
        return None
    return rows[0].metric if bundle.manifest.evaluated else rows[0].agreement
