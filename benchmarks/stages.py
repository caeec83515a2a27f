"""Time per stage of the predictor: classification of whole frames and window detection.

usage: python benchmarks/stages.py [--frames 30]

Prints one JSON object a line. The frames are those of the demo clip.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import edgecnn
from edgecnn.vision import pyramid

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from clip import frames as clip_frames  # noqa: E402 (an example, found through the line above)

STAGES = ("geometry", "infer", "decode", "nms")

START = """
import time; start = time.perf_counter()
import edgecnn; imported = time.perf_counter()
import numpy as np
detector = edgecnn.load("face", min_size=120); loaded = time.perf_counter()
detector(np.zeros((480, 640, 3), np.uint8)); print(imported - start, loaded - imported, time.perf_counter() - loaded)
"""


def medians(predictor: edgecnn.Predictor, frames: list[npt.NDArray[np.uint8]]) -> dict[str, float]:
    """Median milliseconds of each stage, after one call that is not counted."""
    predictor(frames[0])
    timings = [predictor(frame).timing_ms for frame in frames]
    row = {stage: float(np.median([timing.get(stage, 0.0) for timing in timings])) for stage in STAGES}
    return row | {"total": float(np.median([sum(timing.values()) for timing in timings]))}


def measure(count: int = 30) -> list[dict[str, Any]]:
    """Rows for the face detector at three smallest sizes and for MobileNetV2 at 1080p and 480p."""
    vga = clip_frames(4.0)[:: max(100 // count, 1)]
    full = [cv2.resize(frame, (1920, 1080)) for frame in vga]
    rows = []
    for min_size in (36, 64, 120):
        with edgecnn.load("face", min_size=min_size) as detector:
            windows = sum(level.count for level in pyramid((480, 640), detector.spec))
            what = {"what": f"face, from {min_size} px", "frame": "640×480", "windows": windows}
            rows.append(what | medians(detector, vga))
    with tempfile.TemporaryDirectory() as folder:
        bundle = edgecnn.convert(
            "torchvision:mobilenet_v2", out=Path(folder) / "net.edge", calibration=vga, samples=8
        )
        with edgecnn.load(bundle) as classifier:
            for name, frames in (("640×480", vga), ("1920×1080", full)):
                what = {"what": "MobileNetV2 classification", "frame": name, "windows": 1}
                rows.append(what | medians(classifier, frames))
    return rows


def measure_start(runs: int = 7) -> dict[str, float]:
    """Median seconds of a fresh process: importing edgecnn, loading the face bundle, its first result."""
    outputs = [
        subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout
        for _ in range(runs)
    ]
    imported, loaded, first = np.median([[float(v) for v in text.split()] for text in outputs], axis=0)
    return {"import_s": float(imported), "load_s": float(loaded), "first_result_s": float(first)}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=30)
    for row in measure(parser.parse_args(arguments).frames):
        print(json.dumps(row))
    print(json.dumps(measure_start()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
