"""The loop that ties a source, a predictor and sinks together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from edgecnn.errors import EdgeCnnError, EngineError, InputError
from edgecnn.results import Result
from edgecnn.stream.base import EndOfStream, Frame, Image, Sink, Source, Summary
from edgecnn.stream.enduring import Enduring
from edgecnn.stream.interrupts import Interrupts
from edgecnn.stream.pipeline import Pipeline, Predict, Prediction, open_pipeline
from edgecnn.stream.service import ServiceManager
from edgecnn.stream.supervision import Supervised, TooManyRestarts

__all__ = ["Interrupted", "run_stream"]

log = logging.getLogger(__name__)

LATENCIES_KEPT = 10_000
# how long a frame is waited for before other duties
TEND_S = 0.5

OnFrame = Callable[[Frame, Result], None]


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the outputs are closed and valid.

    Attributes:
        summary: What had been done until then.
    """

    def __init__(self, summary: Summary) -> None:
        super().__init__(f"interrupted after {summary.frames} frames")
        self.summary = summary


def run_stream(
    predictor: Predict | Supervised,
    source: Source,
    sinks: Sequence[Sink] = (),
    *,
    workers: int = 1,
    service: bool = False,
    max_frames: int | None = None,
    duration_s: float | None = None,
    on_frame: OnFrame | None = None,
) -> Summary:
    """Read, predict and write out frame after frame, in the source's order.

    All three go on at the same time, see `open_pipeline`; sinks are written to in the thread that calls
    this. Each result's ``timing_ms`` gets ``read`` (the source's time for the frame), ``wait`` (until its
    prediction began) and ``total`` (from asking the source for it to its result). Sinks are closed
    whatever happens; the source is left to its owner. An output of a live source that cannot be written
    stops nothing: it is tried again with the next frame, and what it lacks is raised at the end. Of several
    failures the first is raised and the others are logged; an interrupt goes before those that are edgecnn's
    or the system's.

    Args:
        predictor: Gives the result of a frame, uint8 (H, W, 3) BGR. One that is supervised is replaced when
            it fails or hangs, at the cost of the frame that shows it.
        source: Where frames come from.
        sinks: What takes them.
        workers: How many frames to predict side by side; 1 where one depends on the one before.
        service: systemd is told how it goes, and SIGHUP has a supervised predictor open its bundle again.
        max_frames: Stop after this many frames.
        duration_s: Stop after this many seconds of wall time.
        on_frame: Called after the sinks.

    Raises:
        InputError: A frame does not fit the model, with the frame's source. In a folder such a
            picture is skipped with a warning, and it is an error only when no other one fits.
        DeviceUnavailable: A camera stopped answering.
        WriteFailed: An output cannot be written, as on a full disk; of a live source, it lacks frames.
        Interrupted: SIGINT or SIGTERM (in the main thread).
    """
    supervised = predictor if isinstance(predictor, Supervised) else None
    run = _Run(supervised, source, sinks, on_frame, ServiceManager() if service else None)
    interrupted = False
    failures: list[BaseException] = []
    with Interrupts(service=service and supervised is not None) as interrupts:
        try:
            try:
                on_stuck = supervised.replace if supervised else None
                with open_pipeline(source, predictor, workers, on_stuck) as pipeline:
                    run.loop(pipeline, interrupts, max_frames, duration_s)
            finally:
                interrupts.end()
        except KeyboardInterrupt:
            interrupted = True
        except BaseException as error:
            failures.append(error)
        summary = run.close(interrupts, failures)
        interrupted = interrupted or interrupts.came
    raised = _chosen(failures, Interrupted(summary) if interrupted else None)
    for failure in failures:
        if failure is not raised:
            log.warning("%s", failure)
    if raised is not None:
        raise raised
    return summary


def _chosen(failures: list[BaseException], interrupted: Interrupted | None) -> BaseException | None:
    """Which ending is raised: a mistake in the program must not pass for an interrupt or a full disk."""
    mistakes = [failure for failure in failures if not isinstance(failure, (EdgeCnnError, OSError))]
    first = failures[0] if failures else None
    return mistakes[0] if mistakes else interrupted or first


