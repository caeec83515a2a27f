"""The one place that imports OpenCV: its limits have to be set before it is loaded."""

from __future__ import annotations

import os

from edgecnn.errors import InputError, MediaError, require

__all__ = ["IMAGE_PIXELS_MAX", "check_pixels", "cv2"]

PIXELS_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"


def _pixels_max() -> int:
    """Pixels of the largest image that is decoded: OpenCV's own variable, or 2²⁷ (134 million)."""
    text = os.environ.setdefault(PIXELS_VARIABLE, str(2**27))
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 2**40):
        raise InputError(f"{PIXELS_VARIABLE} is {text!r}; it has to be a number of pixels")
    return int(text)


IMAGE_PIXELS_MAX = _pixels_max()
# failed opens are reported by our own errors; the variable is read when OpenCV loads
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

cv2 = require("cv2", "cpu")


def check_pixels(size_hw: tuple[int, int], where: str) -> None:
    """Refuse an image or video by its size, before there is memory for it.

    Raises:
        MediaError: More pixels than `IMAGE_PIXELS_MAX`; starts with ``where``.
    """
    height, width = size_hw
    if height * width > IMAGE_PIXELS_MAX:
        raise MediaError(
            f"{where}: {height}×{width} px is more than the {IMAGE_PIXELS_MAX} pixels allowed "
            f"({PIXELS_VARIABLE})"
        )
