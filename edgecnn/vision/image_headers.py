"""What the first bytes of an image file announce, read before anything is decoded.

OpenCV decodes a JPEG that is cut short into a half grey picture without a word, and reserves memory
for the size a file claims; both are seen here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["Header", "read_header"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# start of frame in all its coding variants; C4, C8 and CC are tables and reserved
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_SCAN = 0xDA


class Header(NamedTuple):
    """An image file before decoding.

    Attributes:
        kind: ``PNG`` or ``JPEG``.
        size_hw: Height and width in pixels as stored; None where they are not found.
        complete: The file goes on to the mark that ends the image.
    """

    kind: str
    size_hw: tuple[int, int] | None
    complete: bool


def read_header(data: bytes) -> Header | None:
    """Size and completeness of a PNG or JPEG; None for everything else."""
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(_JPEG):
        return _jpeg(data)
    return None


def _png(data: bytes) -> Header:
    """Chunks: length, type, data, checksum; IHDR is the first, IEND the last (PNG specification, 5)."""
    size_hw = None
    place = len(_PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IHDR" and length >= 8 and place + 16 <= len(data):
            width, height = struct.unpack_from(">II", data, place + 8)
            size_hw = (height, width)
        if kind == b"IEND":
            return Header("PNG", size_hw, complete=True)
        place += 12 + length
    return Header("PNG", size_hw, complete=False)


def _jpeg(data: bytes) -> Header:
    """Segments: FF, marker, length with itself; the scan runs on to the marker EOI (ITU-T T.81, B.1)."""
    size_hw = None
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in _JPEG_ALONE:
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in _JPEG_SIZES and place + 9 <= len(data):
            size_hw = struct.unpack_from(">HH", data, place + 5)
        place += 2 + length
        if marker == _JPEG_SCAN:
            return Header("JPEG", size_hw, complete=data.find(b"\xff\xd9", place) >= 0)
    return Header("JPEG", size_hw, complete=False)