class _Run:
    def __init__(
        self,
        supervised: Supervised | None,
        source: Source,
        sinks: Sequence[Sink],
        on_frame: OnFrame | None,
        manager: ServiceManager | None,
    ) -> None:
        self._supervised = supervised
        self._source = source
        self._names = [type(sink).__name__ for sink in sinks]
        self._sinks = [Enduring(sink) for sink in sinks] if source.live else sinks
        self._on_frame = on_frame
        self._manager = manager
        self._start = time.monotonic()
        self._frames = 0
        self._dropped = 0
        self._unfit = 0
        self._last_unfit: InputError | None = None
        self._failed = 0
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def loop(
        self, pipeline: Pipeline, interrupts: Interrupts, max_frames: int | None, duration_s: float | None
    ) -> None:
        end_s = math.inf if duration_s is None else self._start + duration_s
        if self._manager:
            self._manager.ready(f"{self._source.name}")
        while (max_frames is None or self._frames < max_frames) and time.monotonic() < end_s:
            self._tend(interrupts)
            prediction = pipeline.take(min(end_s, time.monotonic() + TEND_S))
            self._dropped = pipeline.dropped
            if pipeline.ended:
                break
            result = self._result(prediction) if prediction else None
            if prediction is None or result is None:
                continue
            try:
                with interrupts.held():
                    self._write(prediction.frame, result)
            except EndOfStream:
                break
        if self._frames == 0 and self._last_unfit is not None:
            raise self._last_unfit

    def _tend(self, interrupts: Interrupts) -> None:
        """What a service does between frames."""
        if self._manager:
            self._manager.alive(f"{self._frames} frames, {self._dropped} dropped")
        if self._supervised and interrupts.hung_up.is_set():
            interrupts.hung_up.clear()
            # frames are predicted by the old bundle until the new one is there
            threading.Thread(target=self._supervised.reload, name="reload").start()

    def _result(self, prediction: Prediction) -> Result | None:
        """The result of a frame; None where the stream goes on without it."""
        frame = prediction.frame
        try:
            return prediction.result()
        except InputError as error:
            self._last_unfit = type(error)(f"{frame.source}: {error}")
            if self._source.root is None:
                raise self._last_unfit from error
            self._unfit += 1
            log.warning("skipped: %s", self._last_unfit)
        except TooManyRestarts:
            raise
        except EngineError as error:
            if self._supervised is None:
                raise
            self._failed += 1
            log.warning("%s: frame %d has no result: %s", frame.source, frame.index, error)
        return None

    def _write(self, frame: Frame, result: Result) -> None:
        self._frames += 1
        timing_ms = result.timing_ms
        self._latencies_ms.append(timing_ms["total"] - timing_ms["wait"] - timing_ms["read"])
        drawn: list[Image] = []
        drawing = threading.Lock()

        def annotated() -> Image:
            with drawing:
                if not drawn:
                    from edgecnn.vision.drawing import draw

                    drawn.append(draw(frame.image, result))
            return drawn[0]

        for sink in self._sinks:
            sink.write(frame, result, annotated)
        if self._on_frame:
            self._on_frame(frame, result)

    def _summary(self) -> Summary:
        seconds = time.monotonic() - self._start
        latencies = np.array(self._latencies_ms)
        p50, p95 = np.percentile(latencies, (50, 95)).round(3).tolist() if len(latencies) else (None, None)
        return Summary(
            frames=self._frames,
            dropped=self._dropped + self._source.dropped,
            fps=round(self._frames / seconds, 3) if seconds > 0 else 0.0,
            p50_ms=p50,
            p95_ms=p95,
            reconnects=self._source.reconnects,
            seconds=round(seconds, 3),
            skipped=self._source.skipped + self._unfit,
            failed=self._failed,
            restarts=self._supervised.restarts if self._supervised else 0,
        )

    def close(self, interrupts: Interrupts, failures: list[BaseException]) -> Summary:
        """Close every sink, also when one of them fails or hangs; adds what fails to ``failures``."""
        if self._manager:
            self._manager.stopping()
        summary = self._summary()
        for name, sink in zip(self._names, self._sinks):
            try:
                with interrupts.held():
                    sink.close(summary)
            except KeyboardInterrupt:
                log.warning("%s was not closed: interrupted again", name)
            except Exception as error:
                failures.append(error)
        return summary
