"""A camera that is made up: OpenCV's capture is replaced, the device file is a plain one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream import camera
from edgecnn.stream.camera import check_camera, open_camera
from edgecnn.vision.opencv import cv2

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")


class Capture:
    """Notes what is asked of it."""

    opens = True
    last: Capture

    def __init__(self, index: int, backend: int) -> None:
        self.given = index, backend
        self.settings: dict[int, float] = {}
        self.released = False
        Capture.last = self

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self.opens

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return True

    def release(self) -> None:
        self.released = True


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "video0").touch()
    monkeypatch.setattr(camera, "NODE", str(tmp_path / "video"))
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return tmp_path / "video0"


def test_queue_of_the_driver_is_short(device: Path) -> None:
    capture: Any = open_camera(0)
    assert capture.given == (0, cv2.CAP_V4L2)
    assert capture.settings == {cv2.CAP_PROP_BUFFERSIZE: 1}


def test_busy(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "opens", False)
    with pytest.raises(DeviceUnavailable, match="cannot be opened; check that no other program uses it"):
        open_camera(0)
    assert Capture.last.released


def test_there_and_open_to_this_user(device: Path) -> None:
    check_camera(0)


def test_absent(device: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"camera:1: .*video1 does not exist; .* --device "):
        check_camera(1)


def test_closed_to_this_user(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DeviceUnavailable, match="usermod -aG video"):
        check_camera(0)
