"""Counters of a stream for Prometheus, over HTTP."""

from __future__ import annotations

import logging
import socket
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import accumulate
from socketserver import TCPServer

from edgecnn.errors import InputError, Unavailable
from edgecnn.results import Classification, Detections, Result
from edgecnn.stream.base import Frame, Image, Source, SourceEvent, Summary
from edgecnn.stream.outbox import Outbox, reason
from edgecnn.stream.spool import Spool

__all__ = ["Metrics", "parse_place"]

log = logging.getLogger(__name__)

CLIENT_S = 2.0
POLL_S = 0.1
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SPOOL: list[tuple[str, str, str, Callable[[Spool], int]]] = [
    ("spool_bytes", "gauge", "What waits on disk for a server.", lambda spool: spool.size_bytes),
    ("spool_lines", "gauge", "Lines that wait for a server.", lambda spool: spool.waiting),
    ("spool_given_up_total", "counter", "Lines given up.", lambda spool: spool.given_up),
]


class Metrics:
    """A sink that counts, and answers ``GET /metrics`` in Prometheus' text format, one client at a time.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, place: tuple[str, int], source: Source, outboxes: Sequence[Outbox] = ()) -> None:
        """Begin to listen.

        Args:
            place: Host and port; port 0 is one that is free.
            source: Where frames come from.
            outboxes: Whose spools are to be told of.

        Raises:
            Unavailable: The port is taken, or the host is not of this machine.
        """
        self._source = source
        self._outboxes = outboxes
        self._counting = threading.Lock()
        self._frames: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._reconnects: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._up = {member.name: True for member in source.members}
        self._live = {member.name for member in source.members if member.live}
        self._latest: dict[str, int] = {}
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0
        self._server = _listen(place, self.text)
        self.port = self._server.server_port
        threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="metrics", daemon=True
        ).start()

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Count one frame."""
        timing_ms = result.timing_ms
        seconds = (timing_ms["total"] - timing_ms["wait"] - timing_ms["read"]) / 1e3
        # the files of a folder are no sources of their own: there may be millions
        name = frame.source if frame.source in self._up else self._source.name
        with self._counting:
            self._frames[name] += 1
            if name in self._live:
                # a number that is left out is that of a frame that was given up
                self._dropped[name] += max(frame.index - self._latest.get(name, -1) - 1, 0)
                self._latest[name] = frame.index
            self._found.update(_labels(result))
            self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
            self._seconds += seconds

    def note(self, event: SourceEvent) -> None:
        """Count what happened to a live source; called in the thread that reads it."""
        with self._counting:
            self._up[event.source] = event.state == "back"
            self._reconnects[event.source] += event.state == "back"

    def close(self, summary: Summary) -> None:
        """Listen no longer."""
        ending = threading.Thread(target=self._server.shutdown, daemon=True)
        ending.start()
        ending.join(CLIENT_S)  # a client may send its question letter by letter
        if not ending.is_alive():
            self._server.server_close()

    def text(self) -> str:
        """All that was counted, as Prometheus reads it."""
        with self._counting:
            lines = [
                *_family("frames_total", "counter", "Frames that were processed.", "source", self._frames),
                *_family(
                    "dropped_total", "counter", "Frames given up for newer ones.", "source", self._dropped
                ),
                *_family(
                    "reconnects_total", "counter", "Sources that came back.", "source", self._reconnects
                ),
                *_family("source_up", "gauge", "1, and 0 while a source is lost.", "source", self._up),
                *_family("found_total", "counter", "Objects found, or best classes.", "label", self._found),
                *self._histogram(),
            ]
        for name, kind, what, value in SPOOL:
            of = {outbox.delivery.kind: value(outbox.spool) for outbox in self._outboxes}
            lines += _family(name, kind, what, "sink", of)
        return "".join(f"{line}\n" for line in lines)

    def _histogram(self) -> Iterator[str]:
        yield from _head("prediction_seconds", "histogram", "What a frame's prediction took.")
        for limit, count in zip((*BUCKETS_S, "+Inf"), accumulate(self._buckets)):
            yield f'edgecnn_prediction_seconds_bucket{{le="{limit}"}} {count}'
        yield f"edgecnn_prediction_seconds_sum {self._seconds:.6f}"
        yield f"edgecnn_prediction_seconds_count {sum(self._buckets)}"


def parse_place(text: str) -> tuple[str, int]:
    """Take ``[HOST:]PORT`` apart; without a host it is this machine's own, which others cannot reach.

    Raises:
        InputError: It is none.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InputError(
            f"--metrics {text}: give a port, or HOST:PORT for others to reach it, as 0.0.0.0:9100"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def _labels(result: Result) -> tuple[str, ...]:
    if isinstance(result, Detections):
        return result.labels
    return result.labels[:1] if isinstance(result, Classification) else ()


def _listen(place: tuple[str, int], text: Callable[[], str]) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_S

        def do_GET(self) -> None:
            known = self.path.split("?")[0] == "/metrics"
            body = text().encode() if known else b"only /metrics is here\n"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET

        def server_bind(self) -> None:
            # HTTPServer asks for the host's full name, which takes seconds where no name server answers
            TCPServer.server_bind(self)
            self.server_name, self.server_port = place[0], self.socket.getsockname()[1]

        def handle_error(self, *arguments: object) -> None:
            log.debug("a client of the metrics went away")

    try:
        return Server(place, Handler)
    except (OSError, UnicodeError) as error:  # the second of a name that no host can have
        raise Unavailable(
            f"--metrics {place[0]}:{place[1]}: cannot listen there ({reason(error)}); choose another place"
        ) from error


def _family(name: str, kind: str, what: str, label: str, values: Mapping[str, int]) -> Iterator[str]:
    if values:
        yield from _head(name, kind, what)
    for key, value in values.items():
        yield f'edgecnn_{name}{{{label}="{_escaped(key)}"}} {int(value)}'


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP edgecnn_{name} {what}"
    yield f"# TYPE edgecnn_{name} {kind}"


def _escaped(value: str) -> str:
    # a file's name need not be valid UTF-8, but this text has to be
    text = value.encode("utf-8", "replace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
