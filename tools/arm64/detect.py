"""Finds the faces of one frame with the bundle that ships, at each precision, and writes them as JSON.

usage: python detect.py FRAME.npy OUT.json
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import edgecnn

# faces from 64 px: a quarter of the windows, since an emulated processor is slow
MIN_SIZE = 64


def main(frame_path: str, out: str) -> None:
    """Command line."""
    frame = np.load(frame_path)
    found: dict[str, list[tuple[float, ...]]] = {}
    for precision in ("fp32", "int8"):
        with edgecnn.load("face", runtime="ort", precision=precision, min_size=MIN_SIZE) as detector:
            result: Any = detector(frame)
            engine = f"{detector.runtime.name} {detector.runtime.version()}"
        found[precision] = [*zip(*result.boxes.T.tolist(), result.scores.tolist())]
    heavy = sorted({"torch", "onnx"} & set(sys.modules))
    machine = f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, {engine}"
    Path(out).write_text(json.dumps({"machine": machine, "heavy": heavy, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
