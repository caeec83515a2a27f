"""Live sources on other people's servers, which are stopped, killed and started again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream import Frame, open_source
from edgecnn.stream.base import SourceEvent
from edgecnn.stream.live import LiveSource
from tests.stream.real_servers import FFmpeg, GStreamer, RealServer, apart, needed

TIMEOUT_S = 1.5
PATIENCE_S = 30.0
LEVELS = 12  # of colours that were coded at a quarter of the resolution


@pytest.fixture(params=[GStreamer, FFmpeg])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    needed(request.param)
    with request.param() as running:
        yield running


def opened(server: RealServer) -> LiveSource:
    """Opens its source once it listens: that of FFmpeg does not say when."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            source = open_source(server.url, timeout_s=TIMEOUT_S)
        except DeviceUnavailable:
            assert time.monotonic() < end
        else:
            assert isinstance(source, LiveSource)
            return source


def until_back(source: LiveSource) -> Frame:
    """The first frame after the source was back."""
    end = time.monotonic() + PATIENCE_S
    while True:
        frame = next(source)
        if source.reconnects:
            return frame
        assert time.monotonic() < end


def test_frames_are_those_that_were_sent_also_after_a_stall(server: RealServer) -> None:
    events: list[SourceEvent] = []

    def heard(event: SourceEvent) -> None:
        events.append(event)
        if event.state == "lost":
            server.become("serve")

    with opened(server) as source:
        source.listen(heard)
        found = [next(source) for _ in range(10)]
        server.become("stall")
        while not source.reconnects:
            found.append(next(source))
    assert {frame.image.shape for frame in found} == {(240, 320, 3)}
    assert max(apart(frame.image) for frame in found) < LEVELS
    assert np.all(np.diff([frame.index for frame in found]) > 0)
    waits_s = np.diff([frame.time_s for frame in found])
    assert np.all(waits_s > 0)
    assert np.all(waits_s[:-1] < TIMEOUT_S)  # what a decoder held back does not count as a sign of life
    assert [event.state for event in events] == ["lost", "back"]


def test_killed_and_back_with_pictures_of_another_size(server: RealServer) -> None:
    with opened(server) as source:
        assert next(source).image.shape == (240, 320, 3)
        server.become("killed")
        with pytest.raises(DeviceUnavailable, match=r"127\.0\.0\.1:\d+/video: it does not answer"):
            open_source(server.url, timeout_s=TIMEOUT_S)
        server.size_hw = (96, 208)
        server.become("serve")
        image = until_back(source).image
    assert image.shape == (96, 208, 3)
    assert apart(image) < LEVELS


def test_another_size_within_a_connection_is_squeezed_into_the_first() -> None:
    """By OpenCV, which does not say so; the picture is whole."""
    needed(GStreamer)
    with GStreamer() as server, opened(server) as source:
        next(source)
        server.resize((96, 208))
        found = [next(source) for _ in range(60)]
        assert source.reconnects == 0
    assert {frame.image.shape for frame in found} == {(240, 320, 3)}
    assert apart(found[-1].image) < LEVELS
