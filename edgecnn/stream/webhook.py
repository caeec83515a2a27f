"""Results over HTTP: a POST of a list of them."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Sequence

from edgecnn.stream.destination import Destination
from edgecnn.stream.outbox import TIMEOUT_S, Undelivered, reason
from edgecnn.stream.spool import Record
from edgecnn.stream.tls import trusted

__all__ = ["PORTS", "Webhook"]

PORTS = {"http": 80, "https": 443}
ANSWER_BYTES_MAX = 2**16


class Webhook:
    """Posts records as a JSON list, in the header ``Edgecnn-Sequence`` the number of the first one.

    The connection is kept. Any answer from 200 to 299 is taken for "arrived"; redirects are not followed.
    """

    kind = "webhook"

    def __init__(self, destination: Destination, timeout_s: float = TIMEOUT_S) -> None:
        """Prepare it; nothing is sent.

        Args:
            destination: Of one of `PORTS`.
            timeout_s: How long the server may take to connect, and between any two bytes of its answer.

        Raises:
            InputError: What ``$SSL_CERT_FILE`` names holds no certificates.
        """
        self.name = destination.shown
        self._trusted = trusted() if destination.scheme == "https" else None
        self._destination = destination
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._headers = {"Content-Type": "application/json", "User-Agent": "edgecnn"}
        if destination.user is not None:
            pair = f"{destination.user}:{destination.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"

    def send(self, records: Sequence[Record]) -> None:
        """Post records.

        Raises:
            Undelivered: The server cannot be reached, is too slow, or does not answer with 2xx.
        """
        body = b"[" + b",".join(record.data for record in records) + b"]"
        headers = {**self._headers, "Edgecnn-Sequence": str(records[0].number)}
        kept = self._connection is not None
        try:
            try:
                status = self._post(body, headers)
            except (ConnectionError, http.client.BadStatusLine):
                if not kept:
                    raise
                # servers close connections that are idle, which says nothing of how they are
                status = self._post(body, headers)
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # of a name that no host can have
            raise Undelivered(reason(error)) from error
        if not 200 <= status < 300:
            raise Undelivered(f"answers with {status}")

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        connection = self._connection = self._connection or self._open()
        keep = False
        try:
            connection.request("POST", self._destination.path or "/", body, headers)
            answer = connection.getresponse()
            answer.read(ANSWER_BYTES_MAX)
            keep = answer.isclosed() and 200 <= answer.status < 300
            return answer.status
        finally:
            if not keep:
                self.close()

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._destination.host, self._destination.port
        if self._trusted is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._trusted)
