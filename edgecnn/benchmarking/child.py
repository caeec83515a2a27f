"""What a fresh process takes to its first result: time and memory."""

from __future__ import annotations

import os
import re
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.bundle import Bundle
from edgecnn.devices.system import read_text
from edgecnn.isolation import Limits, run_isolated
from edgecnn.loading import open_artifact
from edgecnn.predictor import Predictor
from edgecnn.runtimes import RuntimeOptions, backend

__all__ = ["first_result", "measure_first_result"]

RUNS = 3
LIMITS = Limits(seconds=120.0)


def measure_first_result(
    bundle: Bundle, artifact: str, runtime: str, options: RuntimeOptions, frame: npt.NDArray[np.uint8]
) -> dict[str, float | None]:
    """Medians of fresh processes: ``first_result_ms`` and ``rss_mb``, as `Row` has them.

    Raises:
        EdgeCnnError: The process failed.
    """
    payload = {
        "bundle": os.fspath(bundle.path.absolute()),
        "artifact": artifact,
        "runtime": runtime,
        "threads": options.threads,
        "device": options.device,
        "compute": options.compute,
        "frame": frame.tobytes(),
        "size_hw": list(frame.shape[:2]),
    }
    runs = [
        run_isolated(
            "edgecnn.benchmarking.child:first_result",
            {**payload, "started_s": time.monotonic()},
            what=f"the first result of {artifact} on {runtime}",
            limits=LIMITS,
        )
        for _ in range(RUNS)
    ]
    found = {key: [run[key] for run in runs if run[key] is not None] for key in runs[0]}
    return {key: round(statistics.median(values), 1) if values else None for key, values in found.items()}


def first_result(
    bundle: str,
    artifact: str,
    runtime: str,
    threads: int | None,
    device: str,
    compute: Any,
    frame: bytes,
    size_hw: list[int],
    started_s: float,
) -> dict[str, Any]:
    """Open an artifact and look at one frame; runs in the child.

    The artifact is named by its id, the options are those of `RuntimeOptions`, the frame is the pixels of a
    BGR image and its size, and ``started_s`` the moment at which the parent began to start this process.
    """
    opened = Bundle(bundle)
    entry = next(entry for entry in opened.manifest.artifacts if entry.id == artifact)
    options = RuntimeOptions(threads=threads, device=device, compute=compute)
    model = open_artifact(opened, entry, backend(runtime), options, on_stale="wait", dense=True)
    Predictor(opened, model, opened.manifest.spec)(np.frombuffer(frame, np.uint8).reshape(*size_hw, 3))
    took_ms = (time.monotonic() - started_s) * 1e3
    # not of getrusage: there it is at least what the parent held when it started the child
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", read_text(Path("/proc/self/status")) or "", re.MULTILINE)
    return {"first_result_ms": took_ms, "rss_mb": int(peak[1]) * 1024 / 1e6 if peak else None}
