"""What an MP4 claims to hold, before FFmpeg makes room for it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import MediaError
from edgecnn.vision import VideoReader
from edgecnn.vision.video_headers import claimed_samples
from tests.fuzz.targets import CORPUS

MP4 = (CORPUS / "video" / "a.mp4").read_bytes()


def box(kind: bytes, *parts: bytes, wide: bool = False) -> bytes:
    body = b"".join(parts)
    if wide:
        return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body
    return struct.pack(">I4s", 8 + len(body), kind) + body


def claimed(data: bytes) -> int:
    return claimed_samples(io.BytesIO(data), len(data))


def movie(table: bytes, wide: bool = False) -> bytes:
    inner = box(b"stbl", box(b"free"), table)
    for kind in (b"minf", b"mdia", b"trak", b"moov"):
        inner = box(kind, inner, wide=wide)
    return box(b"ftyp", b"isom" + bytes(4)) + inner


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("table", "count"),
    [
        (box(b"stsz", struct.pack(">III", 0, 7, 1000)), 1000),
        (box(b"stz2", struct.pack(">III", 0, 8, 2**31)), 2**31),
        (box(b"stts", struct.pack(">II4I", 0, 2, 30, 1, 2**32 - 1, 1)), 2**32 + 29),
        (box(b"ctts", struct.pack(">II2I", 0, 1, 2**32 - 1, 1)), 2**32 - 1),
        (box(b"stsd", bytes(40)), 0),
    ],
)
def test_tables_are_found_where_they_stand(table: bytes, count: int, wide: bool) -> None:
    assert claimed(movie(table, wide)) == count


def test_fragments_claim_too() -> None:
    run = box(b"trun", struct.pack(">II", 0, 2**30))
    assert claimed(box(b"moof", box(b"mfhd", bytes(8)), box(b"traf", run))) == 2**30


def test_a_real_file_claims_what_it_holds(tmp_path: Path) -> None:
    assert claimed(MP4) == 4
    (tmp_path / "a.mp4").write_bytes(MP4)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(list(video)) == 4


@pytest.mark.parametrize("kind", [b"stsz", b"stts"])
def test_a_kilobyte_that_claims_gigabytes_is_refused(tmp_path: Path, kind: bytes) -> None:
    place = MP4.index(kind) + 12  # behind the kind, version and flags, and one number
    data = MP4[:place] + b"\x04\0\0\0" + MP4[place + 4 :]
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(
        MediaError, match=r"a\.mp4: its header claims 671088\d\d frames, more than 1053 bytes"
    ):
        VideoReader(tmp_path / "a.mp4")


@given(st.binary(max_size=300))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    assert claimed(data) >= 0
    assert claimed(struct.pack(">I4s", 0, b"moov") + data) >= 0
