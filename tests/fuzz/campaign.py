"""Mutants by the thousand, parsed in a child process that is watched, counted and replaced when it dies."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.paths import ROOT

__all__ = ["LIMIT_S", "Tally", "run"]

LIMIT_S = 5.0
START_S = 120.0  # to import everything, on a machine that is busy
WORKER: tuple[str, ...] = ("-m", "tests.fuzz.worker")


@dataclass
class Tally:
    """What became of the mutants of one parser.

    Attributes:
        done: How many were parsed, from number 0 on.
        outcomes: How many ended how: ``ok``, or a class of errors of edgecnn.
        bad: Numbers of the mutants that broke a promise, and how: ``died``, ``hung``, ``foreign:CLASS``.
        slowest, slowest_s: The mutant that took longest, and how long.
        peak_mb: Most memory that a child held, the library it tests included.
    """

    done: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    bad: dict[int, str] = field(default_factory=dict)
    slowest: int = 0
    slowest_s: float = 0.0
    peak_mb: int = 0

    def save(self, path: Path) -> None:
        """Keep it, so that a run can go on from here."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(vars(self)))
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Tally:
        """What was kept; an empty one where nothing was."""
        if not path.exists():
            return cls()
        kept = json.loads(path.read_text())
        bad = {int(number): how for number, how in kept.pop("bad").items()}
        return cls(outcomes=Counter(kept.pop("outcomes")), bad=bad, **kept)


def run(
    name: str,
    count: int,
    seed: int = 0,
    tally: Tally | None = None,
    on_progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Parse mutants until so many are done; a tally of before is gone on with."""
    tally = tally or Tally()
    again = False
    while tally.done < count:
        end = ""
        with _child(name, seed, tally.done, count) as lines:
            limit_s = START_S
            while tally.done < count:
                line = lines(limit_s)
                if not line:
                    end = "hung" if line is None else "died"
                    break
                _, outcome, seconds, peak_mb = line.split()
                limit_s = LIMIT_S
                if outcome == "begins":
                    continue
                again = False
                if outcome.startswith("foreign:"):
                    tally.bad[tally.done] = outcome
                else:
                    tally.outcomes[outcome] += 1
                if float(seconds) > tally.slowest_s:
                    tally.slowest, tally.slowest_s = tally.done, float(seconds)
                tally.peak_mb = max(tally.peak_mb, int(peak_mb))
                tally.done += 1
                on_progress(tally)
        if end == "hung" and not again:  # a busy machine looks like that too: once more, by itself
            again = True
        elif end:
            again = False
            tally.bad[tally.done] = end
            tally.done += 1
            on_progress(tally)
    return tally


@contextmanager
def _child(name: str, seed: int, start: int, stop: int) -> Iterator[Callable[[float], str | None]]:
    """A worker; gives its next line, "" when it has ended, None when none comes in that time."""
    command = [sys.executable, *WORKER, name, str(seed), str(start), str(stop)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    handle, selector = process.stdout.fileno(), selectors.DefaultSelector()
    selector.register(handle, selectors.EVENT_READ)
    waiting: list[str] = []
    begun = b""

    def line(limit_s: float) -> str | None:
        nonlocal begun
        while not waiting:
            if not selector.select(limit_s):
                return None
            part = os.read(handle, 1 << 16)
            if not part:
                return ""
            *whole, begun = (begun + part).split(b"\n")
            waiting.extend(each.decode() for each in whole)
        return waiting.pop(0)

    try:
        yield line
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        selector.close()
