"""Which sinks speak with other machines; apart from the others, since few runs need what they load."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.stream.base import Source
from edgecnn.stream.destination import Destination, parse_destination
from edgecnn.stream.metrics import Metrics, parse_place
from edgecnn.stream.mqtt import PORTS as MQTT_PORTS
from edgecnn.stream.mqtt import Mqtt
from edgecnn.stream.outbox import SPOOL_MB, Delivery, Outbox, open_spool
from edgecnn.stream.webhook import PORTS as WEBHOOK_PORTS
from edgecnn.stream.webhook import Webhook

__all__ = ["open_metrics", "open_outboxes"]


def open_outboxes(
    source: Source,
    *,
    webhook: str | None = None,
    mqtt: str | None = None,
    spool: str | None = None,
    spool_mb: float = SPOOL_MB,
) -> list[Outbox]:
    """Open the sinks of ``--webhook`` and ``--mqtt``; each has a spool of its own.

    Args:
        source: Where the frames will come from; its events are sent, too.
        webhook: ``http://user:password@host:port/path``, or ``https``.
        mqtt: ``mqtt://user:password@host:port/topic``, or ``mqtts``.
        spool: The folder for the spools; if not given, ``~/.local/state/edgecnn/spool``.
        spool_mb: What each spool may take on disk, in megabytes.

    Raises:
        InputError: A URL cannot be used, or another program sends the results of this source there.
        Unavailable: paho-mqtt is not installed, or the folder cannot be written.
    """
    deliveries: list[tuple[Destination, Delivery]] = []
    if webhook is not None:
        destination = parse_destination(webhook, "--webhook", WEBHOOK_PORTS)
        deliveries.append((destination, Webhook(destination)))
    if mqtt is not None:
        destination = parse_destination(mqtt, "--mqtt", MQTT_PORTS)
        deliveries.append((destination, Mqtt(destination)))
    outboxes = []
    for destination, delivery in deliveries:
        outbox = Outbox(delivery, open_spool(delivery.kind, destination, source, spool, spool_mb))
        source.listen(outbox.note)
        outboxes.append(outbox)
    return outboxes


def open_metrics(place: str, source: Source, outboxes: Sequence[Outbox] = ()) -> Metrics:
    """Open the sink of ``--metrics``.

    Args:
        place: ``[HOST:]PORT``; without a host, only this machine can reach it.
        source: Where the frames will come from.
        outboxes: Whose spools are counted, too.

    Raises:
        InputError: It is no such place.
        Unavailable: The port is taken.
    """
    metrics = Metrics(parse_place(place), source, outboxes)
    source.listen(metrics.note)
    return metrics
