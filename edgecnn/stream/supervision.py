"""A predictor that outlives its engines: replaced when they fail, exchanged when a bundle is new."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgecnn.errors import EdgeCnnError, EngineError, first_line
from edgecnn.results import Result
from edgecnn.stream.base import Image

if TYPE_CHECKING:
    from edgecnn.predictor import Predictor

__all__ = ["RESTARTS_MAX", "RESTARTS_WITHIN_S", "Supervised", "TooManyRestarts"]

log = logging.getLogger(__name__)

RESTARTS_MAX, RESTARTS_WITHIN_S = 5, 60.0


class Supervised:
    """Runs frames through a predictor that may be replaced at any time. Thread-safe.

    A frame is answered by the predictor that was there when it came. One that was replaced is closed after
    the last of its frames; one that hangs is left to itself, since nothing can end it but the program's end.

    Attributes:
        restarts: How often a predictor was replaced because it failed.
    """

    def __init__(self, open_predictor: Callable[[], Predictor]) -> None:
        """Open the first one; errors are the caller's."""
        self._open = open_predictor
        self._changing = threading.Lock()
        self._current = _Shared(open_predictor())
        self._failures: deque[float] = deque(maxlen=RESTARTS_MAX)
        self.restarts = 0

    @property
    def predictor(self) -> Predictor:
        """The one that is there now."""
        return self._current.predictor

    def __call__(self, image: Image) -> Result:
        """Predict; an engine that fails over it is replaced before the error is raised.

        Raises:
            EngineError: The engine failed; or it did so too often, and is not replaced any more.
        """
        while True:
            shared = self._current
            with shared.used() as predictor:
                if predictor is None:  # it was replaced just now
                    continue
                begun_s = time.monotonic()
                try:
                    return predictor(image)
                except EngineError as error:
                    self.replace(begun_s, first_line(error))
                    raise

    def replace(self, begun_s: float, reason: str) -> None:
        """Put another predictor in the place of one that failed or hangs, unless that was done already.

        Args:
            begun_s: When the prediction began that shows it, on ``time.monotonic``.
            reason: For the log.

        Raises:
            EngineError: There were five of them within a minute.
            EdgeCnnError: Another one cannot be opened.
        """
        with self._changing:
            if self._current.since_s > begun_s:
                return
            now = time.monotonic()
            if len(self._failures) == RESTARTS_MAX and now - self._failures[0] < RESTARTS_WITHIN_S:
                often = f"{RESTARTS_MAX} times within {RESTARTS_WITHIN_S:g} s"
                raise TooManyRestarts(f"the engine was replaced {often}, and fails again ({reason})")
            self._failures.append(now)
            log.warning("the engine is replaced: %s", reason)
            self._exchange(self._open())
            self.restarts += 1

    def reload(self) -> bool:
        """Open the bundle again and take it; one that cannot be opened is refused, and the old one stays.

        Returns:
            Whether there is a new one.
        """
        with self._changing:
            try:
                opened = self._open()
            except (EdgeCnnError, OSError) as error:
                log.error("not reloaded, the old bundle stays: %s", error)
                return False
            self._exchange(opened)
        log.warning("reloaded %s", opened.bundle.path)
        return True

    def close(self) -> None:
        """Close the predictor, after the frames that it has."""
        with self._changing:
            self._current.retire()

    def __enter__(self) -> Supervised:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _exchange(self, opened: Predictor) -> None:
        old, self._current = self._current, _Shared(opened)
        old.retire()


class TooManyRestarts(EngineError):
    """An engine failed so often that it makes no sense to go on."""


class _Shared:
    """A predictor, closed when it is retired and nobody uses it any more."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.since_s = time.monotonic()
        self._lock = threading.Lock()
        self._users = 0
        self._retired = False

    @contextmanager
    def used(self) -> Iterator[Predictor | None]:
        """Keep it open within the block; None where it is retired."""
        with self._lock:
            if self._retired:
                predictor = None
            else:
                predictor = self.predictor
                self._users += 1
        try:
            yield predictor
        finally:
            if predictor is not None:
                with self._lock:
                    self._users -= 1
                self._close_if_unused()

    def retire(self) -> None:
        with self._lock:
            self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            unused = self._retired and self._users == 0
        if unused:
            self.predictor.close()
