"""`edgecnn.vision.nms` beside others that decide alike: a plain greedy loop in numpy, OpenCV's and torchvision's.

usage: python benchmarks/nms.py

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. Calls are made in turns on one thread; medians.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torchvision
from tables import table

from edgecnn.timing import interleaved_ms
from edgecnn.vision import nms

IOU = 0.5
MOST = 300
# goals
LARGEST_MS = 0.3
LEAST_OVER_GREEDY = 2.0
CV2_BOXES = 1000
# a peer that takes longer has no place in the same run
GREEDY_BOXES, PEER_BOXES = 100_000, 10_000
ROUNDS = 5


@dataclass(frozen=True)
class Case:
    """Random boxes with sides of 8 to 80 px.

    Attributes:
        count: How many.
        spread_px: Their corners are in a square of this side.
        classes: They are of so many classes; 1 is none.
        most: How many are to be kept; None is all that survive.
    """

    count: int
    spread_px: int = 640
    classes: int = 1
    most: int | None = None

    def boxes(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Boxes, scores and classes."""
        rng = np.random.default_rng(0)
        corner = rng.uniform(0, self.spread_px, (self.count, 2))
        boxes = np.hstack([corner, corner + rng.uniform(8, 80, (self.count, 2))])
        return (
            boxes.astype(np.float32),
            rng.uniform(size=self.count).astype(np.float32),
            rng.integers(0, self.classes, self.count),
        )


CASES = (
    *(Case(count) for count in (10, 30, 100, 300, 1000, 10_000)),
    Case(1000, spread_px=100),
    Case(1000, spread_px=5000),
    Case(1000, classes=80),
    *(Case(count, most=MOST) for count in (1000, 10_000, 100_000)),
    Case(10_000, classes=80, most=MOST),
)


def greedy(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], most: int | None) -> list[int]:
    """The loop that is found everywhere: the best one is kept, and those it overlaps go."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    order = scores.argsort(kind="stable")[::-1]
    kept: list[int] = []
    while len(order) and (most is None or len(kept) < most):
        best, order = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order])
        height = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order])
        inter = np.maximum(0, width) * np.maximum(0, height)
        order = order[inter / (areas[best] + areas[order] - inter) <= IOU]
    return kept


def calls(case: Case) -> dict[str, Callable[[], Any]]:
    """What is timed; each takes the form of boxes that is its own."""
    boxes, scores, ids = case.boxes()
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(ids)
    several = case.classes > 1
    # without classes of its own the loop gets them apart, as usual
    apart = boxes + (ids * 10_000)[:, None].astype(np.float32) if several else boxes
    found: dict[str, Callable[[], Any]] = {
        "edgecnn": lambda: nms(boxes, scores, ids if several else None, IOU, case.most)
    }
    if case.count <= GREEDY_BOXES and (case.most is not None or case.count <= PEER_BOXES):
        found["greedy"] = lambda: greedy(apart, scores, case.most)
    if case.count <= PEER_BOXES:
        if several:
            found["cv2"] = lambda: cv2.dnn.NMSBoxesBatched(xywh, scores, ids, 0.0, IOU)
            found["torchvision"] = lambda: torchvision.ops.batched_nms(*tensors, IOU)
        else:
            found["cv2"] = lambda: cv2.dnn.NMSBoxes(xywh, scores, 0.0, IOU)
            found["torchvision"] = lambda: torchvision.ops.nms(*tensors[:2], IOU)
    return found


def row(case: Case, alone: float, ms: dict[str, float]) -> list[str]:
    """A line of the table: our time, and how many times that the others take."""
    ours = ms["edgecnn"]
    boxes, scores, ids = case.boxes()
    kept = len(nms(boxes, scores, ids if case.classes > 1 else None, IOU, case.most))
    ratios = [f"{ms[name] / ours:.2f}×" if name in ms else "–" for name in ("greedy", "cv2", "torchvision")]
    return [
        f"{case.count:,}",
        f"{case.spread_px}",
        f"{case.classes}",
        f"{kept:,}",
        f"{alone:.3f}",
        f"{ours:.3f}",
        *ratios,
    ]


def missed(case: Case, alone: float, ms: dict[str, float]) -> list[str]:
    """The goals that a case does not reach."""
    ours, where = ms["edgecnn"], f"{case.count} boxes in {case.spread_px} px"
    found = []
    if case.count == 100_000:
        for how, taken in (("called again and again", alone), ("in turns with the loop", ours)):
            if taken > LARGEST_MS:
                found.append(f"{where}, {how}: {taken:.3f} ms, the goal is {LARGEST_MS} ms")
    if "greedy" in ms and ms["greedy"] < LEAST_OVER_GREEDY * ours:
        found.append(
            f"{where}: {ms['greedy'] / ours:.2f} times as fast as the loop, the goal is {LEAST_OVER_GREEDY:g}"
        )
    if case.count <= CV2_BOXES and case.most is None and ms["cv2"] < ours:
        found.append(f"{where}: OpenCV takes {ms['cv2'] * 1e3:.0f} µs, this {ours * 1e3:.0f} µs")
    return found


def section() -> tuple[str, list[str]]:
    """Its part of the page, and the goals that are missed."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows, misses = [], []
    for case in CASES:
        print(f"nms: {case}", file=sys.stderr)
        timed = calls(case)
        alone = interleaved_ms({"edgecnn": timed["edgecnn"]}, seconds=0.5)["edgecnn"]
        ms = interleaved_ms(timed, seconds=1.0, min_rounds=ROUNDS, warmup=2)
        rows.append(row(case, alone, ms))
        misses += missed(case, alone, ms)
    header = [
        "boxes",
        "spread px",
        "classes",
        "kept",
        "edgecnn ms",
        "in turns ms",
        "numpy loop",
        "OpenCV",
        "torchvision",
    ]
    listed = "\n".join(f"- Goal missed: {miss}." for miss in misses)
    return (
        f"""## Non-maximum suppression

Random boxes with sides of 8 to 80 px at IoU {IOU:g}, one thread, medians. The first time is that of `edgecnn.vision.nms` called
again and again, the second that in turns with the others, where each finds the caches as the one before left them; the
others are multiples of the second. All keep the same boxes. OpenCV and torchvision cannot stop after {MOST}.

{table(header, rows)}

Goals: {LARGEST_MS} ms for 100,000 boxes of which {MOST} are kept; {LEAST_OVER_GREEDY:g}× the loop; OpenCV up to {CV2_BOXES:,} boxes.
{listed}

A handful of boxes takes what some thirty calls of numpy take, about a microsecond each, however few they are.
""",
        misses,
    )


def main() -> int:
    """Command line."""
    text, misses = section()
    print(text)
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
