"""The annotated stream as a video file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputError, Unavailable
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Summary
from edgecnn.stream.outputs import make_parent, write_failed

__all__ = ["VIDEO_CODECS", "VideoSink"]

# codecs that OpenCV's own wheels can write on every machine
VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
CLOCKLESS_FPS = 25.0


class VideoSink:
    """Writes the annotated frames; the file appears under its name when it is complete.

    A frame is placed at its own time: where a camera gave fewer frames than it announced, pictures
    are shown longer, so that the video plays at the speed of what it shows. Frames without a clock
    follow one another at 25 a second. All are brought to the first one's size, with black borders.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        """Prepare the file; it is opened with the first frame, whose size it takes.

        Args:
            path: ``.mp4`` or ``.avi``.
            fps: Frames per second of the source; None when its frames have no clock.

        Raises:
            InputError: The folder cannot be made.
        """
        self._path = path
        self._beside = path.with_name(f"{path.stem}.part{path.suffix}")
        self._fps = fps
        self._writer: Any = None
        self._size_hw = (0, 0)
        self._written = 0
        make_parent(path)

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one frame as often as its time asks for; not at all when its place is taken."""
        image = annotated()
        if self._writer is None:
            self._size_hw = image.shape[:2]
            self._writer = self._open()
        due = self._written + 1 if self._fps is None else round(frame.time_s * self._fps) + 1
        if due > self._written:
            fitted = fit_into(image, self._size_hw)
            for _ in range(due - self._written):
                self._writer.write(fitted)
            self._written = due

    def close(self, summary: Summary) -> None:
        """Finish the file and give it its name; without a frame there is none."""
        if self._writer is None:
            return
        self._writer.release()
        try:
            self._beside.replace(self._path)
        except OSError as error:
            raise write_failed(self._path, error) from error

    def _open(self) -> Any:
        from edgecnn.vision.opencv import cv2

        try:
            self._beside.write_bytes(b"")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        height, width = self._size_hw
        codec = VIDEO_CODECS[self._path.suffix.lower()]
        # MPEG-4 counts time in at most 65535 ticks a second: 14.999925 does not fit, 15 does
        fps = round(self._fps or CLOCKLESS_FPS, 3)
        writer = cv2.VideoWriter(str(self._beside), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        if not writer.isOpened():
            writer.release()
            self._beside.unlink(missing_ok=True)
            raise Unavailable(
                f"{self._path}: OpenCV cannot write {width}×{height} at {fps:g} fps as {codec}; "
                "try a name that ends in .avi"
            )
        return writer


def fit_into(image: Image, size_hw: tuple[int, int]) -> Image:
    """Bring an image to another size, aspect kept, centred on black; itself where it fits already.

    Args:
        image: uint8 (H, W, 3).
        size_hw: Height and width of the result in pixels.
    """
    from edgecnn.vision.opencv import cv2

    if image.shape[:2] == size_hw:
        return image
    scale = min(size_hw[0] / image.shape[0], size_hw[1] / image.shape[1])
    height, width = (max(round(n * scale), 1) for n in image.shape[:2])
    resized = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    canvas = np.zeros((*size_hw, 3), np.uint8)
    top, left = (size_hw[0] - height) // 2, (size_hw[1] - width) // 2
    canvas[top : top + height, left : left + width] = resized
    return canvas
