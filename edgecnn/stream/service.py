"""What systemd is told of a service: that it is ready, that it is alive, that it stops.

The protocol is sd_notify(3): datagrams of text to the socket that ``$NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

__all__ = ["ServiceManager"]


class ServiceManager:
    """Tells systemd how it goes; nothing where there is no systemd."""

    def __init__(self) -> None:
        """Look for systemd."""
        name = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        # twice in the time after which systemd takes it for dead: sd_watchdog_enabled(3)
        self._every_s = _microseconds("WATCHDOG_USEC") / 2e6
        self._told_s = 0.0

    def ready(self, status: str) -> None:
        """It has begun."""
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """It goes on; told often enough for the watchdog, and no oftener."""
        now = time.monotonic()
        if self._every_s and now - self._told_s >= self._every_s / 2:
            self._told_s = now
            self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """It ends."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        # systemd that is busy or does not listen is no reason to wait or stop
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.setblocking(False)
            end.sendto(text.encode(), self._address)


def _microseconds(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0
