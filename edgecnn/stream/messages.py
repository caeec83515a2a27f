"""What a program and the process that reads a source for it say to each other.

Over standard input comes an `Order` as a line of JSON, then a byte for each frame that is wanted. Over
standard output go messages: a `HEADER`, then as many bytes as it says, which are JSON or pixels. Where both
sides have a file in memory, pixels go into its slots instead, in turn.
"""

from __future__ import annotations

import struct

import msgspec

from edgecnn.stream.address import Address

__all__ = ["FRAME", "HEADER", "SAID", "SLOTS", "SLOT_BYTES", "Failed", "Opened", "Order", "Ready", "Said"]

# kind, bytes that follow, height, width, frames passed over since the last one, seconds of time.monotonic
HEADER = struct.Struct("<cIIIId")
FRAME, SAID = b"F", b"S"
# one is written while the other is read; a frame is never larger, and what is not written takes no memory
SLOTS, SLOT_BYTES = 2, 2**29


class Order(msgspec.Struct, frozen=True):
    """What to open.

    Attributes:
        address: The source.
        pipeline: To try first, through GStreamer.
        timeout_s: How long its network may take to answer.
        memory: The file descriptor of memory for frames; None where they go through the pipe.
    """

    address: Address
    pipeline: str | None
    timeout_s: float
    memory: int | None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Everything is loaded: from now on it is the source that takes its time."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The source has given a picture.

    Attributes:
        fps: As it says; None where it says nothing plausible.
        frames: How many it has, as it says; None of what has no end, and where a file says nothing.
        ends: It has an end, and none of its frames may be lost.
    """

    fps: float | None
    frames: int | None
    ends: bool


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The source cannot be opened, or gives no more frames; ``ended`` where that is its end."""

    reason: str
    ended: bool = False


Said = Ready | Opened | Failed
