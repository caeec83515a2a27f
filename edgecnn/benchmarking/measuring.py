"""``benchmark()``: all that runs a bundle here, timed in turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import numpy.typing as npt

from edgecnn.benchmarking.baseline import check_comparable
from edgecnn.benchmarking.contenders import Clock, Contender, find_candidates, open_contenders
from edgecnn.benchmarking.results import Benchmark, Mode
from edgecnn.benchmarking.summary import Rounds, describe, draw, summarize
from edgecnn.bundle import Bundle
from edgecnn.devices.energy import EnergyMeter, find_meter
from edgecnn.devices.state import Others, machine_state
from edgecnn.errors import EdgeCnnError, InputError, first_line
from edgecnn.first_result import FirstResult, measure_first_result
from edgecnn.loading import open_bundle
from edgecnn.progress import OnWork, silent_work

__all__ = ["Interrupted", "benchmark", "take_turns", "warm_up"]

Frames = Sequence[npt.NDArray[np.uint8]]

WARM_WINDOW = 5
WARM_CHANGE = 0.03
WARM_SECONDS_MAX = 10.0
# rounds that percentiles need, and after how many times the seconds that were asked for they are given up
ROUNDS_MIN = 20
PATIENCE = 3
ROUNDS_MAX = 5000
ENERGY_SECONDS = 2.0
YARDSTICK = 1 << 15
MODES: dict[str, tuple[Mode, ...]] = {
    "latency": ("latency",),
    "throughput": ("throughput",),
    "both": ("latency", "throughput"),
}


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
    mode: str = "latency",
    seconds: float = 5.0,
    baseline: Benchmark | None = None,
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
        mode: ``latency`` of one frame after the other, ``throughput`` with as many under way as the engine
            runs side by side, or ``both``, a row for each.
        seconds: Measure each of them for so long.
        baseline: Refuse to measure what could not be compared with this.
        on_work: Told what goes on.

    Raises:
        BundleError: The bundle is missing, altered or unsafe, or a runtime takes nothing of it.
        InputError: An argument cannot be used, a frame is too small, or the baseline is of something else.
        MediaError: The source holds no frame.
        Unavailable: No runtime on this machine can run it.
        Interrupted: Ctrl-C; it has what was measured until then.
    """
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, not {seconds!r}")
    if mode not in MODES:
        raise InputError(f"mode is {', '.join(MODES)}, not {mode!r}")
    opened = open_bundle(bundle)
    candidates = find_candidates(opened, runtime, precision)
    drawn = draw(source, opened.manifest.spec)
    frames = drawn.frames
    before, rounds = machine_state(), Rounds()
    meter, no_meter = find_meter()
    with ExitStack() as models:
        contenders, left_out = open_contenders(
            opened, candidates, frames[0], threads, MODES[mode], models, on_work
        )
        if baseline is not None:
            machine, timed = describe(opened, contenders, drawn, before, rounds)
            check_comparable(machine, timed, {each.name: each.threads for each in contenders}, baseline)
        summary = partial(
            summarize,
            opened,
            contenders,
            rounds,
            drawn,
            before=before,
            energy=meter.what if meter else no_meter,
            left_out=left_out,
        )
        try:
            warm_up(contenders, frames, min(seconds, WARM_SECONDS_MAX), on_work)
            take_turns(contenders, frames, seconds * len(contenders), rounds, on_work)
            if meter is not None:
                _measure_energy(contenders, frames, meter, on_work)
            models.close()  # so that a fresh process has the memory for itself
            _measure_first_results(opened, contenders, frames[0], on_work)
        except KeyboardInterrupt:
            if not rounds.yardstick_ms:
                raise
            raise Interrupted(summary(interrupted=True)) from None
    return summary()


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
            each.warm_ms.append(each.turn(frames[len(each.warm_ms) % len(frames)], clock).frame_ms)
            each.settled = _is_stable(each.warm_ms, window)


def take_turns(
    contenders: Sequence[Contender],
    frames: Frames,
    seconds: float,
    rounds: Rounds,
    on_work: OnWork = silent_work,
    clock: Clock = time.perf_counter_ns,
) -> None:
    """Time all of them in rounds, on the same frame in a round; each round begins with the next.

    Args:
        contenders: Filled with what each round took.
        frames: Seen one after the other.
        seconds: All together, longer where that is less than 20 rounds.
        rounds: Filled with what else was seen of the machine.
        on_work: Told what goes on.
        clock: Gives ns.
    """
    fixed = np.random.default_rng(0).integers(0, YARDSTICK, YARDSTICK, np.int32)
    others = Others()
    begin, done, elapsed = clock(), 0, 0.0
    try:
        while done < ROUNDS_MAX and (
            elapsed < seconds or (done < ROUNDS_MIN and elapsed < PATIENCE * seconds)
        ):
            on_work("measuring", min(round(elapsed), round(seconds)), round(seconds))
            first = done % len(contenders)
            frame = frames[done % len(frames)]
            for each in (*contenders[first:], *contenders[:first]):
                each.count(each.turn(frame, clock))
            start = clock()
            np.sort(fixed)
            rounds.yardstick_ms.append((clock() - start) / 1e6)
            done += 1
            elapsed = (clock() - begin) / 1e9
    finally:
        rounds.others_share = others.share()


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
        turns, seen, begin, total = 0, 0, time.monotonic(), None
        meter.start()
        try:
            while not seen or time.monotonic() - begin < ENERGY_SECONDS:
                seen += len(each.turn(frames[turns % len(frames)]).calls)
                turns += 1
        finally:
            total = meter.stop()
        each.energy_mj = None if total is None else round(total / seen, 3)


def _measure_first_results(
    bundle: Bundle, contenders: Sequence[Contender], frame: npt.NDArray[np.uint8], on_work: OnWork
) -> None:
    for number, each in enumerate(contenders):
        on_work("first results", number, len(contenders))
        entry, kind = each.candidate.entry, each.candidate.runtime
        try:
            each.first_result = measure_first_result(bundle, entry.id, kind.name, each.options, frame)
        except EdgeCnnError as error:
            each.first_result = FirstResult(reason=first_line(error))
