"""Part of reliability.py: servers of live video that fail in all ways, and come back."""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from reliability_servers import ServerProcess
from tables import table

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream import open_source
from edgecnn.stream.base import Source, SourceEvent
from tests.stream import real_servers
from tests.stream.servers import FAILURES

NOTICE_S, RECOVER_S = 5.0, 10.0
OPEN_S = 30.0
REAL = (real_servers.GStreamer, real_servers.FFmpeg)


@dataclass(frozen=True)
class Cycle:
    """One failure: seconds until it was noticed (of those who are connected), and from the return to a frame."""

    end: str
    notice_s: float
    recover_s: float


def resources() -> tuple[int, int]:
    """Threads and open files of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def opened(url: str) -> Source:
    """A source, once its server listens."""
    end = time.monotonic() + OPEN_S
    while True:
        try:
            return open_source(url)
        except DeviceUnavailable:
            if time.monotonic() > end:
                raise


class Watched:
    """A source that is read by a thread, which notes when it was lost and when its last frame came."""

    def __init__(self, source: Source) -> None:
        self.lost = threading.Event()
        self.came_s = 0.0
        self._source = source
        self._ending = threading.Event()
        source.listen(self._heard)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for_frame(self, since_s: float, limit_s: float) -> float:
        """Seconds until a frame that came after a moment."""
        while self.came_s < since_s and time.monotonic() < since_s + limit_s:
            time.sleep(0.005)
        return time.monotonic() - since_s

    def close(self) -> None:
        """Read no more."""
        self._ending.set()
        self._thread.join()

    def _heard(self, event: SourceEvent) -> None:
        if event.state == "lost":
            self.lost.set()

    def _read(self) -> None:
        for _ in self._source:
            self.came_s = time.monotonic()
            if self._ending.is_set():
                return


def cycles_of(
    server: ServerProcess | real_servers.RealServer, ends: tuple[str, ...], count: int
) -> Iterator[Cycle | int]:
    """Failures in turns of all ways; at last, how often the source was back."""
    name = type(server).__name__ if isinstance(server, real_servers.RealServer) else server.kind
    with opened(server.url) as source:
        watched = Watched(source)
        watched.wait_for_frame(time.monotonic(), OPEN_S)
        for number in range(count):
            end = ends[number % len(ends)]
            print(f"reliability: {name} {number + 1}/{count} {end}", file=sys.stderr)
            time.sleep(0.5)
            watched.lost.clear()
            broken = time.monotonic()
            server.become(end)
            # one that is silent is so to those who come: whoever is there is served on
            noticed = end == "silent" or watched.lost.wait(2 * NOTICE_S)
            notice_s = time.monotonic() - broken if noticed else float("inf")
            time.sleep(random.uniform(0, 2))
            server.become("serve")
            yield Cycle(end, notice_s, watched.wait_for_frame(time.monotonic(), 4 * RECOVER_S))
        watched.close()
        yield source.reconnects


def row(server: str, end: str, found: list[Cycle]) -> list[str]:
    """A line of the table."""
    notice, recover = [cycle.notice_s for cycle in found], [cycle.recover_s for cycle in found]
    noticed = ["–", "–"] if end == "silent" else [f"{statistics.median(notice):.2f}", f"{max(notice):.2f}"]
    return [
        server,
        end,
        str(len(found)),
        *noticed,
        f"{statistics.median(recover):.2f}",
        f"{max(recover):.2f}",
    ]


def missed(server: str, end: str, found: list[Cycle]) -> Iterator[str]:
    """What was promised otherwise."""
    if end != "silent" and (notice_s := max(cycle.notice_s for cycle in found)) > NOTICE_S:
        yield f"{server}, {end}: noticed after {notice_s:.1f} s"
    if (recover_s := max(cycle.recover_s for cycle in found)) > RECOVER_S:
        yield f"{server}, {end}: frames again after {recover_s:.1f} s"


def measured(cycles: int) -> tuple[str, list[str]]:
    """Servers that fail and come back, in turns of all ways."""
    kinds = [(kind, (*FAILURES, "killed")) for kind in ("MjpegServer", "RtspServer")]
    kinds += [(kind.__name__, real_servers.ENDS) for kind in REAL if kind.installed()]
    absent = [kind.__name__ for kind in REAL if not kind.installed()]
    rows, misses, reconnects = [], [], 0
    before = resources()
    for place, (kind, ends) in enumerate(kinds):
        made = getattr(real_servers, kind, None)
        found: dict[str, list[Cycle]] = {}
        with closing(made() if made else ServerProcess(kind)) as server:
            for each in cycles_of(server, ends, cycles // len(kinds) + (place < cycles % len(kinds))):
                if isinstance(each, Cycle):
                    found.setdefault(each.end, []).append(each)
                else:
                    reconnects += each
        rows += [row(kind, end, each) for end, each in found.items()]
        misses += [miss for end, each in found.items() for miss in missed(kind, end, each)]
    time.sleep(0.5)
    after = resources()
    if after != before:
        misses.append(f"threads and open files went from {before} to {after}")
    head = ["server", "fails by", "cycles", "noticed s", "at most", "frames again s", "at most"]
    text = [
        "## Cameras that vanish",
        "",
        f"Servers that fail and come back, {cycles} times in all: of Motion JPEG over HTTP and over RTSP, in seven ways; GStreamer's of",
        "H.264 over RTSP and FFmpeg's of Motion JPEG over HTTP, whose processes are stopped (*stall*), killed and",
        "terminated. *Noticed* is the time until the source says so, *frames again* that from the server's return to the next",
        "frame: of a process, from its start.",
        "",
        table(head, rows),
        "",
        f"{reconnects} reconnects; threads and open files {before[0]} and {before[1]} before, {after[0]} and {after[1]} after.",
        f"Promised: noticed within {NOTICE_S:g} s, frames again within {RECOVER_S:g} s, no more threads or files.",
        *([f"Not installed here: {', '.join(absent)}."] if absent else []),
    ]
    return "\n".join(text), misses
