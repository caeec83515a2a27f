"""Breaks what can be broken around a stream, and prints what became of it: docs/reliability.md.

usage: python benchmarks/reliability.py docs/reliability.md [--cycles 100] [--kills 50] [--soak-minutes 10]

Takes about half an hour. Inputs that are broken are another page: make fuzz. Exit 1 when a promise is not kept; the page says which.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import machine
from tables import table

import edgecnn
from edgecnn.stream import Frame, open_source, run_stream
from edgecnn.stream.base import SourceEvent

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from clip import frames as clip_frames  # noqa: E402 (found through the line above)

from tests.stream.servers import FAILURES  # noqa: E402

# what becomes of the server: it misbehaves, or its process is killed
ENDS = (*FAILURES, "killed")
NOTICE_S, RECOVER_S, RSS_MB = 5.0, 10.0, 20.0
THREADS, LATEST_KILL_S = 32, 3.0

SERVER = """
import sys
sys.path.insert(0, {root!r})
from tests.stream import servers
with getattr(servers, {kind!r})({port}) as server:
    server.size_hw = {size_hw}
    print(server.port, flush=True)
    for line in sys.stdin:
        server.become(line.strip())
        print("done", flush=True)
"""


class ServerProcess:
    """A server of live video that does as it is told, in a process that can be killed."""

    def __init__(self, kind: str, size_hw: tuple[int, int] = (96, 128)) -> None:
        self.kind, self.port, self.size_hw = kind, 0, size_hw
        self._start()

    @property
    def url(self) -> str:
        """Where its video is."""
        return f"{'rtsp' if self.kind == 'RtspServer' else 'http'}://127.0.0.1:{self.port}/video"

    def become(self, mode: str) -> None:
        """Change what it does; ``killed`` ends it with SIGKILL, ``serve`` begins anew where it was."""
        if mode == "killed":
            self.close()
            return
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{mode}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        program = SERVER.format(root=str(ROOT), kind=self.kind, port=self.port, size_hw=self.size_hw)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())


def resources() -> tuple[int, int]:
    """Threads and open files of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def cycles(count: int) -> tuple[str, list[str]]:
    """Servers that fail and come back, in turns of all ways."""
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    misses, reconnects = [], 0
    before = resources()
    for kind in ("MjpegServer", "RtspServer"):
        server = ServerProcess(kind)
        lost = threading.Event()

        def heard(event: SourceEvent, lost: threading.Event = lost) -> None:
            if event.state == "lost":
                lost.set()

        with open_source(server.url) as source:
            source.listen(heard)
            arrived: list[float] = []
            ending = threading.Event()

            def read(source=source, arrived=arrived, ending=ending) -> None:  # type: ignore[no-untyped-def]
                for _ in source:
                    arrived.append(time.monotonic())
                    if ending.is_set():
                        return

            reading = threading.Thread(target=read)
            reading.start()
            for number in range(count // 2):
                end = ENDS[number % len(ENDS)]
                print(f"reliability: {kind} {number + 1}/{count // 2} {end}", file=sys.stderr)
                time.sleep(0.5)
                lost.clear()
                broken = time.monotonic()
                server.become(end)
                # one that is silent is so to those who come: whoever is there is served on
                noticed = lost.wait(2 * NOTICE_S) if end != "silent" else True
                notice_s = time.monotonic() - broken if noticed else float("inf")
                time.sleep(random.uniform(0, 2))
                server.become("serve")
                back = time.monotonic()
                while (not arrived or arrived[-1] < back) and time.monotonic() < back + 4 * RECOVER_S:
                    time.sleep(0.005)
                rows.setdefault((kind, end), []).append((notice_s, time.monotonic() - back))
            ending.set()
            reading.join()
            reconnects += source.reconnects
        server.close()
    time.sleep(0.5)
    after = resources()
    lines = []
    for (kind, end), found in rows.items():
        notice, recover = zip(*found)
        noticed = (
            ["–", "–"] if end == "silent" else [f"{statistics.median(notice):.2f}", f"{max(notice):.2f}"]
        )
        lines.append(
            [kind, end, len(found), *noticed, f"{statistics.median(recover):.2f}", f"{max(recover):.2f}"]
        )
        if end != "silent" and max(notice) > NOTICE_S:
            misses.append(f"{kind}, {end}: noticed after {max(notice):.1f} s")
        if max(recover) > RECOVER_S:
            misses.append(f"{kind}, {end}: frames again after {max(recover):.1f} s")
    if after != before:
        misses.append(f"threads and open files went from {before} to {after}")
    header = ["server", "fails by", "cycles", "noticed s", "at most", "frames again s", "at most"]
    text = [
        "## Cameras that vanish",
        "",
        f"Servers of Motion JPEG over HTTP and over RTSP that fail in seven ways and come back, {count} times in all. *Noticed*",
        "is the time until the source says so, *frames again* that from the server's return to the next frame.",
        "",
        table(header, lines),
        "",
        f"{reconnects} reconnects; threads and open files {before[0]} and {before[1]} before, {after[0]} and {after[1]} after.",
        f"Promised: noticed within {NOTICE_S:g} s, frames again within {RECOVER_S:g} s, no more threads or files.",
    ]
    return "\n".join(text), misses


def kills(count: int) -> tuple[str, list[str]]:
    """SIGKILL at random moments: what had been written can be read."""
    torn, lines_read, wrong = 0, 0, []
    server = ServerProcess("MjpegServer")
    with tempfile.TemporaryDirectory() as made:
        for number in range(count):
            print(f"reliability: kill {number + 1}/{count}", file=sys.stderr)
            out = Path(made, f"{number}.jsonl")
            command = [sys.executable, "-m", "edgecnn", "run", "face", "--source", server.url, "--quiet"]
            with subprocess.Popen([*command, "--json", str(out), "--runtime", "ort"]) as process:
                while process.poll() is None and not (out.exists() and out.stat().st_size):
                    time.sleep(0.01)
                time.sleep(random.uniform(0, LATEST_KILL_S))
                process.kill()
            *whole, last = out.read_bytes().split(b"\n")
            torn += bool(last)
            try:
                lines_read += len([json.loads(line) for line in whole])
            except ValueError:
                wrong.append(f"run {number}: a line that is not the last one is torn")
    server.close()
    text = [
        "## Killed at any moment",
        "",
        f"`edgecnn run … --json FILE`, ended with SIGKILL {count} times, up to {LATEST_KILL_S:g} s after its first result: {lines_read} whole",
        f"lines, {torn} torn at the end. What videos and spools lack then is in [streams](stream.md#outputs).",
    ]
    return "\n".join(text), wrong


def threads() -> tuple[str, list[str]]:
    """One predictor, many threads."""
    frames = list(clip_frames(4.0))[:: 100 // 16][:16]
    with edgecnn.load("face", runtime="ort") as detector:
        alone = [detector(frame).to_json() for frame in frames]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(
                pool.map(lambda i: detector(frames[i % 16]).to_json() == alone[i % 16], range(THREADS * 16))
            )
    text = f"## One predictor, many threads\n\n{THREADS} threads, {len(found)} frames: {sum(found)} results as of one thread."
    return text, [] if all(found) else ["threads that share a predictor disturb each other"]


def soak(minutes: float) -> tuple[str, list[str]]:
    """Memory over time."""
    server, rss_mb, frames = ServerProcess("MjpegServer", (480, 640)), [], 0

    def noted(frame: Frame, result: object) -> None:
        nonlocal frames
        frames += 1
        if frames % 20 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            rss_mb.append(pages * 4096 / 1e6)

    with edgecnn.load("face", runtime="ort") as detector, open_source(server.url) as source:
        summary = run_stream(detector, source, duration_s=minutes * 60, on_frame=noted)
    server.close()
    half = rss_mb[len(rss_mb) // 2 :]
    growth = max(max(half) - float(np.mean(half)), 0.0)
    text = [
        "## Memory",
        "",
        f"The face detector on a network camera for {minutes:g} minutes, {summary.frames} frames: in the second half the resident",
        f"memory is {np.mean(half):.0f} MB on average and at most {growth:.1f} MB above that (promised: {RSS_MB:g} MB).",
    ]
    return "\n".join(text), [] if growth < RSS_MB else [f"memory: {growth:.1f} MB above the mean"]


def parts(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Section after section."""
    yield cycles(options.cycles)
    yield kills(options.kills)
    yield threads()
    yield soak(options.soak_minutes)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--soak-minutes", type=float, default=10.0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = list(parts(parser.parse_args(arguments)))
    misses = [miss for _, part in found for miss in part]
    begin = f"# Reliability\n\nWritten by `benchmarks/reliability.py`; do not edit. {machine()}\n"
    kept = "\n".join([f"- Promise not kept: {miss}." for miss in misses]) or "All promises were kept."
    Path(parser.parse_args(arguments).out).write_text(
        "\n".join([begin, *(f"{text}\n" for text, _ in found), f"{kept}\n"])
    )
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
