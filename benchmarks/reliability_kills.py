"""Part of reliability.py: programs that are killed, and what they had written by then."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from reliability_servers import ServerProcess

LATEST_S = 3.0


def measured(kills: int) -> tuple[str, list[str]]:
    """SIGKILL at random moments: what had been written can be read."""
    torn, lines_read, wrong = 0, 0, []
    with closing(ServerProcess("MjpegServer")) as server, tempfile.TemporaryDirectory() as made:
        for number in range(kills):
            print(f"reliability: kill {number + 1}/{kills}", file=sys.stderr)
            out = Path(made, f"{number}.jsonl")
            command = [sys.executable, "-m", "edgecnn", "run", "face", "--source", server.url, "--quiet"]
            with subprocess.Popen([*command, "--json", str(out), "--runtime", "ort"]) as process:
                while process.poll() is None and not (out.exists() and out.stat().st_size):
                    time.sleep(0.01)
                time.sleep(random.uniform(0, LATEST_S))
                process.kill()
            *whole, last = out.read_bytes().split(b"\n")
            torn += bool(last)
            try:
                lines_read += len([json.loads(line) for line in whole])
            except ValueError:
                wrong.append(f"run {number}: a line that is not the last one is torn")
    text = [
        "## Killed at any moment",
        "",
        f"`edgecnn run … --json FILE`, ended with SIGKILL {kills} times, up to {LATEST_S:g} s after its first result: {lines_read} whole",
        f"lines, {torn} torn at the end. What videos and spools lack then is in [streams](stream.md#outputs).",
    ]
    return "\n".join(text), wrong
