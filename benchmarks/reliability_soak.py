"""Part of reliability.py: memory, threads and open files of a run that goes on for long, and of its reader."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from reliability_servers import ServerProcess
from tables import table

import edgecnn
from edgecnn.stream import Frame, JsonlSink, VideoSink, open_source, run_stream

RSS_MB = 20.0
SAMPLE_S, TOLD_S = 1.0, 60.0


class Samples:
    """Looks at this process and its reader once a second, and tells of it once a minute.

    Attributes:
        own_mb, reader_mb: Resident memory.
        begin, end: Threads and open files, at the first look and at the latest.
    """

    def __init__(self, minutes: float) -> None:
        self.own_mb: list[float] = []
        self.reader_mb: list[float] = []
        self.begin = self.end = (0, 0)
        self._minutes = minutes
        self._start = self._looked = self._told = time.monotonic()

    def frame(self, frame: Frame, result: object) -> None:
        """After each frame of the stream."""
        now = time.monotonic()
        if now - self._looked < SAMPLE_S:
            return
        self._looked = now
        self.own_mb.append(resident_mb("self"))
        self.reader_mb.append(sum(resident_mb(number) for number in readers()))
        self.end = counts()
        if self.begin == (0, 0):
            self.begin = self.end
        if now - self._told >= TOLD_S:
            self._told = now
            print(
                f"reliability: soak, minute {(now - self._start) / 60:.0f} of {self._minutes:g}: frame {frame.index}, "
                f"{self.own_mb[-1]:.1f} MB, reader {self.reader_mb[-1]:.1f} MB, "
                f"{self.end[0]} threads, {self.end[1]} files",
                file=sys.stderr,
            )


def resident_mb(process: str) -> float:
    """Of a process, in units of 10⁶ bytes."""
    pages = int(Path("/proc", process, "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def readers() -> list[str]:
    """Processes that this one has started to read sources."""
    tasks = Path("/proc/self/task").glob("*/children")
    children = [number for path in tasks for number in path.read_text().split()]
    return [n for n in children if b"edgecnn.stream.reader" in Path("/proc", n, "cmdline").read_bytes()]


def counts() -> tuple[int, int]:
    """Threads, those of libraries too, and open files of this process."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


def measured(soak_minutes: float) -> tuple[str, list[str]]:
    """A network camera, with lines that are rotated and video in segments."""
    samples = Samples(soak_minutes)
    with (
        closing(ServerProcess("MjpegServer", (480, 640))) as server,
        tempfile.TemporaryDirectory() as made,
        edgecnn.load("face", runtime="ort") as detector,
        open_source(server.url) as source,
    ):
        sinks = [
            JsonlSink(f"{made}/o.jsonl", 10**6, 2),
            VideoSink(Path(made, "v.mkv"), source.fps, 30, 2),
        ]
        summary = run_stream(detector, source, sinks, duration_s=soak_minutes * 60, on_frame=samples.frame)
    rows, misses = [], []
    for name, rss_mb in (("program", samples.own_mb), ("its reader", samples.reader_mb)):
        half = rss_mb[len(rss_mb) // 2 :]
        mean, above = float(np.mean(half)), max(half) - float(np.mean(half))
        rows.append([name, f"{rss_mb[0]:.0f}", f"{mean:.0f}", f"{max(half):.0f}", f"{above:.1f}"])
        if above >= RSS_MB:
            misses.append(f"memory of the {name}: {above:.1f} MB above the mean")
    if samples.end[1] > samples.begin[1] or samples.end[0] > samples.begin[0]:
        misses.append(f"soak: threads and files went from {samples.begin} to {samples.end}")
    head = ["resident memory", "at first MB", "mean of the second half", "most of it", "above the mean"]
    text = [
        "## Memory",
        "",
        f"The face detector on a network camera for {soak_minutes:g} minutes, {summary.frames} frames, with JSON lines that are",
        f"rotated and video in segments. Promised: in the second half, less than {RSS_MB:g} MB above the mean.",
        "",
        table(head, rows),
        "",
        f"Threads and open files: {samples.begin[0]} and {samples.begin[1]} at first, "
        f"{samples.end[0]} and {samples.end[1]} at the end.",
    ]
    return "\n".join(text), misses
