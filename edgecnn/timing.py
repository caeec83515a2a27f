"""Which of several calls is faster on this machine, measured side by side."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from edgecnn.progress import OnWork, silent_work

__all__ = [
    "Race",
    "SpeedComparison",
    "Turn",
    "compare_speed",
    "interleaved_ms",
    "race",
    "seconds_each",
]

Call = Callable[[], object]
Clock = Callable[[], float]
Turn = Callable[[], float]


@dataclass(frozen=True)
class SpeedComparison:
    """Latencies of two calls that took turns.

    Attributes:
        candidate_ms, reference_ms: Median of each.
        ratio: Median over the rounds of candidate / reference. What slows a machine down for a while
            slows both calls of a round, so this is steadier than the ratio of the medians.
        rounds: Number of rounds.
    """

    candidate_ms: float
    reference_ms: float
    ratio: float
    rounds: int

    @property
    def faster(self) -> bool:
        """Whether the candidate takes less time than the reference."""
        return self.ratio < 1.0


def compare_speed(
    candidate: Call,
    reference: Call,
    *,
    seconds: float = 2.0,
    min_rounds: int = 10,
    warmup: int = 3,
    clock: Clock = time.perf_counter,
) -> SpeedComparison:
    """Time two calls against each other; the arguments are those of `interleaved_ms`."""
    calls = {"candidate": candidate, "reference": reference}
    times = _rounds_ms(calls, seconds, min_rounds, warmup, clock)
    pairs = list(zip(times["candidate"], times["reference"]))
    return SpeedComparison(
        candidate_ms=statistics.median(times["candidate"]),
        reference_ms=statistics.median(times["reference"]),
        ratio=statistics.median(a / b for a, b in pairs),
        rounds=len(pairs),
    )


def interleaved_ms(
    calls: Mapping[str, Call],
    *,
    seconds: float = 2.0,
    min_rounds: int = 10,
    warmup: int = 3,
    clock: Clock = time.perf_counter,
) -> dict[str, float]:
    """Median latency of each call in ms, measured in turns so that noise hits all alike.

    A round makes every call once; each round begins with the next call, so none is always the one that
    finds the caches and the clock frequency as another left them.

    Args:
        calls: By name; each runs one inference of a loaded model.
        seconds: Measure for at least this long, all calls together.
        min_rounds: And for at least this many rounds.
        warmup: Rounds before that which do not count.
        clock: Gives seconds.
    """
    times = _rounds_ms(calls, seconds, min_rounds, warmup, clock)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass(frozen=True)
class Race:
    """What came of a `race`.

    Attributes:
        leader: The fastest.
        leader_ms: Its median.
        ratios: Of each, the median over its rounds of its time over that of the leader.
        left: Those that were not dropped.
    """

    leader: str
    leader_ms: float
    ratios: dict[str, float]
    left: tuple[str, ...]


def race(
    turns: Mapping[str, Turn],
    *,
    drop: float,
    seconds: float = 0.0,
    min_rounds: int = 4,
    on_work: OnWork = silent_work,
    clock: Clock = time.perf_counter,
) -> Race:
    """Find the fastest of several: measured in turns, those that are clearly slower only at first.

    Args:
        turns: By name; each does its work and tells the time that it took, in ms.
        drop: How many times the leader's time, in three of four rounds, is clearly slower.
        seconds: Go on for at least this long while there is more than one.
        min_rounds: And for at least this many rounds, in which nothing is dropped.
        on_work: Told the seconds that went by.
        clock: Gives seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    left, begin, rounds = list(turns), clock(), 0
    while rounds < min_rounds or (len(left) > 1 and clock() - begin < seconds):
        spent, whole = round(clock() - begin), round(seconds)
        on_work(f"timing {len(left)} in turns", min(spent, whole), whole)
        first = rounds % len(left)
        for name in left[first:] + left[:first]:
            times[name].append(turns[name]())
        rounds += 1
        if rounds >= min_rounds:
            leader = min(left, key=lambda name: statistics.median(times[name]))
            left = [name for name in left if _lower_quartile(times[name], times[leader]) <= drop]
    return Race(
        leader=leader,
        leader_ms=statistics.median(times[leader]),
        ratios={name: _ratio(values, times[leader]) for name, values in times.items()},
        left=tuple(left),
    )


def seconds_each(
    submit: Callable[[], Future[Any]],
    depth: int,
    *,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> float:
    """Seconds for each of many pieces of work of which some are under way at all times.

    Args:
        submit: Starts one.
        depth: How many are under way.
        seconds: Measure for at least this long, and for at least twice as many as are under way.
        clock: Gives seconds.
    """
    free = threading.Semaphore(depth)
    futures = []

    def start_next() -> None:
        free.acquire()
        futures.append(submit())
        futures[-1].add_done_callback(lambda future: free.release())

    for _ in range(depth):
        start_next()
    begin, done = clock(), 0
    # those that began together end together: whole rounds of them
    while done < 2 * depth or done % depth or clock() - begin < seconds:
        start_next()
        done += 1
    took = clock() - begin
    for future in futures:
        future.result()
    return took / done


def _ratio(values: list[float], reference: list[float]) -> float:
    return statistics.median(own / other for own, other in zip(values, reference))


def _lower_quartile(values: list[float], reference: list[float]) -> float:
    ratios = sorted(own / other for own, other in zip(values, reference))
    return ratios[len(ratios) // 4]


def _rounds_ms(
    calls: Mapping[str, Call], seconds: float, min_rounds: int, warmup: int, clock: Clock
) -> dict[str, list[float]]:
    for _ in range(warmup):
        for call in calls.values():
            call()
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    begin, rounds = clock(), 0
    while rounds < min_rounds or clock() - begin < seconds:
        first = rounds % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            calls[name]()
            times[name].append((clock() - start) * 1e3)
        rounds += 1
    return times
