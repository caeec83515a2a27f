"""A process that reads a source, as the program that wants its frames sees it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, cast

import msgspec
import numpy as np

from edgecnn.errors import DeviceUnavailable, first_line
from edgecnn.isolation import child_environment
from edgecnn.stream.address import Address
from edgecnn.stream.base import Image
from edgecnn.stream.messages import FRAME, HEADER, SLOT_BYTES, SLOTS, Failed, Opened, Order, Ready, Said

__all__ = ["Lost", "Reading"]

# as -m has it, it would import what lies in the current folder
PROGRAM = (
    "-c",
    "import sys; sys.path[:] = filter(None, sys.path); from edgecnn.stream.reader import main; main()",
)
START_S = 60.0  # to load OpenCV from a card that is busy
OPEN_S = 10.0  # a sensor of a Jetson takes seconds to start
LOOK_S = 0.1
SAID_BYTES_MAX = 2**16


class Lost(Exception):
    """No more frames come from a source; says why.

    Attributes:
        ended: It is the end of a file, and not a loss.
    """

    def __init__(self, reason: str, *, ended: bool = False) -> None:
        super().__init__(reason)
        self.ended = ended


class Reading:
    """A source in a process of its own."""

    def __init__(self) -> None:
        """Start the process.

        Raises:
            DeviceUnavailable: It does not start.
        """
        self._timeout_s = 0.0
        self._slots = itertools.cycle(range(SLOTS))
        self._memory = _memory()
        try:
            self._process = _start(self._memory)
        except BaseException:
            _free(self._memory)
            raise
        # also where it is forgotten, and at the end of the program
        self._end = weakref.finalize(self, _end, self._process, self._memory)
        self._watch = _Watch(self._process)

    def open(self, address: Address, pipeline: str | None, timeout_s: float) -> Opened:
        """Open the source, and hear what it says of itself; the process ends where it does not open.

        Args:
            address: What to open.
            pipeline: Of GStreamer, to try first.
            timeout_s: How long it may take to answer, and between two frames.

        Raises:
            Lost: It does not open.
        """
        try:
            return self._open(address, pipeline, timeout_s)
        except BaseException:
            self.close()
            raise

    def _open(self, address: Address, pipeline: str | None, timeout_s: float) -> Opened:
        self._timeout_s = timeout_s
        self._send(msgspec.json.encode(Order(address, pipeline, timeout_s, self._memory)) + b"\n")
        import edgecnn.vision.opencv  # noqa: F401 (whoever takes frames needs it: the two load it side by side)

        with self._watch.limit(START_S, "its process does not start"):
            self._said(Ready)
        # OpenCV's own limits, for the answer and for the first picture, are met first where it keeps them
        limit_s = 2 * timeout_s + 1 if address.kind == "url" else max(timeout_s, OPEN_S)
        with self._watch.limit(limit_s, f"it does not answer within {limit_s:g} s"):
            opened = cast(Opened, self._said(Opened))
        # the next frame but one is wanted whatever happens; of a camera it would be an old one
        if opened.ends:
            self._send(b"n")
        return opened

    def next(self) -> tuple[Image, float, int]:
        """Wait for the next frame.

        Returns:
            uint8 (H, W, 3) BGR, its time on ``time.monotonic``, and how many were passed over before it.

        Raises:
            Lost: None comes, or none within the time that was given.
        """
        self._send(b"n")
        with self._watch.limit(self._timeout_s, f"no frame for {self._timeout_s:g} s"):
            kind, size, height, width, passed, came = HEADER.unpack(self._bytes(HEADER.size))
            if kind != FRAME:
                self._raise(self._decoded(size))
            if size != height * width * 3 or not 0 < size <= SLOT_BYTES:
                raise Lost(f"it gives frames of {width}×{height} that cannot be used")
            image = np.empty((height, width, 3), np.uint8)
            pixels, slot = image.data.cast("B"), next(self._slots)
            if self._memory is None:
                self._fill(pixels)
            elif os.preadv(self._memory, [pixels], slot * SLOT_BYTES) < size:
                raise Lost("its process gives less than a frame")
        return image, came, passed

    def stop(self) -> None:
        """Kill the process; who waits for a frame in another thread gets none."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process, whatever it is doing, and let go of its pipes."""
        self._end()

    def _send(self, data: bytes) -> None:
        pipe = cast(BinaryIO, self._process.stdin)
        with suppress(BrokenPipeError):  # why it has gone is read from the other pipe
            pipe.write(data)
            pipe.flush()

    def _said(self, wanted: type[Said]) -> Said:
        _, size, *_ = HEADER.unpack(self._bytes(HEADER.size))
        said = self._decoded(size)
        if not isinstance(said, wanted):
            self._raise(said)
        return said

    def _decoded(self, size: int) -> Said:
        try:
            said: Said = msgspec.json.decode(self._bytes(min(size, SAID_BYTES_MAX)), type=Said)
        except msgspec.MsgspecError as error:
            raise Lost("its process answers what cannot be understood") from error
        return said

    def _raise(self, said: Said) -> None:
        if isinstance(said, Failed):
            raise Lost(said.reason, ended=said.ended)
        raise Lost("its process answers in the wrong order")

    def _bytes(self, count: int) -> bytes:
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, room: memoryview) -> None:
        pipe = cast(BinaryIO, self._process.stdout)
        while room:
            count = pipe.readinto(room)  # type: ignore[attr-defined]
            if not count:
                raise Lost(self._watch.reason or "its process died")
            room = room[count:]


class _Watch:
    """Kills a process that takes too long.

    It looks a few times a second and is told nothing: no frame has to wake it, and time in which this program
    is stopped (Ctrl-Z) does not count.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.reason = ""
        self._process = process
        self._limit: tuple[float, str] | None = None
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    @contextmanager
    def limit(self, seconds: float, reason: str) -> Iterator[None]:
        """Kill the process for this reason when the block takes longer, by a look or two."""
        self._limit = (seconds, reason)
        try:
            yield
        finally:
            self._limit = None

    def _run(self) -> None:
        watched, waited_s = None, 0.0
        while self._process.returncode is None:  # that is, until somebody has waited for its end
            time.sleep(LOOK_S)
            limit = self._limit
            waited_s = waited_s + LOOK_S if limit is watched else 0.0
            watched = limit
            if limit is not None and waited_s >= limit[0]:
                self.reason = limit[1]
                self._process.kill()
                return


def _memory() -> int | None:
    """A file in memory for both processes, which is faster than a pipe; None where it cannot be had."""
    try:
        memory = os.memfd_create("edgecnn-frames")
    except (AttributeError, OSError):  # not Linux, or not allowed
        return None
    try:
        os.ftruncate(memory, SLOTS * SLOT_BYTES)  # there may be a limit of files' sizes
        os.ftruncate(memory, 0)
    except OSError:
        os.close(memory)
        return None
    return _above_standard(memory)


def _above_standard(descriptor: int) -> int:
    """The same file under a number that no child takes for its input or output, as 0 where that is closed."""
    if descriptor > 2:
        return descriptor
    import fcntl

    with os.fdopen(descriptor):
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _free(memory: int | None) -> None:
    if memory is not None:
        os.close(memory)


def _end(process: subprocess.Popen[bytes], memory: int | None) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            cast(BinaryIO, pipe).close()
    process.wait()
    _free(memory)


def _start(memory: int | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, *PROGRAM],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=() if memory is None else (memory,),
        )
    except OSError as error:
        raise DeviceUnavailable(
            f"a process for the source cannot be started ({first_line(error)})"
        ) from error
