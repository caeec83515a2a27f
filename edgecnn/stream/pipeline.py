"""Reading, predicting and what is done with the results, at the same time and in order."""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # another one than the built-in in Python 3.10
from dataclasses import dataclass, replace

from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Source
from edgecnn.stream.capture import Capture, Captured, read

__all__ = ["Pipeline", "Predict", "Prediction", "open_pipeline"]

Predict = Callable[[Image], Result]


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
    """Gives the frames of a source with their results, in the source's order; a context manager."""

    dropped = 0

    @abstractmethod
    def take(self, deadline_s: float | None = None) -> Prediction | None:
        """Wait for the next frame with its result; None at the end of the source.

        Args:
            deadline_s: Give up at this time of ``time.monotonic``, with None too.

        Raises:
            EdgeCnnError: What the source raised.
        """

    def close(self) -> None:  # noqa: B027 (one that has no threads has nothing to stop)
        """Stop all threads; the source is left to its owner."""

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_pipeline(source: Source, predict: Predict, workers: int = 1) -> Pipeline:
    """Let frames flow.

    While one frame is predicted, the next one is read, and the one before is the caller's: three threads
    of work, with ``workers`` more where several frames are predicted side by side. No more than
    ``2 * workers + 3`` frames are held at a time, however slow the caller is. Frames of an iterable are
    not read ahead, so they are predicted one by one when the caller asks for them.

    Args:
        source: Where frames come from.
        predict: Gives the result of a frame, uint8 (H, W, 3) BGR; called from other threads.
        workers: How many frames to predict side by side; 1 where one depends on the one before.
    """
    return _Overlapped(source, predict, workers) if source.ahead else _Serial(source, predict)


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
        future.set_result(_predicted(captured, predict))
    except BaseException as error:  # raised again where the result is asked for
        future.set_exception(error)


class _Serial(Pipeline):
    def __init__(self, source: Source, predict: Predict) -> None:
        self._source = source
        self._predict = predict

    def take(self, deadline_s: float | None = None) -> Prediction | None:
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return None
        captured = read(self._source)
        if captured is None:
            return None
        future: Future[Result] = Future()
        _settle(future, captured, self._predict)
        return Prediction(captured.frame, future)


class _Overlapped(Pipeline):
    """Workers take the frames in turn, and leave a place for each result before they begin with it."""

    def __init__(self, source: Source, predict: Predict, workers: int) -> None:
        self._predict = predict
        self._places: queue.SimpleQueue[Prediction | BaseException | None] = queue.SimpleQueue()
        # one frame more than are worked on: the one that the caller has
        self._room = threading.Semaphore(workers + 1)
        self._callers = False
        self._turn = threading.Lock()
        self._closed = False
        self._capture = Capture(source, workers + 1)
        self._threads = [
            threading.Thread(target=self._work, name=f"predict {number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self._capture.dropped

    def take(self, deadline_s: float | None = None) -> Prediction | None:
        if self._callers:
            self._callers = False
            self._room.release()
        try:
            place = self._places.get(timeout=_left(deadline_s))
            if isinstance(place, Prediction):
                place.future.exception(_left(deadline_s))
        except (queue.Empty, FutureTimeout):
            return None
        if place is None or isinstance(place, BaseException):
            self._places.put(None)
            if place is not None:
                raise place
            return None
        self._callers = True
        return place

    def close(self) -> None:
        self._closed = True
        self._capture.close()
        for _ in self._threads:
            self._room.release()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            self._room.acquire()  # before the frame is taken: of a camera, it shall be the newest one then
            with self._turn:
                captured = None if self._closed else self._take()
                if captured is None:
                    return
                future: Future[Result] = Future()
                self._places.put(Prediction(captured.frame, future))
            _settle(future, captured, self._predict)

    def _take(self) -> Captured | None:
        try:
            captured = self._capture.take()
        except BaseException as error:
            self._places.put(error)
            return None
        if captured is None:
            self._places.put(None)
        return captured


def _left(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
