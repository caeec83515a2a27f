"""Reading, predicting and what is done with the results, at the same time and in order."""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace

from edgecnn.errors import EngineError
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Source
from edgecnn.stream.capture import Capture, Captured, read

__all__ = ["OnStuck", "Pipeline", "Predict", "Prediction", "open_pipeline"]

Predict = Callable[[Image], Result]
OnStuck = Callable[[float, str], None]

# a prediction is stuck when it takes so much longer than any before, and at least so long; the first one
# may have to wait for an engine that is built or warmed up
STUCK_S, STUCK_TIMES, STUCK_FIRST_S = 10.0, 5.0, 120.0
WATCH_S = 0.25


@dataclass(frozen=True, eq=False)
class Prediction:
    """A frame and what came of it.

    Attributes:
        frame: The frame.
        future: Done: its result, or what the predictor raised.
    """

    frame: Frame
    future: Future[Result]

    def result(self) -> Result:
        """Give the result; its ``timing_ms`` has ``read``, ``wait`` and ``total`` too.

        Raises:
            EdgeCnnError: What the predictor raised.
        """
        return self.future.result()


class Pipeline(ABC):
    """Gives the frames of a source with their results, in the source's order; a context manager.

    Attributes:
        dropped: Frames that were given up so far.
        ended: There are no more.
    """

    dropped = 0
    ended = False

    @abstractmethod
    def take(self, deadline_s: float | None = None) -> Prediction | None:
        """Wait for the next frame with its result; None at the end of the source.

        Args:
            deadline_s: Wait no longer than to this time of ``time.monotonic``; then it is None too, and the
                next call goes on from there.

        Raises:
            EdgeCnnError: What the source raised.
        """

    def close(self) -> None:  # noqa: B027 (one that has no threads has nothing to stop)
        """Stop all threads; the source is left to its owner."""

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_pipeline(
    source: Source, predict: Predict, workers: int = 1, on_stuck: OnStuck | None = None
) -> Pipeline:
    """Let frames flow.

    While one frame is predicted, the next one is read, and the one before is the caller's: three threads
    of work, with ``workers`` more where several frames are predicted side by side. No more than
    ``2 * workers + 3`` frames of a source are held at a time, however slow the caller is. Frames of an
    iterable are not read ahead, so they are predicted one by one when the caller asks for them.

    Args:
        source: Where frames come from.
        predict: Gives the result of a frame, uint8 (H, W, 3) BGR; called from other threads.
        workers: How many frames to predict side by side; 1 where one depends on the one before.
        on_stuck: Called when a prediction does not come back, with when it began and what to say; the frame
            gets an `EngineError`, and another worker takes the next one.
    """
    if not source.ahead:
        return _Serial(source, predict)
    return _Overlapped(source, predict, workers, on_stuck)


def _predicted(captured: Captured, predict: Predict) -> Result:
    start = time.perf_counter()
    result = predict(captured.frame.image)
    timing = {
        "read": captured.came_s - captured.asked_s,
        "wait": start - captured.came_s,
        "total": time.perf_counter() - captured.asked_s,
    }
    ms = {name: round(seconds * 1e3, 3) for name, seconds in timing.items()}
    return replace(
        result, timing_ms={"read": ms["read"], "wait": ms["wait"], **result.timing_ms, "total": ms["total"]}
    )


def _settle(future: Future[Result], captured: Captured, predict: Predict) -> None:
    try:
        result = _predicted(captured, predict)
    except BaseException as error:  # raised again where the result is asked for
        _end(future, error)
    else:
        _end(future, result)


def _end(future: Future[Result], outcome: Result | BaseException) -> None:
    with suppress(InvalidStateError):  # it was given up meanwhile
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


class _Serial(Pipeline):
    def __init__(self, source: Source, predict: Predict) -> None:
        self._source = source
        self._predict = predict

    def take(self, deadline_s: float | None = None) -> Prediction | None:
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return None
        captured = read(self._source)
        if captured is None:
            self.ended = True
            return None
        future: Future[Result] = Future()
        _settle(future, captured, self._predict)
        return Prediction(captured.frame, future)


