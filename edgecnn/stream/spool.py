"""Records that wait on disk until somebody has taken them: bounded, in order, and there after a restart."""

from __future__ import annotations

import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgecnn.errors import InputError, Unavailable
from edgecnn.paths import make_private

__all__ = ["Record", "Spool"]

RETRY_S = 1.0
SEGMENTS = 16  # of which the oldest is given up at once
# before the bytes of a record: its number, its length, and the CRC-32 of both and of the bytes
HEAD = struct.Struct("<QII")
NUMBER_AND_LENGTH = struct.Struct("<QI")
TAKEN = "taken"  # a record without bytes, numbered as the first that has not arrived
_NAME = re.compile(r"(\d{20})\.records")


@dataclass(frozen=True)
class Record:
    """Bytes with the number that they have for ever: the next one's is higher by one."""

    number: int
    data: bytes


@dataclass
class _Segment:
    path: Path
    first: int
    end: int  # the number after its last record
    size: int


class Spool:
    """A queue of records in a folder, each with its length and checksum; safe between two threads.

    One thread appends; another takes the oldest records and acknowledges them when they have arrived. What
    was not acknowledged is given again after a restart: each record arrives at least once, in order.

    Records are handed to the system at once, and survive SIGKILL. They are not synced, since that may
    stop a program for seconds on a memory card: a loss of power costs what the system has not written, on
    Linux some 30 seconds. A record that is torn or altered ends its file, and what is before it counts.

    When the folder would become larger than its limit, the oldest sixteenth of it is removed and counted.

    Attributes:
        folder: Where it is.
        given_up: How many records were removed, or could not be written, since it was opened.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open the folder, or make it; no other program can open it then.

        Args:
            folder: For this queue alone.
            max_bytes: That it may take on disk.

        Raises:
            InputError: It is in use.
            Unavailable: It cannot be written.
        """
        self.given_up = 0
        self.folder = folder
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._closed = False
        self._file: BinaryIO | None = None
        self._places: dict[int, int] = {}  # where some records are in their file
        try:
            make_private(folder)
            self._taken = _locked(folder / TAKEN)
            taken = next(_records(self._taken, HEAD.size), None)
            self._segments = list(_segments(folder))
        except OSError as error:
            raise Unavailable(f"spool {folder}: cannot be opened ({error.strerror})") from error
        first = self._segments[0].first if self._segments else 1
        self._oldest = max(first, taken.number if taken else 1)
        self._end = max([self._oldest, *(segment.end for segment in self._segments)])
        self._remove_taken()

    @property
    def waiting(self) -> int:
        """How many records have not been acknowledged."""
        with self._changed:
            return self._end - self._oldest

    @property
    def size_bytes(self) -> int:
        """What its files take."""
        with self._changed:
            return sum(segment.size for segment in self._segments)

    def append(self, data: bytes) -> bool:
        """Put a record at the end; False where it had to be given up, as on a full disk."""
        with self._changed:
            size = HEAD.size + len(data)
            if self._closed or size > self._max_bytes:
                self.given_up += 1
                return False
            if not self._segments or 0 < self._segments[-1].size > self._max_bytes // SEGMENTS - size:
                self._begin_segment()
            while self.size_bytes + size > self._max_bytes and len(self._segments) > 1:
                self._give_up(self._segments[0])
            segment = self._segments[-1]
            try:
                if self._file is None:
                    self._file = segment.path.open("ab", buffering=0)
                    self._file.truncate(segment.size)
                whole = self._file.write(_packed(Record(self._end, data))) == size
            except OSError:
                whole = False
            if not whole:
                self.given_up += 1
                self._close_file()  # opened again, it is cut to what is whole
                return False
            segment.size += size
            self._end = segment.end = self._end + 1
            self._changed.notify()
            return True

    def oldest(self, count: int, timeout_s: float) -> list[Record]:
        """Wait for records that were not acknowledged; gives the oldest of them, none after the time-out.

        Args:
            count: No more than so many; all from one file.
            timeout_s: How long to wait for the first.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self._closed, timeout_s)
                if self._closed or not self.waiting:
                    return []
                segment = next(segment for segment in self._segments if segment.end > self._oldest)
                first, size = max(self._oldest, segment.first), segment.size
            # outside the lock: a disk that is slow to read must not stop who appends
            try:
                found = self._read(segment, first, size, count)
            except FileNotFoundError:  # removed by hand, or given up meanwhile
                found = []
            except OSError:  # no more files can be opened, or the disk fails: it may be over the next time
                time.sleep(min(timeout_s, RETRY_S))
                return []
            if found:
                return found
            with self._changed:
                self._give_up(segment)

    def acknowledge(self, number: int) -> None:
        """Forget a record and all before it: they have arrived."""
        with self._changed:
            if self._closed or number < self._oldest:
                return
            self._oldest = number + 1
            # not renamed into place: torn by a loss of power, all that is there is given again
            with suppress(OSError):
                os.pwrite(self._taken.fileno(), _packed(Record(self._oldest, b"")), 0)
            self._remove_taken()
            self._changed.notify()

    def wait_until_taken(self, timeout_s: float) -> bool:
        """Wait until all records are acknowledged; False where that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting, timeout_s)

    def close(self) -> None:
        """Let go of the folder; who waits for records gets none."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._close_file()
            self._taken.close()
            self._changed.notify_all()

    def _read(self, segment: _Segment, first: int, size: int, count: int) -> list[Record]:
        found: list[Record] = []
        start = self._places.get(first, 0) if first > segment.first else 0
        with segment.path.open("rb") as file:
            end = file.seek(start)
            for record in _records(file, size):
                if record.number >= first:
                    found.append(record)
                else:
                    start = file.tell()
                end = file.tell()
                if len(found) == count:
                    break
            # what is read next: the same, where it did not arrive, or what is behind it
            self._places = {first: start, first + len(found): end}
        return found

    def _begin_segment(self) -> None:
        self._close_file()
        path = self.folder / f"{self._end:020d}.records"
        self._segments.append(_Segment(path, self._end, self._end, 0))

    def _give_up(self, segment: _Segment) -> None:
        if segment in self._segments:
            self.given_up += max(segment.end - max(self._oldest, segment.first), 0)
            self._oldest = max(self._oldest, segment.end)
            self._remove_taken()

    def _remove_taken(self) -> None:
        while self._segments and self._segments[0].end <= self._oldest:
            if len(self._segments) == 1:
                self._close_file()
            with suppress(OSError):  # what cannot be removed now is found again by the next run
                self._segments[0].path.unlink()
            del self._segments[0]

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _locked(path: Path) -> BinaryIO:
    import fcntl

    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(f"spool {path.parent}: is in use by another program; choose another one") from error
    return file


def _segments(folder: Path) -> Iterator[_Segment]:
    """What was left by an earlier run, oldest first; files without a whole record are removed."""
    for path in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
        first = end = int(path.stem)
        size = 0
        with path.open("rb") as file:
            for record in _records(file, path.stat().st_size):
                end, size = record.number + 1, file.tell()
        if size:
            yield _Segment(path, first, end, size)
        else:
            path.unlink()


def _records(file: BinaryIO, end: int) -> Iterator[Record]:
    """Read what is whole."""
    while len(head := file.read(HEAD.size)) == HEAD.size:
        number, length, checksum = HEAD.unpack(head)
        if length > end - file.tell():
            return
        data = file.read(length)
        if _checksum(number, data) != checksum:
            return
        yield Record(number, data)


def _packed(record: Record) -> bytes:
    return HEAD.pack(record.number, len(record.data), _checksum(record.number, record.data)) + record.data


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(NUMBER_AND_LENGTH.pack(number, len(data))))
