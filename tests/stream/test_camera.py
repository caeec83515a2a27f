"""A camera that is made up: OpenCV's capture is replaced, the device file is a plain one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream import camera, open_source, run_stream
from edgecnn.vision.opencv import cv2
from tests.stream.fakes import Memory, detections, picture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")


class Capture:
    """Gives a few pictures, then fails as a camera does whose cable was pulled."""

    pictures = 3
    fps = 15.0
    opens = True

    def __init__(self, index: int, backend: int) -> None:
        self.left = self.pictures
        self.released = False
        type(self).last = self

    last: Capture

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self.opens

    def set(self, key: int, value: float) -> bool:
        return True

    def get(self, key: int) -> float:
        return self.fps if key == cv2.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, Any]:
        if self.left == 0:
            return False, None
        self.left -= 1
        return True, picture(50)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Capture]:
    (tmp_path / "video0").touch()
    monkeypatch.setattr(camera, "NODE", str(tmp_path / "video"))
    kind = type("Made", (Capture,), {})
    monkeypatch.setattr(cv2, "VideoCapture", kind)
    return kind


def test_frames_have_the_seconds_since_it_was_opened(device: type[Capture]) -> None:
    with open_source(0) as source:
        assert (source.name, source.live, source.fps, source.frames_announced) == (
            "camera:0",
            True,
            15.0,
            None,
        )
        frames = [next(source), next(source)]
    assert [f.index for f in frames] == [0, 1]
    assert {f.source for f in frames} == {"camera:0"}
    assert 0 <= frames[0].time_s <= frames[1].time_s < 5
    assert device.last.released


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 1e6])
def test_rate_that_cannot_be_is_replaced(device: type[Capture], fps: float) -> None:
    device.fps = fps
    with open_source(0) as source:
        assert source.fps == camera.DEFAULT_FPS


def test_pulled_cable_closes_the_outputs_and_names_the_device(device: type[Capture]) -> None:
    sink = Memory()
    with (
        open_source(0) as source,
        pytest.raises(DeviceUnavailable, match=r"video0 gave no more pictures after 3; check its cable"),
    ):
        run_stream(lambda image: detections(1), source, [sink])
    # it gave all three at once, and only the newest one is kept while another is worked on
    assert sink.summary is not None
    assert sink.frames[-1].index == 2
    assert len(sink.frames) == sink.summary.frames
    assert sink.summary.frames + sink.summary.dropped == 3


def test_opens_but_gives_no_picture(device: type[Capture]) -> None:
    device.pictures = 0
    with open_source(0) as source, pytest.raises(DeviceUnavailable, match="opens but gives no picture"):
        next(source)


def test_busy(device: type[Capture]) -> None:
    device.opens = False
    with pytest.raises(DeviceUnavailable, match="cannot be opened; check that no other program uses it"):
        open_source(0)
    assert device.last.released


def test_closed_to_this_user(device: type[Capture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DeviceUnavailable, match="usermod -aG video"):
        open_source(0)
