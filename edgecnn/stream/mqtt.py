"""Results over MQTT: a message each, with quality of service 1."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from edgecnn.errors import InputError, require
from edgecnn.stream.destination import Destination
from edgecnn.stream.outbox import TIMEOUT_S, Undelivered, reason
from edgecnn.stream.spool import Record
from edgecnn.stream.tls import trusted

__all__ = ["PORTS", "Mqtt"]

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 30
TOPIC_BYTES_MAX = 65535


class Mqtt:
    """Publishes records to one topic; a record has arrived when the broker has acknowledged it.

    After any failure the next records go over a new connection, in a new session: what the broker did not
    acknowledge comes from the spool once more, and nothing from the client's own memory.
    """

    kind = "mqtt"

    def __init__(self, destination: Destination, timeout_s: float = TIMEOUT_S) -> None:
        """Prepare it; nothing is sent.

        Args:
            destination: Of one of `PORTS`; its path is the topic.
            timeout_s: How long the broker may take to connect, and to acknowledge what it was sent.

        Raises:
            InputError: The topic cannot be published to, or what ``$SSL_CERT_FILE`` names holds no
                certificates.
            MissingDependency: paho-mqtt is not installed.
        """
        self._paho = require("paho.mqtt.client", "serve")
        self.name = destination.shown
        self._destination = destination
        self._topic = _topic(destination)
        self._trusted = trusted() if destination.scheme == "mqtts" else None
        self._timeout_s = timeout_s
        self._client: Any = None
        # told by the client's own thread
        self._changed = threading.Condition()
        self._answer: Any = None
        self._lost = ""
        self._acknowledged: set[int] = set()

    def send(self, records: Sequence[Record]) -> None:
        """Publish records.

        Raises:
            Undelivered: The broker cannot be reached, refuses, goes away or is too slow.
        """
        try:
            if self._client is None:
                self._connect()
            self._publish(records)
        except Undelivered:
            self.close()
            raise
        except (OSError, ValueError) as error:  # the client raises both over what a broker sends
            self.close()
            raise Undelivered(reason(error)) from error

    def close(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connect(self) -> None:
        client = self._paho.Client(self._paho.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect_timeout = self._timeout_s
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        if self._destination.user is not None:
            client.username_pw_set(self._destination.user, self._destination.password)
        if self._trusted is not None:
            client.tls_set_context(self._trusted)
        self._answer, self._lost = None, ""
        client.connect(self._destination.host, self._destination.port, KEEPALIVE_S)
        self._client = client
        client.loop_start()
        self._wait(lambda: self._answer is not None, "no answer")
        if self._answer.is_failure:
            raise Undelivered(f"refuses ({self._answer})")

    def _publish(self, records: Sequence[Record]) -> None:
        self._acknowledged.clear()
        numbers = [self._client.publish(self._topic, record.data, qos=1).mid for record in records]
        try:
            self._wait(lambda: self._acknowledged.issuperset(numbers), "no acknowledgement")
        except Undelivered as error:
            missing = (at for at, number in enumerate(numbers) if number not in self._acknowledged)
            raise Undelivered(str(error), arrived=next(missing, len(records))) from error

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: done() or self._lost, self._timeout_s)
            if not done():
                raise Undelivered(self._lost or f"{what} within {self._timeout_s:g} s")

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._answer = reason
            self._changed.notify()

    def _on_publish(self, client: Any, data: Any, number: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._acknowledged.add(number)
            self._changed.notify()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._lost = f"connection lost ({reason})"
            self._changed.notify()


def _topic(destination: Destination) -> str:
    topic = unquote(destination.path.removeprefix("/"))
    if not topic or set("+#\0\ufffd") & set(topic) or len(topic.encode()) > TOPIC_BYTES_MAX:
        raise InputError("--mqtt: the URL needs a topic without + and # behind the host, as mqtt://host/door")
    return topic
