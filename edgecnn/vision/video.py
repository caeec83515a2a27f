"""Video files to frames."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.paths import check_name
from edgecnn.vision.opencv import check_pixels, cv2
from edgecnn.vision.video_headers import claimed_samples

__all__ = ["SampledFrames", "VideoReader", "frame_rate", "sample_frames"]

FPS_MAX = 1000.0
# old QuickTime counts every sample of compressed sound
SAMPLES_A_BYTE = 8


class VideoReader:
    """The frames of a video file, uint8 (H, W, 3) BGR, in order; a context manager.

    Iterating goes on from the last frame that was read and ends where nothing more decodes,
    whatever the container announces. Each frame is a new array.

    Attributes:
        path: The file.
        fps: Frames per second as the container says; None where it says nothing plausible.
        size_hw: Height and width of the first frame.
        announced_frames: Number of frames as the container says, which may be wrong; None where it
            says nothing.

    Raises:
        InputError: Its name is not UTF-8.
        MediaError: Missing, empty, not a video, of more pixels than `IMAGE_PIXELS_MAX`, or no frame decodes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._capture = _open(self.path)
        size_hw = [self._capture.get(name) for name in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
        try:
            check_pixels((int(size_hw[0]), int(size_hw[1])), str(self.path))
        except MediaError:
            self.close()
            raise
        self._first = self._read()
        if self._first is None:
            self.close()
            raise MediaError(f"{self.path}: opens as a video but no frame of it decodes")
        self.fps: float | None = frame_rate(self._capture)
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.announced_frames: int | None = int(count) if math.isfinite(count) and count >= 1 else None
        self.size_hw: tuple[int, int] = (int(self._first.shape[0]), int(self._first.shape[1]))

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        while (frame := self._next()) is not None:
            yield frame

    def skip(self) -> bool:
        """Pass over the next frame without converting it; False at the end."""
        if self._first is not None:
            self._first = None
            return True
        return bool(self._capture.grab())

    def close(self) -> None:
        """Release the file."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _next(self) -> npt.NDArray[np.uint8] | None:
        if self._first is None:
            return self._read()
        frame, self._first = self._first, None
        return frame

    def _read(self) -> npt.NDArray[np.uint8] | None:
        ok, frame = self._capture.read()
        return np.asarray(frame, np.uint8) if ok else None


def frame_rate(capture: Any) -> float | None:
    """Frames per second as a ``cv2.VideoCapture`` says, of a file or a camera; None when not plausible."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= FPS_MAX else None


def sample_frames(path: str | os.PathLike[str], count: int) -> SampledFrames:
    """Frames spread evenly over what really decodes, the first and the last among them.

    The file is decoded once to count: announced lengths and seeking are not reliable. It is decoded again
    whenever the frames are iterated over, one at a time.

    Args:
        path: A video file.
        count: How many; all where the video has no more.

    Raises:
        InputError: ``count`` is below 1.
        MediaError: Not a video.
    """
    if count < 1:
        raise InputError(f"cannot sample {count} frames: ask for at least 1")
    with VideoReader(path) as video:
        total = 0
        while video.skip():
            total += 1
    return SampledFrames(
        Path(path), np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    )


class SampledFrames:
    """Some frames of a video, uint8 (H, W, 3) BGR, in order; iterating decodes the file."""

    def __init__(self, path: Path, indices: Sequence[int]) -> None:
        self.path = path
        self.indices = tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        wanted = set(self.indices)
        with VideoReader(self.path) as video:
            for index in range(self.indices[-1] + 1 if self.indices else 0):
                if index not in wanted:
                    video.skip()
                elif (frame := next(iter(video), None)) is not None:
                    yield frame


def _open(path: Path) -> Any:
    check_name(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    if path.is_dir():
        raise MediaError(f"{path}: a folder, not a video")
    if size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes)")
    if _is_text(path):
        raise MediaError(f"{path}: not a video that can be read (it is text)")
    with path.open("rb") as file:
        samples = claimed_samples(file, size)
    if samples > size * SAMPLES_A_BYTE:
        raise MediaError(f"{path}: its header claims {samples} frames, more than {size} bytes can hold")
    for backend in _backends():
        capture = cv2.VideoCapture(str(path), backend)
        if capture.isOpened():
            return capture
        capture.release()
    raise MediaError(f"{path}: not a video that can be read")


def _is_text(path: Path) -> bool:
    """FFmpeg renders text as a video of a terminal, which nobody means."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    # the first bytes of a container hold a zero or are no UTF-8
    return b"\0" not in head and bool(head[:-4].decode("utf-8", "ignore").encode() == head[:-4])


def _backends() -> list[int]:
    """FFmpeg first; never the reader of numbered images, which takes any name with a digit in it."""
    named = (cv2.CAP_FFMPEG, cv2.CAP_IMAGES)
    return [cv2.CAP_FFMPEG, *(b for b in cv2.videoio_registry.getStreamBackends() if b not in named)]
