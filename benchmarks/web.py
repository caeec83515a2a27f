"""What the web view costs the stream that it shows.

usage: python benchmarks/web.py

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. A photograph goes through the face detector again and
again, as fast as it can: without the view, with it and nobody there, and with 1 and 20 viewers, in turns. Viewers are
threads of another process that take every picture they can get.
"""

from __future__ import annotations

import http.client
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
from skimage import data
from tables import table

import edgecnn
from edgecnn.stream import open_source, run_stream
from edgecnn.web import WebSink

FRAMES, ROUNDS = 300, 5
WAYS = {"no view": None, "nobody looks": 0, "1 viewer": 1, "20 viewers": 20}
# goals: processor time a frame with nobody there; cores that 20 viewers take
LARGEST_IDLE, LARGEST_SHARE = 1.05, 0.5


def _look(host: str, port: int, seen: list[int]) -> None:
    number, connection = "0", http.client.HTTPConnection(host, port, timeout=10)
    try:
        while True:
            connection.request("GET", f"/picture.jpg?after={number}")
            answer = connection.getresponse()
            if answer.read():
                number = answer.headers["X-Edgecnn-Number"]
                seen.append(int(number))
    except (OSError, http.client.HTTPException):  # the stream has ended
        connection.close()


def _crowd(url: str, count: int, counted: multiprocessing.SimpleQueue[int], ready: threading.Event) -> None:
    place, seen = urlsplit(url), [[] for _ in range(count)]
    threads = [threading.Thread(target=_look, args=(place.hostname, place.port, each)) for each in seen]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    counted.put(sum(map(len, seen)))


@contextmanager
def crowd(url: str, count: int) -> Iterator[multiprocessing.SimpleQueue[int]]:
    """Viewers in a process of their own, until the stream ends; then how many pictures they got."""
    context = multiprocessing.get_context("spawn")
    counted, ready = context.SimpleQueue(), context.Event()
    process = context.Process(target=_crowd, args=(url, count, counted, ready), daemon=True)
    process.start()
    ready.wait()
    try:
        yield counted
    finally:
        process.join(10)


def once(predictor: edgecnn.Predictor, frames: np.ndarray, viewers: int | None) -> dict[str, float]:
    """Processor and wall time of a frame in ms, and the pictures a second of each viewer."""
    pictures = 0
    with open_source(frames) as source:
        if viewers is None:
            return timed(predictor, source, [])
        sink = WebSink("0", source, "face")
        if not viewers:
            return timed(predictor, source, [sink])
        with crowd(sink.url, viewers) as counted:
            found = timed(predictor, source, [sink])
            pictures = counted.get()
    return found | {"pictures_per_s": pictures / viewers / (found["wall_ms"] * FRAMES / 1e3)}


def timed(predictor: edgecnn.Predictor, source: object, sinks: list[WebSink]) -> dict[str, float]:
    """Run the stream to its end."""
    cpu, wall = time.process_time(), time.perf_counter()
    run_stream(predictor, source, sinks)
    return {
        "cpu_ms": (time.process_time() - cpu) / FRAMES * 1e3,
        "wall_ms": (time.perf_counter() - wall) / FRAMES * 1e3,
    }


def measure() -> dict[str, dict[str, float]]:
    """Medians of rounds, after one that does not count."""
    photo = np.ascontiguousarray(data.astronaut()[..., ::-1])
    frames = np.broadcast_to(photo, (FRAMES, *photo.shape))
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with edgecnn.load("face", min_size=80, threads=1) as predictor:
        for _ in range(ROUNDS + 1):
            for way, viewers in WAYS.items():
                found[way].append(once(predictor, frames, viewers))
    return {
        way: {key: statistics.median(each[key] for each in rounds[1:]) for key in rounds[0]}
        for way, rounds in found.items()
    }


def section() -> tuple[str, bool]:
    """Its part of the page, and whether a goal is missed."""
    found = measure()
    bare = found["no view"]
    rows = [
        (
            way,
            f"{each['cpu_ms']:.2f}",
            f"{each['cpu_ms'] / bare['cpu_ms']:.2f}×",
            f"{(each['cpu_ms'] - bare['cpu_ms']) / each['wall_ms']:.2f}",
            f"{each['wall_ms']:.2f}",
            f"{each['pictures_per_s']:.1f}" if "pictures_per_s" in each else "–",
        )
        for way, each in found.items()
    ]
    misses = []
    idle = found["nobody looks"]["cpu_ms"] / bare["cpu_ms"]
    if idle > LARGEST_IDLE:
        misses.append(f"nobody looks: {idle:.2f}× the processor time, the goal is {LARGEST_IDLE}.")
    many = found["20 viewers"]
    share = (many["cpu_ms"] - bare["cpu_ms"]) / many["wall_ms"]
    if share > LARGEST_SHARE:
        misses.append(f"20 viewers: {share:.2f} of a core, the goal is {LARGEST_SHARE}.")
    lines = [
        "## Web view",
        "",
        "A photograph of 512×512 through the face detector, as fast as one thread of ONNX Runtime can; ms a frame, medians of",
        f"{ROUNDS} turns of {FRAMES} frames. Processor time is that of the stream's process: drawing, encoding and serving are in",
        "it, the viewers are not; they take wall time from it where they need its cores.",
        "",
        table(["", "CPU ms", "ratio", "more cores", "wall ms", "pictures/s a viewer"], rows),
        "",
        f"Goals: {LARGEST_IDLE} times the processor time while nobody looks; {LARGEST_SHARE} of a core for 20 viewers.",
        *(f"- Goal missed: {miss}" for miss in misses),
    ]
    return "\n".join([*lines, ""]), bool(misses)


if __name__ == "__main__":
    text, missed = section()
    print(text)
    sys.exit(int(missed))
