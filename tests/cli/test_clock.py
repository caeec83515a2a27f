"""A wall clock that is set forward and back while a program runs: by hours, and by days."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.vision.video import VideoReader
from tests.paths import leave_out
from tests.stream.clock import LIBRARIES, Clock
from tests.stream.receivers import Hook, hook, until
from tests.stream.servers import MjpegServer, RtspServer, Server

HOUR_S, DAY_S = 3600, 86_400
# each of them from the one before: two hours back, a day and an hour forward, two days back
OFFSETS_S = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    if not LIBRARIES:
        leave_out("clock", "libfaketime is not installed: apt-get install faketime")
    return Clock(tmp_path / "clock")


def lines(folder: Path) -> list[dict[str, Any]]:
    """Of all files, the oldest first."""
    older = sorted(folder.glob("o.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
    paths = [path for path in (*older, folder / "o.jsonl") if path.exists()]
    return [json.loads(line) for path in paths for line in path.read_text().split("\n")[:-1]]


def live_through_changes(clock: Clock, server: Server, receiver: Hook, out: Path) -> None:
    """Set the clock while frames come, and while the camera and the receiver are away."""

    def until_frames(more: int) -> None:
        least = len(lines(out)) + more
        until(lambda: len(lines(out)) >= least)

    until_frames(10)
    for offset_s in OFFSETS_S:
        clock.jump(offset_s)
        until_frames(10)
    receiver.stop()
    server.become("refuse")
    until(lambda: any("event" in line for line in lines(out)))
    clock.jump(DAY_S)
    server.become("serve")
    until_frames(10)
    receiver.start()
    clock.jump(0)
    until_frames(10)
    newest = max(line.get("frame", 0) for line in lines(out))
    until(lambda: newest in receiver.frames)


@pytest.mark.parametrize("kind", [MjpegServer, RtspServer])
def test_a_stream_does_not_notice(
    clock: Clock, color_bundle: Path, tmp_path: Path, kind: type[Server]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "edgecnn", "run", str(color_bundle), "--timeout", "5", "--keep", "1000"]
    command += ["--json", str(out / "o.jsonl"), "--json-max-mb", "0.004"]
    command += ["--save", str(out / "v.mkv"), "--segment", "1", "--spool", str(tmp_path / "spool")]
    with kind() as server, hook() as receiver:
        command += ["--source", server.url, "--webhook", receiver.url]
        with subprocess.Popen(command, env=clock.environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                live_through_changes(clock, server, receiver, out)
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 130, said
    *found, last = lines(out)
    events = [line["event"] for line in found if "event" in line]
    frames = [line for line in found if "frame" in line]
    assert [event["state"] for event in events] == ["lost", "back"]
    assert [round((event["time"] - time.time()) / HOUR_S) for event in events] == [-24, 24]
    assert 0 < float(events[1]["reason"].split()[1]) < HOUR_S
    # time and order are those of the frames, whatever the clock says
    assert np.all(np.diff([line["frame"] for line in frames]) > 0)
    assert np.all(np.diff([line["time"] for line in frames]) >= 0)
    timings = [ms for line in frames for ms in line["timing_ms"].values()]
    assert min(timings) >= 0
    assert max(timings) < HOUR_S * 1e3
    assert last["summary"]["seconds"] < HOUR_S
    assert last["summary"]["reconnects"] == 1
    # nothing is overwritten: neither lines, nor video, nor what waits to be sent
    assert last["summary"]["frames"] == len(frames)
    segments = sorted(out.glob("v-*.mkv"))
    assert [path.stem for path in segments] == [f"v-{i + 1:06d}" for i in range(len(segments))]
    assert len(segments) > 1
    assert all(sum(1 for _ in VideoReader(path)) for path in segments)
    arrived = list(dict.fromkeys(receiver.frames))
    assert arrived == [line["frame"] for line in frames][: len(arrived)]
