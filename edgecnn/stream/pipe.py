"""Frames that another program writes into standard input."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from edgecnn.errors import InputError, MediaError
from edgecnn.stream.base import Frame, Image, Source

__all__ = ["PipeSource"]

POLL_S = 0.2
SIDE_MAX = 2**15


class PipeSource(Source):
    """Raw frames, uint8 BGR, row by row, one after the other: ``ffmpeg -f rawvideo -pix_fmt bgr24 -``.

    The writer waits until there is room for a frame; none is lost. It ends with the writer; a frame of which
    a part is missing then is an error.
    """

    name = "stdin"

    def __init__(self, size_hw: tuple[int, int] | None, file: BinaryIO | None = None) -> None:
        """Take the frames' height and width, and the file they come from; None is standard input.

        Raises:
            InputError: No size, or none that frames have; or standard input is a keyboard.
        """
        if size_hw is None:
            raise InputError("source -: raw frames do not tell their size; give it, as --frame-size 640x480")
        if not all(1 <= side <= SIDE_MAX for side in size_hw):
            raise InputError(
                f"source -: frames of {size_hw[1]}x{size_hw[0]}; sides are 1 to {SIDE_MAX} pixels"
            )
        self._file = sys.stdin.buffer if file is None else file
        if self._file.isatty():
            raise InputError("source -: nothing is written into standard input; pipe raw frames into it")
        self._size_hw = size_hw
        self._ending = threading.Event()
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        index = 0
        while (image := self._next(index)) is not None:
            yield Frame(index, image, 0.0, self.name)
            index += 1

    def _next(self, index: int) -> Image | None:
        image = np.empty((*self._size_hw, 3), np.uint8)
        room = image.data.cast("B")
        while room:
            if not self._ready():
                return None
            count = os.readv(self._file.fileno(), [room])
            if count == 0 and len(room) == image.nbytes:
                return None
            if count == 0:
                missing = f"{len(room)} of {image.nbytes} bytes are missing"
                raise MediaError(f"stdin: ended within frame {index} ({missing}); check --frame-size")
            room = room[count:]
        return image

    def _ready(self) -> bool:
        """Wait for bytes; False when it is closed."""
        while not self._ending.is_set():
            if select.select([self._file], [], [], POLL_S)[0]:
                return True
        return False

    def close(self) -> None:
        """Read no longer."""
        self._ending.set()
        super().close()