class _Place:
    """Where a result will be."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self._pending = threading.Lock()
        self._pending.acquire()
        prediction.future.add_done_callback(lambda _: self._pending.release())

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it is there, and that once; False when it takes longer."""
        return self._pending.acquire(timeout=-1 if timeout_s is None else timeout_s)


class _Overlapped(Pipeline):
    """Workers take the frames in turn, and leave a place for each result before they begin with it.

    The caller may be interrupted at any moment. Between the steps of a semaphore or condition, which are
    written in Python, that leaves it locked for ever; what is shared with workers takes one step.
    """

    def __init__(self, source: Source, predict: Predict, workers: int, on_stuck: OnStuck | None) -> None:
        self._predict = predict
        self._places: queue.SimpleQueue[_Place | BaseException | None] = queue.SimpleQueue()
        self._next: _Place | BaseException | None = None
        # one frame more than are worked on: the one that the caller has
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(workers + 1):
            self._room.put(None)
        self._callers = False
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._capture = Capture(source, workers + 1)
        self._working: dict[threading.Thread, tuple[Future[Result], float, float]] = {}
        # counted by whoever watches, look by look: time in which this program is stopped (Ctrl-Z) is no time
        self._watched_s = 0.0
        self._longest_s = 0.0
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self._add_worker()
        self._on_stuck = on_stuck
        if on_stuck is not None:
            threading.Thread(target=self._watch, args=(on_stuck,), name="watch", daemon=True).start()

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self._capture.dropped

    def take(self, deadline_s: float | None = None) -> Prediction | None:
        if self.ended:
            return None
        if self._callers:
            self._callers = False
            self._room.put(None)
        if self._next is None:
            try:
                self._next = self._places.get(timeout=_left(deadline_s))
            except queue.Empty:
                return None
        if isinstance(self._next, _Place) and not self._next.wait(_left(deadline_s)):
            return None
        place, self._next = self._next, None
        if isinstance(place, _Place):
            self._callers = True
            return place.prediction
        self.ended = True
        if place is not None:
            raise place
        return None

    def close(self) -> None:
        self._closed.set()
        self._capture.close()
        for _ in self._threads:
            self._room.put(None)
        # without somebody to replace it, an engine that hangs is waited for: it may not be closed under it
        end_s = None if self._on_stuck is None else time.monotonic() + STUCK_S
        for thread in list(self._threads):
            thread.join(_left(end_s))

    def _add_worker(self) -> None:
        thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            self._room.get()  # before the frame is taken: of a camera, it shall be the newest one then
            with self._turn:
                captured = None if self._closed.is_set() else self._take()
                if captured is None:
                    return
                future: Future[Result] = Future()
                self._places.put(_Place(Prediction(captured.frame, future)))
            begun_s = self._watched_s
            self._working[me] = future, time.monotonic(), begun_s
            _settle(future, captured, self._predict)
            if self._working.pop(me, None) is None:  # another worker has its place by now
                return
            self._longest_s = max(self._longest_s, self._watched_s - begun_s + WATCH_S)

    def _take(self) -> Captured | None:
        try:
            captured = self._capture.take()
        except BaseException as error:
            self._places.put(error)
            return None
        if captured is None:
            self._places.put(None)
        return captured

    def _watch(self, on_stuck: OnStuck) -> None:
        """Strike off workers that do not come back; threads cannot be ended."""
        while not self._closed.wait(WATCH_S):
            self._watched_s += WATCH_S
            limit_s = max(STUCK_S, STUCK_TIMES * self._longest_s) if self._longest_s else STUCK_FIRST_S
            for thread, (future, asked_s, begun_s) in list(self._working.items()):
                if self._watched_s - begun_s <= limit_s or self._working.pop(thread, None) is None:
                    continue
                self._threads.remove(thread)
                stuck = EngineError(f"a prediction did not come back within {limit_s:.0f} s")
                try:
                    on_stuck(asked_s, str(stuck))
                except EngineError as error:
                    stuck = error
                self._add_worker()
                _end(future, stuck)


def _left(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
