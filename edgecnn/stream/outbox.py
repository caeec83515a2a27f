"""Results that go over a network, through a spool on disk, so that no server can stop or slow a stream."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgecnn.errors import first_line
from edgecnn.paths import state_dir
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Source, SourceEvent, Summary
from edgecnn.stream.destination import Destination
from edgecnn.stream.jsonl import frame_line
from edgecnn.stream.live import Backoff
from edgecnn.stream.outputs import json_text
from edgecnn.stream.spool import Record, Spool
from edgecnn.stream.tls import refused

__all__ = ["SPOOL_MB", "TIMEOUT_S", "Delivery", "Outbox", "Undelivered", "open_spool", "reason"]

log = logging.getLogger(__name__)

SPOOL_MB = 64.0
TIMEOUT_S = 10.0
CLOSE_S = 3.0
BATCH = 100


class Undelivered(Exception):
    """Records did not arrive; says why.

    Attributes:
        arrived: How many of the first did.
    """

    def __init__(self, reason: str, arrived: int = 0) -> None:
        super().__init__(reason)
        self.arrived = arrived


def reason(error: Exception) -> str:
    """What an error of the system or of a library says, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return refused(error)
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


class Delivery(Protocol):
    """A way to a server, used in one thread.

    Attributes:
        kind: ``webhook`` or ``mqtt``.
        name: The server, without secrets.
    """

    kind: str
    name: str

    def send(self, records: Sequence[Record]) -> None:
        """Send records, in order; they have arrived when this returns.

        Raises:
            Undelivered: Not all of them did.
        """

    def close(self) -> None:
        """Let go of the connection."""


class Outbox:
    """A sink that sends what ``--json`` writes, from a thread of its own.

    Lines go to the spool, and from there to the server, at most 100 at a time. While a server does not
    take them, they are tried one at a time, after waits that double up to 4 s; none is skipped.

    Attributes:
        delivery: The way to the server.
        spool: What has not arrived.
    """

    def __init__(self, delivery: Delivery, spool: Spool) -> None:
        self.delivery = delivery
        self.spool = spool
        self._ending = threading.Event()
        self._told_of_loss = False
        self._thread = threading.Thread(target=self._run, name=delivery.kind, daemon=True)
        self._thread.start()

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Put one line into the spool."""
        self._put(frame_line(frame, result))

    def note(self, event: SourceEvent) -> None:
        """Put what happened to a live source into the spool; called in the thread that reads it."""
        self._put({"event": event.to_json()})

    def close(self, summary: Summary) -> None:
        """Wait for some seconds for what is left to arrive; the rest is sent by the next run."""
        self._put({"summary": summary.to_json()})
        self.spool.wait_until_taken(CLOSE_S)
        self._ending.set()
        left, lost = self.spool.waiting, self.spool.given_up
        self.spool.close()
        self._thread.join(CLOSE_S)
        if left:
            log.warning(
                "%s: %d lines wait in %s, for the next run", self.delivery.name, left, self.spool.folder
            )
        if lost:
            log.warning("%s: %d lines were given up", self.delivery.name, lost)

    def _put(self, line: dict[str, Any]) -> None:
        self.spool.append(json_text(line).encode())
        if self.spool.given_up and not self._told_of_loss:
            self._told_of_loss = True
            log.warning("%s: the spool or the disk is full, lines are given up", self.delivery.name)

    def _run(self) -> None:
        backoff, count = Backoff(), BATCH
        lost_s: float | None = None
        while not self._ending.is_set():
            records = self.spool.oldest(count, timeout_s=1.0)
            if not records:
                continue
            try:
                self.delivery.send(records)
            except Undelivered as error:
                if error.arrived:
                    self.spool.acknowledge(records[error.arrived - 1].number)
                if lost_s is None and not self._ending.is_set():
                    lost_s = time.monotonic()
                    log.warning("%s: %s; lines wait in %s", self.delivery.name, error, self.spool.folder)
                count = 1
                self._ending.wait(backoff.wait_s())
                continue
            self.spool.acknowledge(records[-1].number)
            count = min(2 * count, BATCH)
            backoff.reset()
            if lost_s is not None:
                log.warning("%s: back after %.1f s", self.delivery.name, time.monotonic() - lost_s)
                lost_s = None
        self.delivery.close()


def open_spool(
    kind: str, destination: Destination, source: Source, folder: str | None, max_mb: float
) -> Spool:
    """Open the spool that belongs to a destination and a source.

    Args:
        kind: Of the delivery.
        destination: Where its records go.
        source: Where they come from.
        folder: That all spools are in; if not given, ``~/.local/state/edgecnn/spool``.
        max_mb: What it may take on disk, in megabytes.

    Raises:
        InputError: Another program sends the same source's results there.
        Unavailable: It cannot be written.
    """
    sources = (member.name for member in source.members)
    parts = (kind, destination.shown, destination.path, *sources)
    name = f"{kind}-{hashlib.sha256(os.fsencode(chr(0).join(parts))).hexdigest()[:16]}"
    return Spool((Path(folder) if folder else state_dir() / "spool") / name, round(max_mb * 1e6))
