"""Work that goes well and work that goes wrong, for the tests of isolation to run in a child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecnn.errors import BundleError


class OddBundle(BundleError):
    """An error that edgecnn.errors does not list."""


def echo(**values: Any) -> dict[str, Any]:
    return values


def where() -> dict[str, Any]:
    return {"pid": os.getpid(), "folder": str(Path.cwd())}


def count(total: int, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    for done in range(total):
        progress("counting\n", done + 1, total)
    return {}


def refuse(odd: bool) -> dict[str, Any]:
    raise (OddBundle if odd else BundleError)("face.edge: altered; get it again")


def stumble() -> dict[str, Any]:
    raise ZeroDivisionError("by nothing\nat all")


def unanswerable() -> dict[str, Any]:
    return {"value": object()}


def die(number: int, words: str = "") -> dict[str, Any]:
    sys.stdout.write(words)
    os.kill(os.getpid(), number)
    time.sleep(60)
    return {}


def leave(code: int) -> dict[str, Any]:
    os._exit(code)


def chatter() -> dict[str, Any]:
    for stream in (sys.stdout, sys.stderr):
        stream.write('{"value": 1}\n' * 200_000)
    return {"answer": 42}


def hang(note: str = "", stubborn: bool = True) -> dict[str, Any]:
    if stubborn:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    if note:
        Path(note).write_text(str(os.getpid()))
    while True:
        pass


def swallow(megabytes: int) -> dict[str, Any]:
    held = []
    for _ in range(megabytes // 10):
        held.append(os.urandom(10_000_000))
        time.sleep(0.02)
    return {"held": len(held)}


def leave_behind() -> dict[str, Any]:
    return {"pid": subprocess.Popen(["sleep", "60"]).pid}


def expendable() -> dict[str, Any]:
    return {"score": int(Path("/proc/self/oom_score_adj").read_text())}


def size(blob: bytes) -> dict[str, Any]:
    return {"blob": blob, "size": len(blob)}


def fill(size: int) -> dict[str, Any]:
    return {"written": Path("file").write_bytes(bytes(size))}


def bulky(size: int) -> dict[str, Any]:
    return {"blob": bytes(size)}


def fall_after_the_answer() -> dict[str, Any]:
    import atexit

    atexit.register(os.abort)
    return {"answer": 42}
