"""Live sources on servers of this machine that fail in the ways in which cameras do."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable
from edgecnn.stream import Frame, open_json, open_source, run_stream
from edgecnn.stream.live import FIRST_WAIT_S, LONGEST_WAIT_S, Backoff, LiveSource
from edgecnn.vision.opencv import cv2
from tests.stream.fakes import Memory, detections, write_video
from tests.stream.servers import FAILURES, MjpegServer, RtspServer, Server, jpeg

TIMEOUT_S = 1.0
PATIENCE_S = 30.0


def opened(server: Server, timeout_s: float = TIMEOUT_S) -> LiveSource:
    source = open_source(server.url, timeout_s=timeout_s)  # type: ignore[attr-defined]
    assert isinstance(source, LiveSource)
    return source


def frames_for(source: LiveSource, seconds: float) -> list[Frame]:
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        found.append(next(source))
    return found


@pytest.mark.parametrize("kind", [MjpegServer, RtspServer])
def test_frames_are_those_of_the_server(kind: type[Server]) -> None:
    with kind() as server, opened(server) as source:
        assert source.live
        assert source.frames_announced is None
        assert (
            source.name
            == f"{kind.__name__[:-6].replace('Mjpeg', 'http').lower()}://127.0.0.1:{server.port}/video"
        )
        found = [next(source) for _ in range(5)]
    indices = [frame.index for frame in found]
    assert indices == sorted(set(indices))
    assert np.all(np.diff([frame.time_s for frame in found]) > 0)
    sent = [cv2.imdecode(np.frombuffer(jpeg(i), np.uint8), cv2.IMREAD_COLOR) for i in range(60)]
    for frame in found:
        apart = min(float(np.abs(frame.image.astype(int) - image).mean()) for image in sent)
        assert apart < 6  # another decoder, and other colour conversion


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", [MjpegServer, RtspServer])
def test_it_comes_back_after(kind: type[Server], failure: str) -> None:
    events = []
    with kind() as server, opened(server) as source:
        source.listen(events.append)
        next(source)
        server.become(failure)
        # what is noticed at once need not last
        lasts_s = TIMEOUT_S + 0.5 if failure in ("silent", "stall", "garbage") else 0.2
        threading.Timer(lasts_s, server.become, ["serve"]).start()
        end = time.monotonic() + PATIENCE_S
        while source.reconnects == 0:
            before = next(source)
            assert time.monotonic() < end
        assert next(source).index > before.index
    if failure == "silent":  # to those who come; who was there is left
        assert [event.state for event in events][:2] == ["lost", "back"]
    else:
        assert [event.state for event in events] == ["lost", "back"]
    assert {event.source for event in events} == {source.name}


def test_stall_is_noticed_in_the_time_that_was_given() -> None:
    noticed = threading.Event()
    with MjpegServer() as server, opened(server) as source:
        source.listen(lambda event: noticed.set())
        reading = threading.Thread(target=lambda: list(source), daemon=True)
        reading.start()
        time.sleep(0.3)
        server.become("stall")
        assert noticed.wait(TIMEOUT_S + 1)
        source.close()
        reading.join(5)
        assert not reading.is_alive()


def test_killed_process_is_replaced() -> None:
    with MjpegServer() as server, opened(server) as source:
        next(source)
        killed = source._reader._process
        killed.kill()
        while source.reconnects == 0:
            next(source)
        assert source._reader._process.pid != killed.pid


def test_process_that_hangs_is_ended() -> None:
    """As where a driver does not come back from a read, whatever limits it was given."""
    events = []
    with MjpegServer() as server, opened(server) as source:
        source.listen(events.append)
        next(source)
        os.kill(source._reader._process.pid, signal.SIGSTOP)
        while source.reconnects == 0:
            next(source)
    assert [event.state for event in events] == ["lost", "back"]
    assert events[0].reason == "no frame for 1 s"


@pytest.mark.parametrize("kind", [MjpegServer, RtspServer])
def test_size_may_change_on_the_way(kind: type[Server]) -> None:
    with kind() as server, opened(server) as source:
        assert next(source).image.shape == (96, 128, 3)
        server.size_hw = (64, 208)
        end = time.monotonic() + PATIENCE_S
        while (shape := next(source).image.shape) != (64, 208, 3):
            assert shape == (96, 128, 3)
            assert time.monotonic() < end


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("refuse", "refused"),
        ("silent", "timed out"),
        ("close", "opens but gives no picture"),
        ("stall", "no picture .no frame for 1 s"),
        ("garbage", "no"),
    ],
)
def test_first_time_it_has_to_open(mode: str, message: str) -> None:
    with MjpegServer() as server:
        server.become(mode)
        start = time.monotonic()
        with pytest.raises(
            DeviceUnavailable, match=rf"^http://127\.0\.0\.1:\d+/video: .*{message}"
        ) as raised:
            opened(server)
        assert time.monotonic() - start < PATIENCE_S
        assert "secret" not in str(raised.value)


def test_slow_predictions_drop_frames_and_count_them() -> None:
    def slow(image: object) -> object:
        time.sleep(0.2)
        return detections(1)

    sink = Memory()
    with MjpegServer() as server, opened(server) as source:
        summary = run_stream(slow, source, [sink], max_frames=8)  # type: ignore[arg-type]
    last = sink.frames[-1].index
    assert summary.frames == 8
    # 20 frames a second come, 5 are looked at
    assert summary.dropped >= last + 1 - 8 > 8


def test_events_are_lines_of_the_results(tmp_path: Path) -> None:
    out, heard = tmp_path / "out.jsonl", []
    with MjpegServer() as server, opened(server) as source:
        sink = open_json(str(out), source)
        source.listen(heard.append)
        threading.Timer(0.3, server.become, ["close"]).start()
        threading.Timer(0.6, server.become, ["serve"]).start()
        summary = run_stream(lambda image: detections(1), source, [sink], duration_s=4)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    events = [line["event"] for line in lines if "event" in line]
    assert [event["state"] for event in events] == ["lost", "back"]
    assert set(events[0]) == {"source", "state", "reason", "time"}
    assert [event.to_json() for event in heard] == events
    assert lines[-1]["summary"]["reconnects"] == summary.reconnects == 1


def test_file_on_a_server_ends_and_loses_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", count=8)
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), "0"]
    with subprocess.Popen(
        [command[0], "-u", *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split(b"port ")[1].split()[0])
            with open_source(f"http://127.0.0.1:{port}/v.avi", timeout_s=5) as source:
                assert (source.live, source.frames_announced) == (False, 8)
                found = [frame.index for frame in source]
        finally:
            server.kill()
    assert found == list(range(8))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_behind() -> None:
    threads, files = threading.active_count(), open_files()
    with MjpegServer() as server:
        with opened(server) as source:
            next(source)
            process = source._reader._process
        assert process.returncode is not None
        assert list(source) == []
    end = time.monotonic() + 5
    while (threading.active_count() > threads or open_files() > files) and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= threads  # those of tests before may have ended meanwhile
    assert open_files() <= files


def test_process_does_not_outlive_the_program() -> None:
    program = (
        "import os, signal, sys\n"
        "from edgecnn.stream import open_source\n"
        "source = open_source(sys.argv[1], timeout_s=5)\n"
        "next(source)\n"
        "print(source._reader._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with MjpegServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url], stdout=subprocess.PIPE, check=False
        )
        assert done.returncode == -signal.SIGKILL
        pid, end = int(done.stdout), time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert not Path(f"/proc/{pid}").exists()


def test_waits_grow_to_a_limit_and_are_never_in_step() -> None:
    one, other = Backoff(random.Random(1)), Backoff(random.Random(2))
    waits = [one.wait_s() for _ in range(12)]
    longest = [min(FIRST_WAIT_S * 2**i, LONGEST_WAIT_S) for i in range(12)]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, longest))
    assert waits != [other.wait_s() for _ in range(12)]
    one.reset()
    assert one.wait_s() <= FIRST_WAIT_S
