"""The annotated stream as a video file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import MediaError, Unavailable
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Summary
from edgecnn.stream.outputs import create_beside, make_parent, write_failed

__all__ = ["VIDEO_CODECS", "VideoSink"]

# codecs that OpenCV's own wheels can write on every machine
VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
CLOCKLESS_FPS = 25.0
# what a camera may stand still before its pause is cut: a longer one would be minutes of one picture
PAUSE_S_MAX = 2.0


class VideoSink:
    """Writes the annotated frames; the file appears under its name when it is complete.

    A frame is placed at its own time since the first one: where a camera gave fewer frames than it
    announced, pictures are shown longer, so that the video plays at the speed of what it shows; a
    pause of more than 2 s is cut to that. Frames without a clock follow one another at 25 a second.
    All are brought to the first one's size, with black borders.

    OpenCV does not tell that a disk is full, so the file is read back before it gets its name; what
    lacks frames is removed, and an older file of that name stays as it was.
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
        self._beside: Path | None = None
        self._fps = fps
        self._writer: Any = None
        self._size_hw = (0, 0)
        self._start_s = 0.0
        self._written = 0
        make_parent(path)

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one frame as often as its time asks for; not at all when its place is taken."""
        image = annotated()
        if self._writer is None:
            self._size_hw = image.shape[:2]
            self._start_s = frame.time_s
            self._beside = create_beside(self._path)
            self._writer = self._open(self._beside)
        copies = self._copies(frame.time_s)
        if copies > 0:
            fitted = fit_into(image, self._size_hw)
            for _ in range(copies):
                self._writer.write(fitted)
            self._written += copies

    def close(self, summary: Summary) -> None:
        """Finish the file and give it its name; without a frame there is none.

        Raises:
            Unavailable: The file lacks frames, as on a full disk, or cannot get its name.
        """
        if self._beside is None:
            return
        try:
            if self._writer is None:
                return
            self._writer.release()
            if missing := _missing(self._beside, self._written):
                raise write_failed(self._path, missing)
            self._beside.replace(self._path)
        except OSError as error:
            raise write_failed(self._path, error.strerror) from error
        finally:
            self._beside.unlink(missing_ok=True)

    def _copies(self, time_s: float) -> int:
        """How often a frame has to be written to fill the video up to its time."""
        if self._fps is None:
            return 1
        copies = round((time_s - self._start_s) * self._fps) + 1 - self._written
        most = max(round(PAUSE_S_MAX * self._fps), 1)
        if copies > most:
            self._start_s += (copies - most) / self._fps
            copies = most
        return copies

    def _open(self, beside: Path) -> Any:
        from edgecnn.vision.opencv import cv2

        height, width = self._size_hw
        codec = VIDEO_CODECS[self._path.suffix.lower()]
        # MPEG-4 counts time in at most 65535 ticks a second: 14.999925 does not fit, 15 does
        fps = round(self._fps or CLOCKLESS_FPS, 3)
        writer = cv2.VideoWriter(str(beside), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        if not writer.isOpened():
            writer.release()
            raise Unavailable(
                f"{self._path}: OpenCV cannot write {width}×{height} at {fps:g} fps as {codec}; "
                "try a name that ends in .avi"
            )
        return writer


def _missing(path: Path, frames: int) -> str | None:
    """What a video lacks of the frames that were written to it, or None."""
    from edgecnn.vision.video import VideoReader

    try:
        with VideoReader(path) as video:
            # the number is written last, and nothing is any more after a failure: it need not be counted
            if video.announced_frames == frames:
                return None
            found = sum(1 for _ in iter(video.skip, False))
    except MediaError:
        return "the video cannot be read back"
    return f"the video holds {found} of {frames} frames" if found < frames else None


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
