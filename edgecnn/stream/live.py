"""A source that is opened again whenever it is lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import Literal

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream.address import Address, gstreamer_pipeline, has_gstreamer
from edgecnn.stream.base import Frame, Source, SourceEvent
from edgecnn.stream.camera import check_camera
from edgecnn.stream.reading import Lost, Reading
from edgecnn.stream.tls import trusted

__all__ = ["TIMEOUT_S", "Backoff", "LiveSource"]

log = logging.getLogger(__name__)

TIMEOUT_S = 4.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 4.0
CAMERA_FPS = 30.0


class Backoff:
    """How long to wait before each new try: twice as long each time, up to a limit, and never in step.

    Many devices that lose one server at the same time would otherwise all come back to it at once.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._next_s = FIRST_WAIT_S

    def reset(self) -> None:
        """Begin anew: it went well."""
        self._next_s = FIRST_WAIT_S

    def wait_s(self) -> float:
        """Seconds to wait now: between half and all of what it has come to."""
        wait = self._next_s * self._rng.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, LONGEST_WAIT_S)
        return wait


class LiveSource(Source):
    """A camera, a CSI sensor or a URL, read in a process of its own.

    That process is ended when no frame comes for some seconds, and when it dies, hangs or reports an error
    a new one opens the source again, as often as it takes. A URL of a file ends with the file.

    Attributes:
        reconnects: How often it was back after it had been lost.
    """

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        """Open it for the first time.

        Args:
            address: What to open.
            timeout_s: How long it may take to answer, and to give the next frame, before it counts as lost.

        Raises:
            DeviceUnavailable: It cannot be opened; says why.
            InputError: What ``$SSL_CERT_FILE`` names holds no certificates.
        """
        self.name = address.shown
        if address.kind == "camera":
            check_camera(int(address.where))
        if address.where.startswith("https:"):
            trusted()
        self._address = address
        self._pipeline = gstreamer_pipeline(address) if has_gstreamer() else None
        self._timeout_s = timeout_s
        self._ending = threading.Event()
        self._backoff = Backoff()
        self._reader = Reading()
        super().__init__()
        try:
            opened = self._reader.open(address, self._pipeline, timeout_s)
        except Lost as error:
            raise DeviceUnavailable(f"{self.name}: {error}") from error
        self.fps = opened.fps or CAMERA_FPS
        self.live = opened.frames is None
        self.frames_announced = opened.frames
        self._began_s = time.monotonic()

    def _read(self) -> Iterator[Frame]:
        index, lost_s = 0, None
        while not self._ending.is_set():
            try:
                image, came_s, passed = self._reader.next()
            except Lost as lost:
                if lost.ended or self._ending.is_set():
                    return
                if not self.live:
                    raise DeviceUnavailable(f"{self.name}: broke off after {index} frames ({lost})") from lost
                if lost_s is None:
                    lost_s = time.monotonic()
                    self._tell("lost", str(lost))
                self._reopen()
                continue
            if lost_s is not None:
                self.reconnects += 1
                self._tell("back", f"after {time.monotonic() - lost_s:.1f} s")
                self._backoff.reset()
                lost_s = None
            index += passed
            self.dropped += passed
            yield Frame(index, image, max(came_s - self._began_s, 0.0), self.name)
            index += 1

    def _reopen(self) -> None:
        """Try until the source opens or is closed."""
        while not self._ending.wait(self._backoff.wait_s()):
            self._reader.close()
            try:
                self._reader = Reading()
                if self._ending.is_set():  # by somebody who stopped the one before
                    return
                self._reader.open(self._address, self._pipeline, self._timeout_s)
            except (Lost, DeviceUnavailable) as error:
                log.info("%s: %s", self.name, error)
            else:
                return

    def _tell(self, state: Literal["lost", "back"], reason: str) -> None:
        log.warning("%s: %s (%s)", self.name, state, reason)
        event = SourceEvent(self.name, state, reason, time.time())
        for listener in self._listeners:
            listener(event)

    def _release(self) -> None:
        self._reader.close()

    def close(self) -> None:
        """End the process that reads; a frame that somebody waits for does not come."""
        self._ending.set()
        self._reader.stop()
        super().close()
