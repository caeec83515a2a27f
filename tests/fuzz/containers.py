"""Changes of video files that keep their form: boxes of an MP4, chunks of an AVI, elements of a Matroska file.

A part is damaged, dropped, repeated, moved or given a number that is extreme, and the lengths of all that it lies in
are right again, so that a parser comes to it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.fuzz.mutation import NUMBERS, damaged

__all__ = ["AVI", "MATROSKA", "MP4", "Form", "in_video", "written"]

MP4_HOLDING = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"}
# Segment, SeekHead, Info, Tracks, TrackEntry, Video, Cluster, BlockGroup, Cues, CuePoint
MATROSKA_HOLDING = {
    bytes.fromhex(number)
    for number in (
        "18538067",
        "114d9b74",
        "1549a966",
        "1654ae6b",
        "ae",
        "e0",
        "1f43b675",
        "a0",
        "1c53bb6b",
        "bb",
    )
}


@dataclass
class Part:
    """A piece of a container: its name, and its bytes or the parts in it."""

    name: bytes
    body: bytes | list[Part]


@dataclass(frozen=True)
class Form:
    """How a container is written: what parts some bytes hold, and a part as bytes."""

    read: Callable[[bytes], Iterator[Part]]
    write: Callable[[bytes, bytes], bytes]


def in_video(data: bytes, rng: random.Random) -> bytes:
    """A part somewhere in a video file is changed; what is of no form that is known stays as it is."""
    form = MP4 if data[4:8] == b"ftyp" else AVI if data[:4] == b"RIFF" else MATROSKA
    if form is MATROSKA and data[:4] != b"\x1a\x45\xdf\xa3":
        return data
    parts = list(form.read(data))
    # each level as often as any other: there are more frames than headers
    inside = parts
    while (deeper := [part.body for part in inside if isinstance(part.body, list)]) and rng.random() < 0.75:
        inside = rng.choice(deeper)
    if not inside:
        return data
    at = rng.randrange(len(inside))
    part, way = inside[at], rng.randrange(8)
    if way == 0:
        del inside[at]
    elif way == 1:
        inside[at:at] = [part] * rng.choice((1, 3, 200))
    elif way == 2:
        inside.insert(rng.randrange(len(inside)), inside.pop(at))
    elif isinstance(part.body, bytes):
        part.body = _numbered(part.body, rng) if way < 6 else damaged(part.body, rng)
    return written(parts, form)[: 1 << 18]


def _numbered(body: bytes, rng: random.Random) -> bytes:
    """A field, or two side by side as width and height are, takes an extreme number."""
    width = rng.choice((1, 2, 4, 8))
    place = rng.randrange(0, max(len(body) - width, 0) + 1, min(width, 4))
    value = (rng.choice(NUMBERS) % 256**width).to_bytes(width, rng.choice(("little", "big")))
    value *= rng.choice((1, 2))
    return (body[:place] + value + body[place + len(value) :])[: max(len(body), width)]


def written(parts: list[Part], form: Form) -> bytes:
    """The file that parts make."""
    return b"".join(
        form.write(part.name, part.body if isinstance(part.body, bytes) else written(part.body, form))
        for part in parts
    )


def _boxes(data: bytes) -> Iterator[Part]:
    place = 0
    while place + 8 <= len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        body = data[place + 8 : place + length]
        yield Part(name, list(_boxes(body)) if name in MP4_HOLDING else body)
        place += max(length, 8)


def _box(name: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + name + body


def _chunks(data: bytes) -> Iterator[Part]:
    """The name of a list is that of the chunk and its own."""
    place = 0
    while place + 8 <= len(data):
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = data[place + 8 : place + 8 + length]
        if name in (b"RIFF", b"LIST"):
            yield Part(name + body[:4], list(_chunks(body[4:])))
        else:
            yield Part(name, body)
        place += 8 + length + length % 2


def _chunk(name: bytes, body: bytes) -> bytes:
    body = name[4:] + body
    return name[:4] + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


def _elements(data: bytes) -> Iterator[Part]:
    place = 0
    while place < len(data) and data[place]:
        name = data[place : place + 9 - data[place].bit_length()]
        place += len(name)
        if place >= len(data) or not data[place]:
            return
        width = 9 - data[place].bit_length()
        length = int.from_bytes(data[place : place + width], "big") - (1 << 7 * width)
        body = data[place + width : place + width + length]
        yield Part(name, list(_elements(body)) if name in MATROSKA_HOLDING else body)
        place += width + length


def _element(name: bytes, body: bytes) -> bytes:
    return name + ((1 << 56) + len(body)).to_bytes(8, "big") + body


MP4, AVI, MATROSKA = Form(_boxes, _box), Form(_chunks, _chunk), Form(_elements, _element)
