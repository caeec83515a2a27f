"""Which of several calls is faster on this machine, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["SpeedComparison", "compare_speed", "interleaved_ms"]

Call = Callable[[], object]
Clock = Callable[[], float]


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
