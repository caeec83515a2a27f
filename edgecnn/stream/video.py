"""The annotated stream as a video file, or as one after the other."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import MediaError, Unavailable
from edgecnn.paths import check_name
from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Summary
from edgecnn.stream.outputs import WriteFailed, create_beside, make_ready, write_whole

__all__ = ["VIDEO_CODECS", "VideoSink"]

# codecs that OpenCV's own wheels can write on every machine
VIDEO_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
# of these, what was written so far can be played
GROWING = (".mkv",)
CLOCKLESS_FPS = 25.0
BUFFER_BYTES = 2**18  # of FFmpeg
# what has to be free on the disk: for a frame and that buffer, and for what containers note of each frame
ROOM_BYTES, NOTE_BYTES = 2**20, 32
# what a camera may stand still before its pause is cut: a longer one would be minutes of one picture
PAUSE_S_MAX = 2.0


class VideoSink:
    """Writes the annotated frames; a file appears under its name when it is complete.

    A ``.mkv`` alone grows under its name, and can be played at any moment, also when the program was
    killed: what FFmpeg has not written by then is a quarter of a megabyte. Cut into segments, no more than
    one of them is lost of the other kinds.

    A frame is placed at its own time since the first one: where a camera gave fewer frames than it
    announced, pictures are shown longer, so that the video plays at the speed of what it shows; a
    pause of more than 2 s is cut to that. Frames without a clock follow one another at 25 a second.
    All are brought to the size of the first one of their file, with black borders.

    OpenCV does not tell that a disk is full. So a file is finished when less than a megabyte is left, and can
    be played up to there; segments go on when there is room again. And it is read back before it gets its
    name: what lacks frames all the same is removed, and an older file of that name stays as it was. (A
    ``.mkv`` stays, and replaces an older one at once.)
    """

    def __init__(
        self, path: Path, fps: float | None, segment_s: float | None = None, keep: int | None = None
    ) -> None:
        """Prepare the file; it is opened with the first frame, whose size it takes.

        Args:
            path: ``.mp4``, ``.mkv`` or ``.avi``.
            fps: Frames per second of the source; None when its frames have no clock.
            segment_s: Begin a new file after so many seconds of video: ``NAME-000001.mp4`` and so on,
                after those that are there.
            keep: How many older segments stay; all if not given.

        Raises:
            InputError: The folder cannot be made or written, or the name is not UTF-8.
            Unavailable: The disk is full.
        """
        check_name(path)
        self._path = path
        self._fps = fps
        self._segment_s = segment_s
        self._keep = keep
        self._file: _VideoFile | None = None
        self._start_s = 0.0
        self._ended = False
        make_ready(path)

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write one frame as often as its time asks for; not at all when its place is taken.

        Raises:
            WriteFailed: The disk is full, the folder is gone, or the segment before lacks frames.
            Unavailable: Such a video cannot be written.
        """
        if self._ended or not self._has_room():
            self._ended = self._segment_s is None
            self._finish()
            raise WriteFailed(self._path, os.strerror(errno.ENOSPC))
        image = annotated()
        # MPEG-4 counts time in at most 65535 ticks a second: 14.999925 does not fit, 15 does
        fps = round(self._fps or CLOCKLESS_FPS, 3)
        if self._file and self._segment_s and self._file.written >= self._segment_s * fps:
            self._finish()
        if self._file is None:
            self._start_s = frame.time_s
            path = self._path if self._segment_s is None else self._next_segment()
            self._file = _VideoFile(path, fps, image.shape[:2])
        self._file.write(image, self._copies(frame.time_s, self._file.written))

    def close(self, summary: Summary) -> None:
        """Finish the file and give it its name; without a frame there is none.

        Raises:
            Unavailable: The file lacks frames, as on a full disk, or cannot get its name.
        """
        self._finish()

    def _has_room(self) -> bool:
        """Whether the disk takes one more frame and then what ends the file."""
        needed = ROOM_BYTES + NOTE_BYTES * (self._file.written if self._file else 0)
        try:
            return shutil.disk_usage(self._path.parent).free >= needed
        except OSError as error:
            raise WriteFailed(self._path, error.strerror) from error

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file:
            file.finish()

    def _copies(self, time_s: float, written: int) -> int:
        """How often a frame has to be written to fill the video up to its time."""
        if self._fps is None:
            return 1
        copies = round((time_s - self._start_s) * self._fps) + 1 - written
        most = max(round(PAUSE_S_MAX * self._fps), 1)
        if copies > most:
            self._start_s += (copies - most) / self._fps
            copies = most
        return copies

    def _next_segment(self) -> Path:
        """Choose the name of a new segment, and remove the older ones that are too many."""
        name = re.compile(rf"{re.escape(self._path.stem)}-(\d{{6,}}){re.escape(self._path.suffix)}")
        try:
            found = {int(m[1]): p for p in self._path.parent.iterdir() if (m := name.fullmatch(p.name))}
            for number in sorted(found)[: -self._keep] if self._keep else ():
                found[number].unlink(missing_ok=True)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror) from error
        return self._path.with_stem(f"{self._path.stem}-{max(found, default=0) + 1:06d}")


class _VideoFile:
    """One file while it is written.

    Attributes:
        written: How many frames it has.
    """

    def __init__(self, path: Path, fps: float, size_hw: tuple[int, int]) -> None:
        self.written = 0
        self._path = path
        self._size_hw = size_hw
        self._growing = path.suffix.lower() in GROWING
        self._now = path
        try:
            if self._growing:
                write_whole(path, b"")
            else:
                self._now = create_beside(path)
        except OSError as error:
            raise WriteFailed(path, error.strerror) from error
        try:
            self._writer = _open(self._now, path, fps, size_hw)
        except BaseException:
            self._now.unlink(missing_ok=True)
            raise

    def write(self, image: Image, copies: int) -> None:
        if copies > 0:
            fitted = fit_into(image, self._size_hw)
            for _ in range(copies):
                self._writer.write(fitted)
            self.written += copies

    def finish(self) -> None:
        try:
            try:
                self._writer.release()
                if missing := _missing(self._now, self.written):
                    raise WriteFailed(self._path, missing)
                self._now.replace(self._path)
            finally:
                if not self._growing:
                    self._now.unlink(missing_ok=True)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror) from error


def _open(now: Path, path: Path, fps: float, size_hw: tuple[int, int]) -> Any:
    from edgecnn.vision.opencv import cv2

    height, width = size_hw
    codec = VIDEO_CODECS[path.suffix.lower()]
    writer = cv2.VideoWriter(str(now), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    if not writer.isOpened():
        writer.release()
        raise Unavailable(
            f"{path}: OpenCV cannot write {width}×{height} at {fps:g} fps as {codec}; "
            "try a name that ends in .avi"
        )
    return writer


def _missing(path: Path, frames: int) -> str | None:
    """What a video lacks of the frames that were written to it, or None."""
    from edgecnn.vision.video import VideoReader

    try:
        with VideoReader(path) as video:
            # the number is written last, and nothing is any more after a failure: it need not be counted,
            # but where all of a file was written at once
            if video.announced_frames == frames and path.stat().st_size > BUFFER_BYTES:
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
