"""Two tools in processes of their own that take turns, and how far their answers are apart (see peers.py)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.vision import iou_matrix, size_mask

WORKER = Path(__file__).with_name("peer_worker.py")
SAME_BOX = 0.5

Answers = list[npt.NDArray[np.float64]]


class Worker:
    """A tool with its model loaded; it has done its job once."""

    def __init__(self, python: Path, **config: Any) -> None:
        """Start it.

        Raises:
            SystemExit: It cannot be started; says why.
        """
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [python, WORKER, json.dumps(config, default=str)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def work(self) -> dict[str, float]:
        """Do the job once: frames, seconds, and seconds of the processor."""
        return self._ask("work")

    def answers(self) -> Answers:
        """What it found in each frame when it did the job the last time."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "answers.npz")
            self._ask(f"answers {path}")
            with np.load(path) as found:
                return [found[f"arr_{i}"] for i in range(len(found.files))]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._log.close()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"peers: {self._process.args} ended: {self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Timed:
    """Milliseconds a frame in each round: of the clock, and of the processor with all its cores."""

    clock_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def ms(self) -> float:
        """Median of the clock."""
        return statistics.median(self.clock_ms)

    @property
    def cpu(self) -> float:
        """Median of the processor, in milliseconds."""
        return statistics.median(self.cpu_ms)

    def ratio(self, other: Timed) -> float:
        """How many times as long as the other it takes, median of the rounds."""
        return statistics.median(a / b for a, b in zip(self.clock_ms, other.clock_ms))


def take_turns(workers: Sequence[Worker], rounds: int) -> list[Timed]:
    """Let all do their job so many times; each round the next one begins."""
    timed = [Timed() for _ in workers]
    for i in range(rounds):
        for number in range(i, i + len(workers)):
            worker, times = (each[number % len(workers)] for each in (workers, timed))
            done = worker.work()
            times.clock_ms.append(done["seconds"] * 1e3 / done["frames"])
            times.cpu_ms.append(done["cpu_s"] * 1e3 / done["frames"])
    return timed


@contextmanager
def busy_core() -> Iterator[None]:
    """Another program that keeps one processor busy."""
    core = max(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield
    finally:
        other.kill()
        other.wait()


@dataclass(frozen=True)
class Agreement:
    """How far the boxes of two tools are apart.

    Attributes:
        boxes: Of the peer, in all frames.
        shared: Share of the boxes of both that have a partner: one class, and an IoU of at least 0.5.
        apart_px: Largest difference of a border between partners.
        score_apart: Largest difference of their scores.
    """

    boxes: int
    shared: float
    apart_px: float
    score_apart: float


def compare_boxes(peer: Answers, ours: Answers) -> Agreement:
    """Compare detections frame by frame; each box has at most one partner, the best score chooses first.

    Boxes of which nothing lies in the frame, such as those on a letterbox's border, do not count.
    """
    peer, ours = ([found[size_mask(found[:, :4])] for found in side] for side in (peer, ours))
    apart, partners = [np.zeros(5)], 0
    for theirs, own in zip(peer, ours, strict=True):
        overlaps = iou_matrix(theirs[:, :4], own[:, :4]) * (theirs[:, None, 5] == own[None, :, 5])
        for row in np.argsort(-theirs[:, 4], kind="stable"):
            column = int(overlaps[row].argmax()) if len(own) else 0
            if len(own) and overlaps[row, column] >= SAME_BOX:
                apart.append(np.abs(theirs[row, :5] - own[column, :5]))
                overlaps[:, column] = 0
                partners += 1
    total = sum(map(len, peer)) + sum(map(len, ours))
    largest = np.max(apart, axis=0)
    return Agreement(
        boxes=sum(map(len, peer)),
        shared=2 * partners / total if total else 1.0,
        apart_px=float(largest[:4].max()),
        score_apart=float(largest[4]),
    )


def same_classes(peer: Sequence[npt.NDArray[Any]], ours: Sequence[npt.NDArray[Any]]) -> float:
    """Share of the frames in which both name the same class first."""
    return float(np.mean([theirs[0, 0] == own[0, 0] for theirs, own in zip(peer, ours, strict=True)]))
