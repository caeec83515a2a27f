"""The child that parses mutants: one line for each that it is through with; what it does not survive has none."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from edgecnn.errors import EdgeCnnError
from tests.fuzz.mutation import mutant
from tests.fuzz.targets import TARGETS

# thousands of small files: in memory where there is a place for that
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main(name: str, seed: int, start: int, stop: int) -> None:
    """Print ``number outcome seconds peak_mb`` for each mutant; the outcome is ``ok`` or the error's class."""
    warnings.simplefilter("ignore")
    target, answers = TARGETS[name], os.fdopen(os.dup(1), "w", buffering=1)
    seeds = target.seeds
    # what decoders and engines print belongs to nobody
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    for number in range(start, stop):
        data = mutant(seeds, target.changes, name, seed, number)
        with tempfile.TemporaryDirectory(prefix="edgecnn-fuzz-", dir=MEMORY) as folder:
            answers.write(f"{number} begins 0 0\n")
            begun = time.perf_counter()
            try:
                target.parse(data, Path(folder))
                outcome = "ok"
            except EdgeCnnError as error:
                outcome = type(error).__name__ if "\n" not in str(error) else "foreign:message-of-two-lines"
            except Exception as error:
                outcome = f"foreign:{type(error).__name__}"
            seconds = time.perf_counter() - begun
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
        answers.write(f"{number} {outcome} {seconds:.6f} {peak_mb}\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
