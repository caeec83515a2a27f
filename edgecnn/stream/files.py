"""Sources that do not run away: images, folders, videos, arrays and iterables."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.stream.base import Frame, Image, Source

__all__ = ["ArraySource", "FolderSource", "ImageSource", "IterableSource", "VideoSource"]

log = logging.getLogger(__name__)

DEFAULT_FPS = 25.0


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
    """A video file; ends at the last frame that decodes, whatever the container announces."""

    def __init__(self, path: Path) -> None:
        """Open the video.

        Raises:
            MediaError: It is no video.
        """
        from edgecnn.vision.video import VideoReader

        self.name = str(path)
        self.paths = (path,)
        self._reader = VideoReader(path)
        self.fps = self._fps = self._reader.fps or DEFAULT_FPS
        self.frames_announced = self._reader.announced_frames
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        for index, image in enumerate(self._reader):
            yield Frame(index, image, index / self._fps, self.name)

    def _release(self) -> None:
        """Close the file."""
        self._reader.close()


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
