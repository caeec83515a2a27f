"""What the first bytes of an image file announce, read before anything is decoded.

OpenCV decodes a JPEG that is cut short into a half grey picture without a word, and reserves memory
for the size a file claims; both are seen here. A file of no kind that is known here is not decoded: the
fewer decoders a stranger can choose from, the better.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

__all__ = ["Header", "read_header"]

# where a file is walked through part by part: more than any camera or program writes
PARTS_MAX = 1 << 18
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# start of frame in all its coding variants; C4, C8 and CC are tables and reserved
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_SCAN = 0xDA
# a progressive photo has about ten; each takes as long as the whole picture
_JPEG_SCANS_MAX = 100
_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d{1,9})(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})\s")
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 256, 257, 322, 323
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}


class Header(NamedTuple):
    """An image file before decoding.

    Attributes:
        kind: Name of the format, such as ``PNG``.
        size_hw: Height and width in pixels that a decoder makes room for; None where they are not found.
        complete: The file goes on to the mark that ends the image, where the format has one.
    """

    kind: str
    size_hw: tuple[int, int] | None
    complete: bool = True


def read_header(data: bytes) -> Header | None:
    """Kind, size and completeness of a BMP, JPEG, PNG, PNM, TIFF or WebP; None for everything else."""
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data.startswith(b"BM"):
            return Header("BMP", _bmp_size(data))
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return Header("TIFF", _tiff_size(data))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return Header("WebP", _webp_size(data))
    except struct.error:  # it ends inside of the header
        return Header("image", None)
    if found := _PNM.match(data[:4096]):
        return Header("PNM", (int(found[2]), int(found[1])))
    return None


def _png(data: bytes) -> Header:
    """Chunks: length, type, data, checksum; IHDR is the first, IEND the last (PNG specification, 5)."""
    size_hw = None
    place = len(_PNG)
    for _ in range(PARTS_MAX):
        if place + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IHDR" and size_hw is None and length >= 8 and place + 16 <= len(data):
            width, height = struct.unpack_from(">II", data, place + 8)
            size_hw = (height, width)
        if kind == b"IEND":
            return Header("PNG", size_hw)
        place += 12 + length
    return Header("PNG", size_hw, complete=False)


def _jpeg(data: bytes) -> Header:
    """Segments: FF, marker, length with itself; the scan runs on to the marker EOI (ITU-T T.81, B.1)."""
    size_hw = None
    place = 2
    for _ in range(PARTS_MAX):
        if place + 4 > len(data) or data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in _JPEG_ALONE:
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in _JPEG_SIZES and size_hw is None and place + 9 <= len(data):
            size_hw = struct.unpack_from(">HH", data, place + 5)
        if marker == _JPEG_SCAN:
            if data.count(b"\xff\xda", place) > _JPEG_SCANS_MAX:
                return Header("JPEG", None)
            return Header("JPEG", size_hw, complete=data.find(b"\xff\xd9", place + 2 + length) >= 0)
        place += 2 + length
    return Header("JPEG", size_hw, complete=False)


def _bmp_size(data: bytes) -> tuple[int, int]:
    """BITMAPCOREHEADER has two shorts; all later headers two integers, the height below 0 from the top."""
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return abs(height), abs(width)


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """The first directory: entries of tag, type, count, value (TIFF 6.0, 2; BigTIFF has wider ones)."""
    order, big = "<" if data.startswith(b"II") else ">", data[2:4] in (b"+\0", b"\0+")
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), _slice(data, place, 8))
    place, step, value = place + (8 if big else 2), 20 if big else 12, 12 if big else 8
    found: dict[int, int] = {}
    for entry in range(place, place + step * min(count, 4096), step):
        tag, kind = struct.unpack_from(order + "HH", _slice(data, entry, 4))
        if kind in _TIFF_NUMBERS:
            (found[tag],) = struct.unpack_from(order + _TIFF_NUMBERS[kind], _slice(data, entry + value, 8))
    if _TIFF_WIDTH not in found or _TIFF_HEIGHT not in found:
        return None
    # a tile is decoded as a whole, however small the picture is
    return (
        max(found[_TIFF_HEIGHT], found.get(_TIFF_TILE_HEIGHT, 0)),
        max(found[_TIFF_WIDTH], found.get(_TIFF_TILE_WIDTH, 0)),
    )


def _slice(data: bytes, place: int, size: int) -> bytes:
    """Bytes at a place that a file names, which may be beyond any index."""
    return data[place : place + size]


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """The first chunk says how the picture is coded, and its size (RFC 9649, 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return height & 0x3FFF, width & 0x3FFF
    return None
