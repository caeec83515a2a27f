"""A camera of this machine, through Video4Linux (elsewhere through what OpenCV finds)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from edgecnn.errors import DeviceUnavailable

__all__ = ["check_camera", "open_camera"]

NODE = "/dev/video"


def check_camera(index: int) -> None:
    """See whether a camera is there and may be opened, without opening it.

    Args:
        index: N of ``/dev/videoN``.

    Raises:
        DeviceUnavailable: It is absent or closed to this user; says what to check.
    """
    if sys.platform != "linux":
        return
    device = f"{NODE}{index}"
    if not Path(device).exists():
        raise DeviceUnavailable(
            f"camera:{index}: {device} does not exist; check that the camera is plugged in (ls /dev/video*), "
            f"and inside a container start it with --device {device}"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise DeviceUnavailable(
            f"camera:{index}: {device} may not be opened by this user; check its group: "
            "sudo usermod -aG video $USER, then log in again"
        )


def open_camera(index: int) -> Any:
    """Open a camera.

    Args:
        index: N of ``/dev/videoN``.

    Returns:
        A ``cv2.VideoCapture``.

    Raises:
        DeviceUnavailable: It is absent, busy or no camera; says what to check.
    """
    from edgecnn.vision.opencv import cv2

    # without a backend OpenCV tries every one it has, and each prints why it failed
    linux = sys.platform == "linux"
    capture = cv2.VideoCapture(index, cv2.CAP_V4L2) if linux else cv2.VideoCapture(index)
    if not capture.isOpened():
        capture.release()
        raise DeviceUnavailable(
            "cannot be opened; check that no other program uses it and that it is a camera"
        )
    # an old picture is of no use: the shorter the queue of the driver, the newer the next one
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture
