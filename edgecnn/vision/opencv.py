"""The one place that imports OpenCV: its limits have to be set before it is loaded."""

from __future__ import annotations

import os

from edgecnn.errors import require

__all__ = ["IMAGE_PIXELS_MAX", "cv2"]

IMAGE_PIXELS_MAX = int(os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27)))
# failed opens are reported by our own errors; the variable is read when OpenCV loads
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

cv2 = require("cv2", "cpu")
