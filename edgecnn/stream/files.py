"""Sources that do not run away: images, folders, videos, arrays and iterables."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.paths import check_name
from edgecnn.stream.address import Address
from edgecnn.stream.base import Frame, Image, Source
from edgecnn.stream.reading import Lost, Reading

__all__ = ["ArraySource", "FolderSource", "ImageSource", "IterableSource", "VideoSource"]

log = logging.getLogger(__name__)

DEFAULT_FPS = 25.0
# how long a file may take to open, and to give the next frame, from the slowest of cards
VIDEO_TIMEOUT_S = 30.0


class ImageSource(Source):
    """One image file, read when it is opened."""

    frames_announced = 1

    def __init__(self, path: Path) -> None:
        """Read the image.

        Raises:
            MediaError: It cannot be read.
        """
        from edgecnn.vision.images import read_image

        self.name = str(path)
        self.paths = (path,)
        self._image = read_image(path)
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        yield Frame(0, self._image, 0.0, self.name)


class FolderSource(Source):
    """The images under a folder, sorted by path; those that cannot be read are skipped and counted."""

    def __init__(self, path: Path) -> None:
        """List the images.

        Raises:
            MediaError: There is none.
        """
        from edgecnn.vision.images import list_images

        self.name = str(path)
        self.root = path
        self.paths = tuple(list_images(path))
        self.frames_announced = len(self.paths)
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        from edgecnn.vision.images import read_image

        index = 0
        for path in self.paths:
            try:
                image = read_image(path)
            except MediaError as error:
                self.skipped += 1
                log.warning("skipped: %s", error)
                continue
            yield Frame(index, image, 0.0, str(path))
            index += 1
        if index == 0:
            raise MediaError(f"{self.name}: none of its {len(self.paths)} images can be read")


class VideoSource(Source):
    """A video file, read in a process of its own: FFmpeg is C, and a file may be made to harm it.

    Ends at the last frame that decodes, whatever the container announces.
    """

    def __init__(self, path: Path) -> None:
        """Open the video.

        Raises:
            InputError: Its name is not UTF-8.
            MediaError: It is no video, or the process died over it or took too long.
            DeviceUnavailable: A process cannot be started.
        """
        check_name(path)
        self.name = str(path)
        self.paths = (path,)
        self._ending = False
        self._reader = Reading()
        super().__init__()
        try:
            opened = self._reader.open(Address("file", self.name, self.name), None, VIDEO_TIMEOUT_S)
        except Lost as error:
            raise MediaError(f"{self.name}: {error}") from error
        self.fps = self._fps = opened.fps or DEFAULT_FPS
        self.frames_announced = opened.frames

    def _read(self) -> Iterator[Frame]:
        index = 0
        while True:
            try:
                image, *_ = self._reader.next()
            except Lost as lost:
                self._reader.close()
                if lost.ended or self._ending:
                    return
                raise MediaError(f"{self.name}: broke off after {index} frames ({lost})") from lost
            yield Frame(index, image, index / self._fps, self.name)
            index += 1

    def _release(self) -> None:
        self._reader.close()

    def close(self) -> None:
        """End the process that reads; a frame that somebody waits for does not come."""
        self._ending = True
        self._reader.stop()
        super().close()


class ArraySource(Source):
    """Frames that are in memory already."""

    name = "frames"

    def __init__(self, array: npt.NDArray[Any]) -> None:
        """Take an array (H, W, 3) or (n, H, W, 3), uint8 BGR; it is not copied.

        Raises:
            InputError: Another shape or dtype.
        """
        frames = array[None] if array.ndim == 3 else array
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise InputError(
                f"source: {array.dtype} {'×'.join(map(str, array.shape))}; "
                "frames are uint8 (height, width, 3) or (n, height, width, 3) BGR"
            )
        if len(frames) == 0:
            raise MediaError("source: the array holds no frame")
        self.frames_announced = len(frames)
        self._array = frames
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        for index, image in enumerate(self._array):
            yield Frame(index, image, 0.0, self.name)


class IterableSource(Source):
    """Frames of any iterable, taken one at a time."""

    name = "frames"
    ahead = False

    def __init__(self, frames: Iterable[Image]) -> None:
        self._iterable = frames
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        from edgecnn.vision.color import check_frame

        for index, image in enumerate(self._iterable):
            check_frame(image)
            yield Frame(index, image, 0.0, self.name)
