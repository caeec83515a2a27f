"""What a fresh process takes to its first result: time and memory."""

from __future__ import annotations

import os
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.bundle import Bundle
from edgecnn.devices.system import read_text
from edgecnn.isolation import Limits, run_isolated
from edgecnn.loading import open_artifact, open_bundle
from edgecnn.predictor import Predictor
from edgecnn.runtimes import RuntimeOptions, backend

__all__ = ["FirstResult", "first_result", "measure_first_result"]

RUNS = 3
LIMITS = Limits(seconds=120.0)


@dataclass(frozen=True)
class FirstResult:
    """What a fresh process took; else the reason why that is not known.

    Attributes:
        ms: From just before it is started to its first result.
        rss_mb: Most memory that it held, in units of 10⁶ bytes.
    """

    ms: float | None = None
    rss_mb: float | None = None
    reason: str = ""


def measure_first_result(
    bundle: Bundle, artifact: str, runtime: str, options: RuntimeOptions, frame: npt.NDArray[np.uint8]
) -> FirstResult:
    """Start fresh processes and take the medians of them.

    Raises:
        EdgeCnnError: The process failed.
    """
    payload = {
        "bundle": os.fspath(bundle.path.absolute()),
        "artifact": artifact,
        "runtime": runtime,
        "threads": options.threads,
        "device": options.device,
        "mode": options.mode,
        "compute": options.compute,
        "frame": frame.tobytes(),
        "size_hw": list(frame.shape[:2]),
    }
    runs = [
        run_isolated(
            "edgecnn.first_result:first_result",
            {**payload, "started_s": time.monotonic()},
            what=f"the first result of {artifact} on {runtime}",
            limits=LIMITS,
        )
        for _ in range(RUNS)
    ]
    peaks = [run["rss_mb"] for run in runs if run["rss_mb"] is not None]
    return FirstResult(
        ms=round(statistics.median(run["ms"] for run in runs), 1),
        rss_mb=round(statistics.median(peaks), 1) if peaks else None,
    )


def first_result(
    bundle: str,
    artifact: str,
    runtime: str,
    threads: int | None,
    device: str,
    mode: Any,
    compute: Any,
    frame: bytes,
    size_hw: list[int],
    started_s: float,
) -> dict[str, Any]:
    """Open an artifact and look at one frame; runs in the child.

    The artifact is named by its id, the options are those of `RuntimeOptions`, the frame is the pixels of a
    BGR image and its size, and ``started_s`` the moment at which the parent began to start this process.
    """
    opened = open_bundle(bundle)
    entry = next(entry for entry in opened.manifest.artifacts if entry.id == artifact)
    options = RuntimeOptions(threads=threads, device=device, mode=mode, compute=compute)
    model = open_artifact(opened, entry, backend(runtime), options, on_stale="wait", dense=True)
    Predictor(opened, model, opened.manifest.spec)(np.frombuffer(frame, np.uint8).reshape(*size_hw, 3))
    took_ms = (time.monotonic() - started_s) * 1e3
    # not of getrusage: there it is at least what the parent held when it started the child
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", read_text(Path("/proc/self/status")) or "", re.MULTILINE)
    return {"ms": took_ms, "rss_mb": int(peak[1]) * 1024 / 1e6 if peak else None}
