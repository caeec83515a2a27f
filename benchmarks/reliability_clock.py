"""Part of reliability.py: a run whose clock is set forward and back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from reliability_servers import ServerProcess
from tables import table

from edgecnn.vision.video import VideoReader
from tests.stream.clock import LIBRARIES, Clock
from tests.stream.receivers import until

HOUR_S, DAY_S = 3600, 86_400
# how far it is from the machine's, one after the other
OFFSETS_S = (HOUR_S, 0, DAY_S, 0, -HOUR_S, 0, -DAY_S, 0)
INTERRUPTED = 130
PHASE_S, WAIT_S = 3.0, 4.0
# frames before and after a change
NEAR = 10


def lines(path: Path) -> list[dict[str, Any]]:
    """What is in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def run(folder: Path) -> list[int]:
    """Lines that there were at each change."""
    clock, out, changes = Clock(folder / "clock"), folder / "o.jsonl", []
    command = [sys.executable, "-m", "edgecnn", "run", "face", "--runtime", "ort", "--json", str(out)]
    command += ["--save", str(folder / "v.mkv"), "--segment", "2", "--source"]
    with (
        closing(ServerProcess("MjpegServer")) as server,
        subprocess.Popen(
            [*command, server.url], env=clock.environment, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        until(lambda: lines(out) or process.poll() is not None)
        for offset_s in OFFSETS_S:
            time.sleep(PHASE_S)
            changes.append(len(lines(out)))
            print(f"reliability: clock, {offset_s / HOUR_S:+g} h", file=sys.stderr)
            clock.jump(offset_s)
        time.sleep(PHASE_S)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    if process.returncode != INTERRUPTED:
        raise RuntimeError(f"the program ended with {process.returncode}: {said}")
    return changes


def measured() -> tuple[str, list[str]]:
    """One run with all changes."""
    if not LIBRARIES:
        return "## A clock that is set\n\nNot measured here: libfaketime is not installed.", []
    with tempfile.TemporaryDirectory() as made:
        changes = run(Path(made))
        found = lines(Path(made, "o.jsonl"))
        segments = sorted(Path(made).glob("v-*.mkv"))
        played = sum(sum(1 for _ in VideoReader(path)) > 0 for path in segments)
    frames = [line for line in found if "frame" in line]
    times_s = np.array([line["time"] for line in frames])
    waits_s = np.diff(times_s)
    near = [slice(max(at - NEAR, 0), at + NEAR) for at in changes]
    by_h = np.diff([0, *OFFSETS_S]) / HOUR_S
    rows = [[f"set by {h:+g} h", f"{waits_s[at].max() * 1e3:.0f}"] for h, at in zip(by_h, near)]
    elsewhere = np.delete(waits_s, np.r_[tuple(near)])
    rows.append(["elsewhere", f"{elsewhere.max(initial=0.0) * 1e3:.0f}"])
    timings = [ms for line in frames for ms in line["timing_ms"].values()]
    in_order = bool(np.all(np.diff([line["frame"] for line in frames]) > 0) and np.all(np.diff(times_s) >= 0))
    lost = sum("event" in line for line in found)
    misses = [
        miss
        for miss, happened in (
            (f"clock: the camera counted as lost {lost} times", lost > 0),
            ("clock: lines are out of order", not in_order),
            ("clock: durations are negative", min(timings) < 0),
            (f"clock: no frame for {waits_s.max():.1f} s", waits_s.max() > WAIT_S),
            (f"clock: {played} of {len(segments)} segments can be played", played < len(segments)),
        )
        if happened
    ]
    text = [
        "## A clock that is set",
        "",
        f"`edgecnn run` on a network camera, while the system's clock is set {len(OFFSETS_S)} times (through libfaketime): {len(frames)}",
        f"frames, {lost} times lost, lines {'in' if in_order else 'out of'} order, durations from {min(timings):.3g} to {max(timings):.3g} ms, {len(segments)} segments of",
        f"video, {played} of which can be played. Promised: the camera does not count as lost, which it does",
        f"after {WAIT_S:g} s without a frame. The longest wait for a frame among the {2 * NEAR} around each change, and elsewhere:",
        "",
        table(["clock", "longest wait ms"], rows),
    ]
    return "\n".join(text), misses
