"""Engines that fail and hang, and bundles that are exchanged, while frames go on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecnn import ModelSpec
from edgecnn.errors import BundleError, EngineError
from edgecnn.results import Result
from edgecnn.stream import open_source, pipeline, run_stream, supervision
from edgecnn.stream.base import Image
from edgecnn.stream.service import ServiceManager
from edgecnn.stream.supervision import Supervised
from tests.bundles import write_mean_color
from tests.stream.fakes import Memory, detections, picture, pictures

PATIENCE_S = 10


class Engine:
    """Stands for a predictor; what it does to a frame is up to the test."""

    made: list[Engine]

    def __init__(self, answer: Callable[[Engine, Image], Result]) -> None:
        self.answer = answer
        self.closed = False
        self.bundle = self  # for the message of a reload
        self.path = "net.edge"

    def __call__(self, image: Image) -> Result:
        assert not self.closed
        return self.answer(self, image)

    def close(self) -> None:
        self.closed = True


def supervised(answer: Callable[[Engine, Image], Result]) -> tuple[Supervised, list[Engine]]:
    made: list[Engine] = []

    def open_engine() -> Any:
        made.append(Engine(answer))
        return made[-1]

    return Supervised(open_engine), made


def number(image: Image) -> int:
    return int(image[0, 0, 0]) // 10


@pytest.mark.parametrize("workers", [1, 3])
def test_engine_that_fails_is_replaced_and_costs_one_frame(workers: int) -> None:
    def answer(engine: Engine, image: Image) -> Result:
        if number(image) == 3:
            raise EngineError("out of memory")
        return detections(number(image))

    runs, made = supervised(answer)
    sink = Memory()
    summary = run_stream(runs, open_source(pictures(9)), [sink], workers=workers)
    assert [frame.index for frame in sink.frames] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert (summary.frames, summary.failed, summary.restarts) == (8, 1, 1)
    assert [engine.closed for engine in made] == [True, False]
    runs.close()
    assert made[1].closed


def test_engine_that_is_not_supervised_ends_the_stream() -> None:
    def fail(image: Image) -> Result:
        raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        run_stream(fail, open_source(pictures(2)))


def test_engine_that_fails_again_and_again_ends_the_stream() -> None:
    def answer(engine: Engine, image: Image) -> Result:
        raise EngineError("out of memory")

    runs, made = supervised(answer)
    with pytest.raises(EngineError, match=r"replaced 5 times within 60 s, and fails again \(out of memory\)"):
        run_stream(runs, open_source(pictures(20)))
    assert len(made) == 6


def test_failures_that_lie_apart_are_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "RESTARTS_WITHIN_S", 0.0)

    def answer(engine: Engine, image: Image) -> Result:
        raise EngineError("out of memory")

    runs, _ = supervised(answer)
    assert run_stream(runs, open_source(pictures(20))).restarts == 20


@pytest.mark.parametrize("workers", [1, 2])
def test_engine_that_hangs_is_replaced(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("STUCK_S", 0.3), ("STUCK_FIRST_S", 0.3), ("STUCK_TIMES", 0.0), ("WATCH_S", 0.02)):
        monkeypatch.setattr(pipeline, name, seconds)
    let_go = threading.Event()

    def answer(engine: Engine, image: Image) -> Result:
        if number(image) == 2:
            assert let_go.wait(PATIENCE_S)
        return detections(number(image))

    runs, made = supervised(answer)
    sink = Memory()
    summary = run_stream(runs, open_source(pictures(9)), [sink], workers=workers)
    assert [frame.index for frame in sink.frames] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert (summary.failed, summary.restarts) == (1, 1)
    assert not made[0].closed  # never under an inference that may go on
    let_go.set()
    end = time.monotonic() + PATIENCE_S
    while not made[0].closed:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_slow_engine_is_not_taken_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("STUCK_S", 0.01), ("STUCK_TIMES", 20.0), ("WATCH_S", 0.01)):
        monkeypatch.setattr(pipeline, name, seconds)

    def answer(engine: Engine, image: Image) -> Result:
        time.sleep(0.05)
        return detections(1)

    assert run_stream(supervised(answer)[0], open_source(pictures(6))).restarts == 0


def test_time_in_which_the_program_is_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Ctrl-Z: the clock is an hour further on when a prediction goes on, and again when one hangs."""
    for name, seconds in (("STUCK_S", 1.0), ("STUCK_FIRST_S", 1.0), ("STUCK_TIMES", 5.0), ("WATCH_S", 0.02)):
        monkeypatch.setattr(pipeline, name, seconds)
    stopped_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + stopped_s[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(pipeline, "time", clock)
    monkeypatch.setattr(supervision, "time", clock)
    let_go = threading.Event()

    def answer(engine: Engine, image: Image) -> Result:
        if number(image) == 2:
            stopped_s[0] += 3600
            time.sleep(0.1)  # for several looks
        elif number(image) == 4:
            assert let_go.wait(PATIENCE_S)
        return detections(number(image))

    runs, _ = supervised(answer)
    sink = Memory()
    summary = run_stream(runs, open_source(pictures(6)), [sink])
    let_go.set()
    assert [frame.index for frame in sink.frames] == [0, 1, 2, 3, 5]
    assert summary.restarts == 1


def test_two_frames_that_show_one_failure_replace_one_engine() -> None:
    runs, made = supervised(lambda engine, image: detections(1))
    begun_s = time.monotonic()
    runs.replace(begun_s, "first")
    runs.replace(begun_s, "second")
    assert runs.restarts == 1
    assert len(made) == 2


def test_reload_keeps_the_old_one_until_its_frames_are_done() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer(engine: Engine, image: Image) -> Result:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return detections(1)

    runs, made = supervised(answer)
    calling = threading.Thread(target=runs, args=(picture(1),))
    calling.start()
    assert begun.wait(PATIENCE_S)
    assert runs.reload()
    assert not made[0].closed
    go_on.set()
    calling.join(PATIENCE_S)
    assert [engine.closed for engine in made] == [True, False]


def test_reload_of_a_bad_bundle_keeps_the_old_one(caplog: pytest.LogCaptureFixture) -> None:
    runs, made = supervised(lambda engine, image: detections(1))

    def refuse() -> Any:
        raise BundleError("net.edge: model.onnx was altered")

    runs._open = refuse
    assert not runs.reload()
    assert len(runs(picture(1))) == 1  # type: ignore[arg-type]
    assert not made[0].closed
    [record] = caplog.records
    assert record.getMessage() == "not reloaded, the old bundle stays: net.edge: model.onnx was altered"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket like systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "80000")
        yield end


