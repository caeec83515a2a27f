"""The annotated stream in a window on the screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from edgecnn.errors import DeviceUnavailable
from edgecnn.results import Result
from edgecnn.stream.base import EndOfStream, Frame, Image, Summary

__all__ = ["WindowSink"]

TITLE = "edgecnn (q ends)"
END_KEYS = {ord("q"), ord("Q"), 27}


class WindowSink:
    """Shows each annotated frame; the keys q and Esc, or closing the window, end the stream."""

    def __init__(self) -> None:
        """Open the window.

        Raises:
            DeviceUnavailable: There is no screen, or OpenCV was built without windows.
        """
        from edgecnn.vision.opencv import cv2

        # Qt ends the whole process where there is no display, so it must not get to try
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise DeviceUnavailable(
                "--show: there is no screen here (DISPLAY is not set); use --save FILE.mp4, or ssh -X"
            )
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise DeviceUnavailable(
                "--show: this OpenCV has no windows; try: "
                "pip uninstall -y opencv-python-headless && pip install opencv-python"
            ) from error
        self._shown = False

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Show one frame."""
        from edgecnn.vision.opencv import cv2

        image = annotated()
        if not self._shown:
            cv2.resizeWindow(TITLE, image.shape[1], image.shape[0])
            self._shown = True
        cv2.imshow(TITLE, image)
        if cv2.waitKey(1) & 0xFF in END_KEYS or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise EndOfStream

    def close(self, summary: Summary) -> None:
        """Close the window."""
        from edgecnn.vision.opencv import cv2

        cv2.destroyAllWindows()
