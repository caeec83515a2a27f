"""A detector on a camera that does not move, with the scores of what did not change kept.

usage: python benchmarks/still.py [--data DIR]

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. One thread; medians; each frame is scored in both
ways, in turns. The clip is not part of the project: --data, $EDGECNN_DATA or ../shared/data names the folder that holds
``video/vtest.avi``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from faces import data_folder
from tables import table

import edgecnn
from edgecnn.inference import ScoredWindows
from edgecnn.still import StillScene
from edgecnn.vision.decode import reported

FRAMES = 150
THRESHOLDS = (8, 16, 32)
# the detector finds nothing there: the share of windows with the best scores is taken for found
REPORTED = 0.01
# goals
LEAST_STILL, LARGEST_BUSY, LARGEST_FLIPS = 40.0, 1.05, 0.003

Frame = npt.NDArray[np.uint8]
Scorer = Callable[[Frame], ScoredWindows]


def clip(data: Path) -> list[Frame]:
    """The first frames of the street scene."""
    path = data / "video" / "vtest.avi"
    capture, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < FRAMES:
        there, frame = capture.read()
        if not there:
            raise SystemExit(f"still: {path} cannot be read")
        frames.append(np.asarray(frame, np.uint8))
    return frames


def noise(frames: Sequence[Frame]) -> list[Frame]:
    """As many frames in which everything changes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, frame.shape, np.uint8) for frame in frames]


def timed(scorer: Scorer, frame: Frame) -> tuple[float, npt.NDArray[np.float32]]:
    """Milliseconds, and the scores."""
    start = time.perf_counter()
    scores = scorer(frame).scores
    return (time.perf_counter() - start) * 1e3, scores


def compared(
    detector: edgecnn.Predictor, frames: Sequence[Frame], threshold: int, reports: float
) -> tuple[float, float, float]:
    """Median ms of all windows and with scores kept, and the share of windows that are decided otherwise."""
    scene, spec = StillScene(detector, threshold), detector.spec.replace(threshold=reports)
    full_ms, kept_ms, flips, windows = [], [], 0, 0
    for i, frame in enumerate(frames):
        ways: list[Scorer] = [detector.score_windows, scene]
        order = (0, 1) if i % 2 else (1, 0)
        found = {way: timed(ways[way], frame) for way in order}
        if i:  # the first frame is new to both
            full_ms.append(found[0][0])
            kept_ms.append(found[1][0])
        decided = [reported(scores, spec) for _, scores in (found[0], found[1])]
        flips += int((decided[0] != decided[1]).any(axis=1).sum())
        windows += len(decided[0])
    return statistics.median(full_ms), statistics.median(kept_ms), flips / windows


def section(data: Path) -> tuple[str, list[str]]:
    """Its part of the page, and the goals that are missed."""
    cv2.setNumThreads(1)
    frames, rows, misses = clip(data), [], []
    with edgecnn.load("face", runtime="ort", threads=1) as detector:
        scores = np.concatenate([detector.score_windows(frame).scores for frame in frames[::30]])
        reports = float(np.quantile(scores, 1 - REPORTED))
        scenes = [
            ("the same frame again and again", [frames[0]] * FRAMES, 8),
            *((f"street, threshold {level}", frames, level) for level in THRESHOLDS),
            ("noise: everything changes", noise(frames[:50]), 8),
        ]
        for name, scene, threshold in scenes:
            print(f"still: {name}", file=sys.stderr)
            full, kept, flips = compared(detector, scene, threshold, reports)
            rows.append([name, f"{full:.1f}", f"{kept:.1f}", f"{full / kept:.2f}×", f"{flips:.3%}"])
            if scene is not frames and scene[0] is scene[1] and full < LEAST_STILL * kept:
                misses.append(f"{name}: {full / kept:.1f}×, the goal is {LEAST_STILL:g}×")
            if kept > LARGEST_BUSY * full:
                misses.append(f"{name}: {kept / full:.2f} times as long, the most is {LARGEST_BUSY:g}")
            if flips > LARGEST_FLIPS:
                misses.append(
                    f"{name}: {flips:.2%} of the windows are decided otherwise, the most is {LARGEST_FLIPS:.1%}"
                )
    header = ["scene", "all windows ms", "scores kept ms", "ratio", "decided otherwise"]
    listed = "\n".join(f"- Goal missed: {miss}." for miss in misses)
    text = f"""## Scenes that stand still

The face detector as it ships on {FRAMES} frames of 768×576 of a street seen from above (vtest.avi), ONNX Runtime, one thread,
medians; both ways on each frame, in turns. It finds nothing there, so the {REPORTED:.0%} of the windows with the best scores are
taken for found: what is decided otherwise counts windows that cross that line.

{table(header, rows)}

Goals: {LEAST_STILL:g}× where nothing moves; at most {LARGEST_BUSY:g} times as long where everything does; at most {LARGEST_FLIPS:.1%} decided otherwise.
{listed}
"""
    return text, misses


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    text, misses = section(data_folder(parser.parse_args(arguments).data))
    print(text)
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
