"""Part of reliability.py: outputs of a camera on a disk that gets full and has room again."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from reliability_servers import ServerProcess
from tables import table

import edgecnn
from edgecnn.stream import Frame, JsonlSink, Sink, Source, VideoSink, open_source, run_stream
from edgecnn.stream.network import open_outboxes
from edgecnn.stream.outputs import WriteFailed
from edgecnn.stream.spool import Spool
from edgecnn.vision.video import VideoReader
from tests.stream.receivers import free_port
from tests.stream.small_disk import empty, fill, mounted

DISK_MB = 8
# it is full for the second of three such times, and what is done within so much of a change may be on either side
THIRD_S, EDGE_S = 4.0, 0.3
SEGMENT_S = 1.0


class Lines:
    """JSON lines, each in the file or not."""

    leave = 0

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self.name = "`--json`" if max_bytes is None else "`--json`, rotated"

    def open(self, disk: Path, source: Source) -> Sink:
        """The sink."""
        return JsonlSink(str(disk / "o.jsonl"), self._max_bytes, 10_000)

    def found(self, disk: Path) -> list[int]:
        """Frames that are there; every line has to be whole."""
        older = sorted(disk.glob("o.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
        text = "".join(path.read_text() for path in (*older, disk / "o.jsonl"))
        return [line["frame"] for line in map(json.loads, text.splitlines()) if "frame" in line]

    def lacking(self, disk: Path, outside: Sequence[tuple[float, int]]) -> tuple[str, bool]:
        """What is there of the frames that the disk had room for, and whether that is too little."""
        found = self.found(disk)
        there = sum(number in set(found) for _, number in outside)
        ordered = list(dict.fromkeys(found)) == sorted(set(found))
        return f"{there} of {len(outside)} frames", there < len(outside) or not ordered


class Spooled(Lines):
    """Lines that wait for a server that is away."""

    def __init__(self) -> None:
        self.name = "spool of `--webhook`"

    def open(self, disk: Path, source: Source) -> Sink:
        """The sink."""
        nobody = f"http://127.0.0.1:{free_port()}/"
        return open_outboxes(source, webhook=nobody, spool=str(disk / "spool"))[0]

    def found(self, disk: Path) -> list[int]:
        """Frames that wait."""
        [folder] = (disk / "spool").iterdir()
        with closing(Spool(folder, DISK_MB * 10**6)) as spool:
            found = []
            while records := spool.oldest(1000, 0):
                found += [
                    line["frame"] for line in map(json.loads, (r.data for r in records)) if "frame" in line
                ]
                spool.acknowledge(records[-1].number)
        return found


class Segments:
    """Video in segments; the disk does not get full all at once."""

    leave = 2**19

    def __init__(self, suffix: str) -> None:
        self.name = f"`--save v{suffix} --segment {SEGMENT_S:g}`"
        self._suffix = suffix

    def open(self, disk: Path, source: Source) -> Sink:
        """The sink."""
        return VideoSink(disk / f"v{self._suffix}", source.fps, SEGMENT_S)

    def lacking(self, disk: Path, outside: Sequence[tuple[float, int]]) -> tuple[str, bool]:
        """Seconds that can be played, and those that the disk had room for, but for one segment."""
        played_s = 0.0
        for path in disk.glob(f"v-*{self._suffix}"):
            with VideoReader(path) as video:
                played_s += sum(1 for _ in iter(video.skip, False)) / video.fps
        times_s = [at_s for at_s, _ in outside]
        room_s = sum(pause_s for pause_s in np.diff(times_s) if pause_s < THIRD_S / 2)
        least_s = room_s - SEGMENT_S
        return f"{played_s:.1f} s, promised {least_s:.1f} s", played_s < least_s


def fill_and_empty(disk: Path, leave: int, changes_s: list[float]) -> None:
    """Have the disk full for a while, and note from when to when."""
    time.sleep(THIRD_S)
    changes_s.append(time.monotonic())
    fill(disk, leave)
    time.sleep(THIRD_S)
    empty(disk)
    changes_s.append(time.monotonic())


def outcome(output: Lines | Segments) -> tuple[list[str], list[str]]:
    """A line of the table, and what was promised otherwise."""
    print(f"reliability: disk, {output.name}", file=sys.stderr)
    seen: list[tuple[float, int]] = []
    changes_s: list[float] = []

    def noted(frame: Frame, result: object) -> None:
        seen.append((time.monotonic(), frame.index))

    with (
        tempfile.TemporaryDirectory() as made,
        mounted(Path(made), DISK_MB) as disk,
        closing(ServerProcess("MjpegServer")) as server,
        edgecnn.load("face", runtime="ort") as detector,
        open_source(server.url) as source,
    ):
        sink, ending = output.open(disk, source), "done"
        changing = threading.Thread(target=fill_and_empty, args=(disk, output.leave, changes_s))
        changing.start()
        try:
            run_stream(detector, source, [sink], duration_s=3 * THIRD_S, on_frame=noted)
        except WriteFailed as error:
            ending = f"says so, exit code {error.exit_code}"
        changing.join()
        full_s, room_s = changes_s
        outside = [each for each in seen if not full_s - EDGE_S <= each[0] <= room_s + EDGE_S]
        during = sum(full_s + EDGE_S < at_s < room_s - EDGE_S for at_s, _ in seen)
        kept, too_little = output.lacking(disk, outside)
    misses = [f"disk, {output.name}: {kept}"] if too_little else []
    if during == 0:
        misses.append(f"disk, {output.name}: nothing was predicted while it was full")
    return [output.name, str(len(seen)), str(during), kept, ending], misses


def measured() -> tuple[str, list[str]]:
    """One output after the other."""
    try:
        with tempfile.TemporaryDirectory() as made, mounted(Path(made), DISK_MB):
            pass
    except OSError as error:
        return f"## A full disk\n\nNot measured here: {error}.", []
    outputs = [Lines(), Lines(20_000), Segments(".mkv"), Segments(".mp4"), Spooled()]
    rows, misses = zip(*(outcome(output) for output in outputs))
    head = [
        "output",
        "frames predicted",
        "while it was full",
        "readable, of what there was room for",
        "the run",
    ]
    text = [
        "## A full disk",
        "",
        f"The face detector on a network camera for {3 * THIRD_S:g} s, an output of it on a disk of {DISK_MB} MB that others have filled",
        f"for {THIRD_S:g} s in the middle. Promised: predictions go on, lines are whole, and what there was room for is there, but for",
        "the video of one segment.",
        "",
        table(head, list(rows)),
    ]
    return "\n".join(text), [miss for each in misses for miss in each]
