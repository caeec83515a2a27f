"""A camera of this machine, through Video4Linux (elsewhere through what OpenCV finds)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecnn.errors import DeviceUnavailable, InputError
from edgecnn.stream.base import Frame, Source

__all__ = ["CameraSource"]

NODE = "/dev/video"
DEFAULT_FPS = 30.0


class CameraSource(Source):
    """Frames of one camera as they come."""

    live = True

    def __init__(self, index: int) -> None:
        """Open the camera.

        Args:
            index: N of ``/dev/videoN``.

        Raises:
            InputError: The index is negative.
            DeviceUnavailable: It is absent, closed to this user, busy or no camera; says what to check.
        """
        if index < 0:
            raise InputError(f"camera: the first one is number 0, there is no {index}")
        self.name = f"camera:{index}"
        self._device = f"{NODE}{index}" if sys.platform == "linux" else f"device {index}"
        self._capture = _open(index, self._device)
        self.fps = _frame_rate(self._capture)
        self._opened = time.monotonic()
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        index = 0
        while True:
            ok, image = self._capture.read()
            if not ok or image is None:
                raise DeviceUnavailable(self._silence(index))
            yield Frame(index, image, time.monotonic() - self._opened, self.name)
            index += 1

    def _release(self) -> None:
        """Give the camera back."""
        self._capture.release()

    def _silence(self, frames: int) -> str:
        if frames == 0:
            return (
                f"camera: {self._device} opens but gives no picture; check that no other program uses it "
                "and that it is the camera's picture device (v4l2-ctl --list-devices)"
            )
        return f"camera: {self._device} gave no more pictures after {frames}; check its cable and power"


def _open(index: int, device: str) -> Any:
    from edgecnn.vision.opencv import cv2

    linux = sys.platform == "linux"
    if linux and not Path(device).exists():
        raise DeviceUnavailable(
            f"camera: {device} does not exist; check that the camera is plugged in (ls /dev/video*), "
            f"and inside a container start it with --device {device}"
        )
    if linux and not os.access(device, os.R_OK | os.W_OK):
        raise DeviceUnavailable(
            f"camera: {device} may not be opened by this user; check its group: "
            "sudo usermod -aG video $USER, then log in again"
        )
    # without a backend OpenCV tries every one it has, and each prints why it failed
    capture = cv2.VideoCapture(index, cv2.CAP_V4L2) if linux else cv2.VideoCapture(index)
    if not capture.isOpened():
        capture.release()
        raise DeviceUnavailable(
            f"camera: {device} cannot be opened; check that no other program uses it and that it is a camera"
        )
    # an old picture is of no use: the shorter the queue of the driver, the newer the next one
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _frame_rate(capture: Any) -> float:
    from edgecnn.vision.video import frame_rate

    return frame_rate(capture) or DEFAULT_FPS
