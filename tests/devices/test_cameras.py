from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from edgecnn.devices.cameras import ANSWER, CAPTURES, QUERY, Camera, find_cameras
from tests.devices.machines import put


def test_cameras_in_order_with_their_names(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        put(tmp_path, f"dev/video{number}", "")
    put(tmp_path, "sys/class/video4linux/video2/name", "HD Webcam: HD Webcam\n")
    put(tmp_path, "dev/videos", "not one")
    assert find_cameras(tmp_path) == tuple(
        Camera(device=device, name=name, usable=True, reason=None)
        for device, name in (
            ("/dev/video0", None),
            ("/dev/video2", "HD Webcam: HD Webcam"),
            ("/dev/video10", None),
        )
    )


def test_no_cameras(tmp_path: Path) -> None:
    assert find_cameras(tmp_path) == ()


def test_a_camera_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "dev/video0", "")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    [camera] = find_cameras(tmp_path)
    assert not camera.usable
    assert "usermod -aG video" in (camera.reason or "")


@pytest.mark.parametrize(("abilities", "count"), [(CAPTURES, 1), (0x1, 1), (0x04008000, 0), (0x00800000, 0)])
def test_codecs_and_metadata_are_no_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abilities: int, count: int
) -> None:
    """As VIDIOC_QUERYCAP answers: what the whole device can, then what this node can."""

    def answer(handle: int, request: int, given: bytes) -> bytes:
        assert (request, len(given)) == (QUERY, 104)
        return ANSWER.pack(b"uvcvideo", b"HD Webcam", b"usb-1", 0x060C00, 0x84A00001, abilities)

    put(tmp_path, "dev/video0", "")
    monkeypatch.setattr(fcntl, "ioctl", answer)
    assert len(find_cameras(tmp_path)) == count
