"""A small HTTP server that nobody can bring to a stop: limits on clients, on bytes and on time."""

from __future__ import annotations

import errno
import io
import logging
import socket
import socketserver
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from edgecnn.errors import InputError, Unavailable, first_line
from edgecnn.web.access import Place

__all__ = ["CONNECTIONS_MAX", "Handler", "Server"]

log = logging.getLogger(__name__)

# a browser keeps one for a viewer, and opens another now and then
CONNECTIONS_MAX = 64
# more than that are told so, and even more are cut
TURNED_AWAY_MAX = 16
HEAD_BYTES_MAX = 8192
HEAD_S = 5.0
IDLE_S = 15.0
SEND_S = 10.0
CLOSE_S = 5.0
POLL_S = 0.2


class Server(socketserver.TCPServer):
    """Listens, and serves every connection in a thread; `close` ends them all."""

    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, place: Place, handler: Callable[..., Handler]) -> None:
        """Begin to serve.

        Args:
            place: Where to listen.
            handler: Makes the handler of a connection.

        Raises:
            Unavailable: The port is taken.
            InputError: It cannot be listened on.
        """
        if ":" in place.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((place.host, place.port), cast(Any, handler))
        except (OSError, UnicodeError) as error:
            raise _refused(place, error) from error
        self.port = int(self.server_address[1])
        self._lock = threading.Lock()
        self._closed = False
        self._threads: dict[socket.socket, threading.Thread] = {}
        self._welcome: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self.serve_forever, args=(POLL_S,), name="web", daemon=True)
        self._accepting.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; where no more files can be opened, not at once again."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, if there are not too many."""
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="web viewer", daemon=True
        )
        with self._lock:
            if self._closed or len(self._threads) >= CONNECTIONS_MAX + TURNED_AWAY_MAX:
                self.shutdown_request(request)
                return
            self._threads[request] = thread
            if len(self._welcome) < CONNECTIONS_MAX:
                self._welcome.add(request)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._forget(request)

    def welcomes(self, request: socket.socket) -> bool:
        """Whether there was room when this connection came."""
        return request in self._welcome

    def close(self) -> None:
        """Stop listening, cut all connections and wait for their threads."""
        with self._lock:
            self._closed = True
        self.shutdown()
        self.server_close()
        self._accepting.join()
        with self._lock:
            threads = dict(self._threads)
        for request in threads:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
        end_s = time.monotonic() + CLOSE_S
        for thread in threads.values():
            thread.join(max(end_s - time.monotonic(), 0))

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError as error:  # the client is gone, or too slow
            log.debug("a viewer: %s", first_line(error))
        except Exception:
            log.exception("the web view failed to answer")
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._threads.pop(request, None)
            self._welcome.discard(request)
        self.shutdown_request(request)


class Handler(BaseHTTPRequestHandler):
    """Reads requests without a body, one after the other, within limits; a subclass answers them."""

    protocol_version = default_request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    @abstractmethod
    def answer(self) -> None:
        """Answer ``self.command`` on ``self.path`` through `send`."""

    def setup(self) -> None:
        """Read from the socket itself: only so a request as a whole can have a time limit."""
        super().setup()
        self.rfile.close()
        self._read = b""
        # for errors that come before a request can be parsed
        self.command, self.request_version = "", self.protocol_version

    def handle_one_request(self) -> None:
        """Read a request and have it answered."""
        head = self._head()
        self.close_connection = not head
        if not head:
            return
        self.rfile = io.BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if not self.parse_request():
            return
        if not self.server.welcomes(self.connection):
            self.close_connection = True
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many are looking; try again later")
        elif self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request has no body here")
        else:
            self.answer()

    def send(self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str]) -> None:
        """Answer a request; of HEAD, with the headers alone.

        Args:
            status: Of the answer.
            kind: The media type.
            body: What was asked for.
            headers: More headers.
        """
        self.connection.settimeout(SEND_S)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with a line of text, and close the connection: what was sent may not have been read."""
        self.close_connection = True
        status = HTTPStatus(code)
        text = f"{status.value} {status.phrase}: {message or status.description}\n"
        self.send(status, "text/plain; charset=utf-8", text.encode("utf-8", "replace"), self.error_headers())

    def error_headers(self) -> dict[str, str]:
        """The headers of an error."""
        return {}

    def version_string(self) -> str:
        """Name the server without the versions of anything."""
        return "edgecnn"

    def log_request(self, code: int | str = "", size: int | str = "") -> None:
        """Keep requests out of the log: they may hold the token."""

    def _head(self) -> bytes:
        """Bytes up to the blank line; empty where they do not come."""
        end_s: float | None = None
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            if len(self._read) > HEAD_BYTES_MAX:
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return b""
            left_s = IDLE_S if end_s is None else end_s - time.monotonic()
            if left_s <= 0:
                return b""
            self.connection.settimeout(left_s)
            data = self.connection.recv(HEAD_BYTES_MAX)
            if not data:
                return b""
            self._read += data
            end_s = end_s or time.monotonic() + HEAD_S
        head, self._read = self._read[: end + 4], self._read[end + 4 :]
        return head


def _refused(place: Place, error: OSError | UnicodeError) -> Unavailable | InputError:
    where = f"--web {place.host}:{place.port}"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return Unavailable(f"{where}: the port is in use; take another one")
    if number == errno.EACCES:
        return InputError(f"{where}: not allowed; take a port above 1023")
    reason = getattr(error, "strerror", None) or first_line(error)
    return InputError(f"{where}: cannot be listened on ({reason}); give an address of this machine")
