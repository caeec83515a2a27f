"""SIGINT, SIGTERM and SIGHUP that wait while an output is being written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]

# SIGHUP: the terminal went away; there is none on Windows
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """Turns the signals into `KeyboardInterrupt`, at once or at the end of a `held` block.

    It is raised once; afterwards, and after `end`, a signal is only noted, so that nothing comes
    between the outputs and their closing. Only a `held` block that hangs can be broken then.

    Signals can be handled in the main thread only; in another one this does nothing.

    Attributes:
        came: A signal came.
        hung_up: SIGHUP came, of a service, which is not interrupted by it.
    """

    def __init__(self, *, service: bool = False) -> None:
        self.came = False
        self.hung_up = threading.Event()
        self._service = service
        self._ended = False
        self._holding = False
        self._waiting = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._handle) for number in SIGNALS if _heard(number)
            }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish the block first; a second signal does not wait any more.

        Raises:
            KeyboardInterrupt: A second signal came; or one came, and this is not the end yet.
        """
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._waiting and not self._ended:
            self._ended = True
            raise KeyboardInterrupt

    def end(self) -> None:
        """Interrupt nothing any more but `held` blocks, and those at the second signal from now on."""
        self._ended = True
        self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._service and signal.Signals(number).name == "SIGHUP":
            self.hung_up.set()
            return
        self.came = True
        if self._holding and not self._waiting:
            self._waiting = True
            return
        if self._ended and not self._holding:
            return
        self._ended = True
        raise KeyboardInterrupt


def _heard(number: signal.Signals) -> bool:
    """A hang-up that is ignored stays ignored: that is what nohup is for."""
    return number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
