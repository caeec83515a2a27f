"""What ``edgecnn run`` says while it runs and when it is done."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecnn.cli import _common
from edgecnn.cli._line import note

if TYPE_CHECKING:
    from edgecnn.results import Result
    from edgecnn.stream import Frame, Source, Summary

__all__ = ["Tally", "report", "warn_of_missing"]

log = logging.getLogger(__name__)

FOUND_SHOWN = 10
FPS_FRAMES = 30


class Tally:
    """Counts what was found, for the live line and the summary."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._times: deque[float] = deque(maxlen=FPS_FRAMES)
        self.frames = 0
        self.detections: int | None = None
        self.last: Result | None = None

    def add(self, frame: Frame, result: Result) -> None:
        """Count one frame."""
        from edgecnn.results import Detections

        self.frames += 1
        self.last = result
        self._times.append(time.monotonic())
        if isinstance(result, Detections):
            self.detections = (self.detections or 0) + len(result)

    def __str__(self) -> str:
        if self.last is None:
            return f"waiting for {self._source.name}"
        announced = self._source.frames_announced
        of = f" of {announced}" if announced and announced >= self.frames else ""
        elapsed = self._times[-1] - self._times[0]
        fps = f", {(len(self._times) - 1) / elapsed:.1f} fps" if elapsed > 0 else ""
        return f"frame {self.frames}{of}{fps}: {_found(self.last)}"


def _found(result: Result) -> str:
    from edgecnn.results import Classification, Detections

    if isinstance(result, Detections):
        return f"{len(result)} found"
    if isinstance(result, Classification):
        return f"{result.labels[0]} {result.scores[0]:.2f}" if len(result) else "no class"
    return ", ".join(result.arrays)


def report(summary: Summary, tally: Tally, runtime: str, json_path: str | None, save: Sequence[str]) -> None:
    """Say what came of the stream, on standard error: results may go to standard output."""
    if _common.is_quiet():
        return
    lines = [_sentence(summary, tally, runtime)]
    if summary.frames:
        lines += [f"annotated: {path}" for path in save]
    if json_path not in (None, "-"):
        lines.append(f"results: {json_path}")
    if summary.frames == 1 and tally.last is not None and json_path is None:
        lines += _listed(tally.last)
    note("\n".join(lines))


def _sentence(summary: Summary, tally: Tally, runtime: str) -> str:
    frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
    text = f"{frames} in {summary.seconds:.2f} s"
    if summary.frames > 1:
        text += (
            f" ({summary.fps:.1f} fps), prediction p50 {summary.p50_ms:.1f} ms, p95 {summary.p95_ms:.1f} ms"
        )
    elif summary.frames == 1:
        text += f", prediction {summary.p50_ms:.1f} ms"
    text += f" on {runtime}"
    if tally.detections is not None:
        text += f", {tally.detections} found"
    if summary.dropped:
        text += f", {summary.dropped} dropped"
    if summary.reconnects:
        text += f", {summary.reconnects} times reconnected"
    if summary.restarts:
        text += f", engine replaced {summary.restarts} times"
    if summary.skipped:
        text += f", {summary.skipped} skipped"
    return text


def warn_of_missing(summary: Summary, source: Source) -> None:
    """Say that a video ended before its announced length: it is cut, or its container is wrong."""
    announced, came = source.frames_announced, summary.frames + summary.skipped
    if announced is not None and came < announced:
        log.warning("%s announces %d frames, %d could be read", source.name, announced, came)


def _listed(result: Result) -> list[str]:
    from edgecnn.results import Classification, Detections

    if isinstance(result, Detections):
        lines = [
            f"  {label} {score:.2f} at {box[0]:.0f},{box[1]:.0f} to {box[2]:.0f},{box[3]:.0f}"
            for box, score, _, label in result
        ]
    elif isinstance(result, Classification):
        lines = [f"  {label} {score:.2f}" for _, score, label in result]
    else:
        lines = [f"  {name}: {a.dtype} {'×'.join(map(str, a.shape))}" for name, a in result.arrays.items()]
    more = [f"  … {len(lines) - FOUND_SHOWN} more"] if len(lines) > FOUND_SHOWN else []
    return lines[:FOUND_SHOWN] + more
