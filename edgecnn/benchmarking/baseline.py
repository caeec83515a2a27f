"""Has a bundle become slower than it was? Compared with an older benchmark of the same machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecnn.benchmarking.figures import Interval, ratio_interval
from edgecnn.benchmarking.results import Benchmark, Machine, Timed
from edgecnn.errors import InputError, first_line

__all__ = ["OTHERS_MOST", "RowVerdict", "Verdict", "check_comparable", "compare_with", "read_benchmark"]

# two runs of the same program on the same machine differ by so much: memory is laid out otherwise each time
MARGIN = 0.05
# of the processors' time: engines that share a processor wait at every layer, so that no figure is their own
OTHERS_MOST = 0.1


@dataclass(frozen=True)
class RowVerdict:
    """How one row did against the same row of the baseline.

    Attributes:
        name: The row.
        ratio: Median latency now over that of then, with its interval of 95 %.
        verdict: ``slower`` or ``faster`` where the whole interval is more than 5 % from 1, also when the
            change of the machine itself is taken out; else ``same``.
    """

    name: str
    ratio: Interval
    verdict: Literal["slower", "faster", "same"]


@dataclass(frozen=True)
class Verdict:
    """How a benchmark did against its baseline.

    Attributes:
        created: When the baseline was measured.
        machine: Time of the fixed computation now over that of then: above 1 the machine itself is slower.
        rows: Those that both have.
    """

    created: str
    machine: Interval
    rows: tuple[RowVerdict, ...]

    @property
    def slower(self) -> tuple[RowVerdict, ...]:
        """The rows that are."""
        return tuple(row for row in self.rows if row.verdict == "slower")

    def to_json(self) -> dict[str, Any]:
        """Plain values by the names above."""
        return asdict(self)


def read_benchmark(path: str | os.PathLike[str]) -> Benchmark:
    """Read what ``edgecnn bench --json`` wrote.

    Raises:
        InputError: It cannot be read or is none.
    """
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=Benchmark)
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(
            f"{os.fspath(path)}: not what edgecnn bench --json writes ({first_line(error)})"
        ) from error
    if not found.machine.yardstick_ms or not all(row.blocks_ms for row in found.rows):
        raise InputError(f"{os.fspath(path)}: holds no measurements")
    return found


def compare_with(now: Benchmark, then: Benchmark) -> Verdict:
    """Compare each row with the same row of an older benchmark.

    Raises:
        InputError: They are of other machines, frames or threads, have no row in common, or one of them was
            disturbed by other programs.
    """
    check_comparable(now.machine, now.timed, {row.name: row.threads for row in now.rows}, then)
    drift = ratio_interval(now.machine.yardstick_ms, then.machine.yardstick_ms)
    old = {row.name: row for row in then.rows}
    rows = []
    for row in now.rows:
        if row.name in old:
            ratio = ratio_interval(row.blocks_ms, old[row.name].blocks_ms)
            rows.append(RowVerdict(row.name, ratio, _judged(ratio, drift.value)))
    return Verdict(then.created, drift, tuple(rows))


def check_comparable(machine: Machine, timed: Timed, threads: Mapping[str, int], then: Benchmark) -> None:
    """See that an older benchmark is of the same thing.

    Args:
        machine: Where it is measured now.
        timed: What is timed now.
        threads: Names of the rows, each with its threads.
        then: The older one.

    Raises:
        InputError: Says what differs.
    """
    for part in ("cpu", "cores", "gpu", "governor", "power_mode"):
        _same(f"the machine's {part}", getattr(machine, part), getattr(then.machine, part))
    for part in ("task", "source", "sizes_wh"):
        _same(f"what was timed, {part},", getattr(timed, part), getattr(then.timed, part))
    for when, each in (("this run", machine), ("the baseline", then.machine)):
        if each.others_share is not None and each.others_share > OTHERS_MOST:
            raise InputError(
                f"the baseline cannot be compared: other programs took {each.others_share:.0%} of the "
                f"processors during {when}; measure it again when they are done"
            )
    common = [row for row in then.rows if row.name in threads]
    if not common:
        raise InputError(f"the baseline has none of {', '.join(threads)}")
    for row in common:
        _same(f"threads of {row.name}", threads[row.name], row.threads)


def _same(what: str, now: object, then: object) -> None:
    if now != then:
        raise InputError(
            f"the baseline cannot be compared: {what} was {then}, now {now}; measure it again here"
        )


def _judged(ratio: Interval, drift: float) -> Literal["slower", "faster", "same"]:
    """Both as measured and with the drift of the machine taken out, so that neither alone decides."""
    if min(ratio.low, ratio.low / drift) > 1 + MARGIN:
        return "slower"
    if max(ratio.high, ratio.high / drift) < 1 / (1 + MARGIN):
        return "faster"
    return "same"
