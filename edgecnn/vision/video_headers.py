"""How many samples an MP4 or QuickTime file claims to hold, read before a decoder makes room for them.

FFmpeg makes an index of all of them when it opens a file: a kilobyte that claims 100 million takes gigabytes.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

__all__ = ["claimed_samples"]

# boxes of ISO/IEC 14496-12 that hold boxes, on the way to those that count
_HOLDING = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_RUNS = frozenset({b"stts", b"ctts"})
# where the count stands, behind version and flags
_COUNTED = {b"stsz": 8, b"stz2": 8, b"trun": 4}
_BOXES_MAX = 1 << 18
# of a table of runs, as many are added up as a day of video without two alike
_RUNS_MAX = 1 << 22


def claimed_samples(file: BinaryIO, size: int) -> int:
    """Samples of the track or fragment that claims most; 0 where the file is of another kind.

    Args:
        file: A file, anywhere in it.
        size: Its size in bytes.
    """
    most = 0
    waiting = [(0, size)]
    for _ in range(_BOXES_MAX):
        while waiting and waiting[-1][0] + 8 > waiting[-1][1]:
            waiting.pop()
        if not waiting:
            break
        place, end = waiting.pop()
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            continue
        length, kind = struct.unpack_from(">I4s", head)
        start = place + 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
            start += 8
        stop = min(place + length, end) if length else end
        if place + length < start and length:
            continue
        waiting.append((stop, end))
        if kind in _HOLDING:
            waiting.append((start, stop))
        elif kind in _COUNTED or kind in _RUNS:
            most = max(most, _claimed(file, kind, start, stop))
    return most


def _claimed(file: BinaryIO, kind: bytes, start: int, stop: int) -> int:
    if kind in _COUNTED:
        file.seek(start + _COUNTED[kind])
        return int.from_bytes(file.read(4), "big")
    file.seek(start + 8)
    table = np.frombuffer(file.read(max(0, min(stop - start - 8, 8 * _RUNS_MAX)) // 8 * 8), ">u4")
    return int(table[: len(table) // 2 * 2 : 2].sum(dtype=np.int64))