def test_systemd_is_told(systemd: socket.socket) -> None:
    told: list[str] = []

    def listen() -> None:
        while not told or not told[-1].startswith("STOPPING"):
            told.append(systemd.recv(4096).decode())

    listening = threading.Thread(target=listen)
    listening.start()
    run_stream(lambda image: time.sleep(0.03) or detections(1), open_source(pictures(9)), service=True)
    listening.join(PATIENCE_S)
    assert told[0] == "READY=1\nSTATUS=frames"
    assert told[-1] == "STOPPING=1"
    # 0.3 s, and twice in each 80 ms
    assert 3 <= len(told[1:-1]) <= 12
    assert {text.split("\n")[0] for text in told[1:-1]} == {"WATCHDOG=1"}


def test_systemd_that_does_not_listen_is_not_waited_for(systemd: socket.socket) -> None:
    manager = ServiceManager()
    for _ in range(1000):
        manager.ready("")


def test_without_systemd_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    manager = ServiceManager()
    manager.ready("")
    manager.alive("")
    manager.stopping()


def test_hang_up_of_a_service_opens_the_bundle_again(tmp_path: Path) -> None:
    """Red, then green, then a bundle that is broken: no frame is lost, and the broken one is refused."""
    bundle, out, frames = tmp_path / "net.edge", tmp_path / "out.jsonl", 4_000
    spec = ModelSpec(
        task="classification", size_hw=(8, 8), labels=("red", "green", "blue"), activation="none"
    )
    write_mean_color(bundle, spec)
    other = write_mean_color(tmp_path / "other.edge", spec.replace(labels=("rot", "grün", "blau")))
    del other
    raw = np.full((frames, 8, 8, 3), (0, 0, 200), np.uint8)
    command = [sys.executable, "-m", "edgecnn", "run", str(bundle), "--source", "-", "--frame-size", "8x8"]
    command += ["--runtime", "ort", "--json", str(out), "--service"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(raw[: frames // 2].tobytes())
            process.stdin.flush()
            wait_for_lines(out, frames // 2)
            exchange(bundle, tmp_path / "other.edge")
            process.send_signal(signal.SIGHUP)
            wait_for_text(process, b"reloaded")
            process.stdin.write(raw[frames // 2 :].tobytes())
            process.stdin.flush()
            wait_for_lines(out, frames)
            (bundle / "model.onnx").write_bytes(b"broken")
            process.send_signal(signal.SIGHUP)
            wait_for_text(process, b"not reloaded, the old bundle stays")
            process.stdin.write(raw[:1].tobytes())
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()
    *lines, last = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(frames + 1))
    labels = [line["classes"][0]["label"] for line in lines]
    assert labels == ["red"] * (frames // 2) + ["rot"] * (frames // 2 + 1)
    assert last["summary"]["frames"] == frames + 1


def exchange(bundle: Path, other: Path) -> None:
    shutil.rmtree(bundle)
    other.rename(bundle)


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_text(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stderr is not None
    while text not in (line := process.stderr.readline()):
        assert line, "it ended without saying so"
