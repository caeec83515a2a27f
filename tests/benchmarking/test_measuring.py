"""Warming up and taking turns on a clock that the calls themselves move; then a whole run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import edgecnn
from edgecnn import ModelSpec, WindowGeometry
from edgecnn.benchmarking import Benchmark, Interrupted, measuring
from edgecnn.benchmarking.contenders import Contender
from edgecnn.benchmarking.measuring import take_turns, warm_up
from edgecnn.benchmarking.summary import Rounds
from edgecnn.devices.energy import EnergyMeter
from edgecnn.errors import BundleError, InputError, Unavailable
from edgecnn.first_result import FirstResult
from edgecnn.predictor import Predictor
from edgecnn.progress import silent_work
from edgecnn.runtimes import RuntimeOptions
from edgecnn.vision.opencv import cv2
from tests.bundles import entry, write_artifacts, write_mean_color

SPEC = ModelSpec(task="classification", size_hw=(8, 8), activation="none", labels=("red", "green", "blue"))
FRAMES = [np.full((4, 4, 3), shade, np.uint8) for shade in (1, 2)]


class Clock:
    """Nanoseconds that pass only while a contender runs."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.made: list[str] = []

    def __call__(self) -> int:
        return self.now_ns

    def contender(self, name: str, ms: Callable[[int], float]) -> Contender:
        """One whose n-th call takes so many ms."""
        calls = iter(range(10**6))

        def predict(frame: np.ndarray[Any, Any]) -> SimpleNamespace:
            took = ms(next(calls))
            self.made.append(f"{name}{frame[0, 0, 0]}")
            self.now_ns += int(took * 1e6)
            return SimpleNamespace(
                timing_ms={"geometry": 0.25 * took, "infer": 0.5 * took, "decode": 0.25 * took}
            )

        return Contender(name, predict)  # type: ignore[arg-type]


def test_warm_up_ends_when_latencies_are_stable() -> None:
    clock = Clock()
    each = clock.contender("a", lambda made: 100.0 if made < 6 else 10.0)
    warm_up([each], FRAMES, 60.0, clock=clock)
    assert each.settled
    # five calls whose median is that of the five before: seven to eleven, of which three are fast, and on
    assert len(each.warm_ms) == 14
    assert each.latencies_ms == []


def test_warm_up_of_what_never_settles_is_bounded() -> None:
    clock = Clock()
    each = clock.contender("a", lambda made: 10.0 * 1.1**made)
    warm_up([each], FRAMES, 1.0, clock=clock)
    assert not each.settled
    assert clock.now_ns < 2.5e9


def test_turns_rotate_and_share_the_frame_of_a_round() -> None:
    clock = Clock()
    contenders = [clock.contender("a", lambda made: 1.0), clock.contender("b", lambda made: 2.0)]
    rounds = Rounds()
    take_turns(contenders, FRAMES, 0.075, rounds, clock=clock)
    assert "".join(clock.made[:8]) == "a1b1" + "b2a2" + "a1b1" + "b2a2"
    assert contenders[0].latencies_ms == [1.0] * 25
    assert contenders[1].stages_ms == {"geometry": [0.5] * 25, "infer": [1.0] * 25, "decode": [0.5] * 25}
    assert len(rounds.yardstick_ms) == 25


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, 20), (0.001, 3)])
def test_slow_ones_have_twenty_rounds_within_three_times_the_seconds(seconds: float, expected: int) -> None:
    clock = Clock()
    each = clock.contender("a", lambda made: 10.0 if expected == 20 else 1.0)
    take_turns([each], FRAMES, seconds, Rounds(), clock=clock)
    assert len(each.latencies_ms) == expected


class Meter(EnergyMeter):
    """Gives 40 mJ, whatever ran."""

    what = "a battery"
    running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> float | None:
        self.running = False
        return 40.0


def test_energy_is_that_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, meter = Clock(), Meter()
    monkeypatch.setattr(measuring.time, "monotonic", lambda: clock.now_ns / 1e9)
    each = clock.contender("a", lambda made: 500.0)
    measuring._measure_energy([each], FRAMES, meter, silent_work)
    assert each.energy_mj == 10.0  # four calls in two seconds


def test_meter_does_not_outlive_an_interrupt() -> None:
    def interrupted(made: int) -> float:
        raise KeyboardInterrupt

    meter = Meter()
    with pytest.raises(KeyboardInterrupt):
        measuring._measure_energy([Clock().contender("a", interrupted)], FRAMES, meter, silent_work)
    assert not meter.running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fresh processes."""
    monkeypatch.setattr(measuring, "measure_first_result", lambda *given: FirstResult(ms=300.0, rss_mb=90.0))


@pytest.mark.usefixtures("quick")
def test_every_artifact_on_every_engine(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    found = edgecnn.benchmark(bundle, seconds=0.02, threads=1)
    seen = {(row.id, row.runtime) for row in found.rows} | {
        (left.id, left.runtime) for left in found.left_out
    }
    assert seen == {("onnx-fp32", name) for name in ("openvino", "ort", "tensorrt")}
    assert [row.p50_ms for row in found.rows] == sorted(row.p50_ms for row in found.rows)
    best = found.rows[0]
    assert (found.best, best.ratio, best.threads, best.metric) == (best.name, 1.0, 1, None)
    assert best.n == sum(best.histogram.counts)
    assert best.p50_ms <= best.p90_ms <= best.p95_ms <= best.p99_ms
    assert (best.first_result_ms, best.rss_mb, best.size_bytes) == (
        300.0,
        90.0,
        bundle.file("model.onnx").bytes,
    )
    assert (found.timed.generated, found.timed.sizes_wh) == (True, ((640, 480),))
    assert best.stages_ms["read"] is best.stages_ms["nms"] is None
    assert all(best.stages_ms[stage] is not None for stage in ("geometry", "infer", "decode"))
    assert set(found.machine.versions) >= {"edgecnn", "python", "numpy", "opencv", best.runtime}
    assert not found.interrupted


@pytest.mark.usefixtures("quick")
def test_frames_of_a_folder(tmp_path: Path) -> None:
    for name, size in (("a", 20), ("b", 30)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((10, size, 3), np.uint8))
    write_mean_color(tmp_path / "a.edge", SPEC)
    found = edgecnn.benchmark(tmp_path / "a.edge", runtime="ort", source=tmp_path, seconds=0.01)
    assert (found.timed.frames, found.timed.sizes_wh) == (2, ((20, 10), (30, 10)))
    assert found.timed.generated is False
    assert found.rows[0].stages_ms["read"] is not None


@pytest.mark.usefixtures("quick")
def test_precision_and_runtime_choose_rows(tmp_path: Path) -> None:
    entries = [entry("onnx-int8", "onnx", "int8", "cpu"), entry("onnx-fp32", "onnx")]
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, entries)
    found = edgecnn.benchmark(bundle, runtime="ort,openvino", precision="int8", seconds=0.01)
    assert {(row.id, row.runtime) for row in found.rows} == {("onnx-int8", "ort"), ("onnx-int8", "openvino")}


@pytest.mark.usefixtures("quick")
def test_throughput_is_a_row_of_its_own(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    found = edgecnn.benchmark(tmp_path / "a.edge", runtime="ort", mode="both", seconds=0.05)
    one, many = found.rows
    streams = RuntimeOptions(mode="throughput").stream_count
    assert (one.mode, one.streams, one.batch, one.name) == ("latency", 1, 1, "onnx-fp32 on ort")
    assert (many.mode, many.streams, many.batch, many.threads) == ("throughput", streams, 1, 1)
    assert many.name == f"onnx-fp32 on ort, {streams} stream{'s' * (streams > 1)}"
    assert (found.best, one.ratio, many.ratio) == (one.name, 1.0, 1.0)
    assert many.n >= 3 * streams * len(many.blocks_ms)
    assert many.fps > 0
    assert "one frame after the other; as many frames at a time" in found.timed.what


@pytest.mark.usefixtures("quick")
def test_throughput_alone(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    found = edgecnn.benchmark(tmp_path / "a.edge", mode="throughput", threads=1, seconds=0.02)
    assert {(row.runtime, row.mode) for row in found.rows} == {
        ("ort", "throughput"),
        ("openvino", "throughput"),
    }
    assert "one after the other" not in found.timed.what


def test_frames_under_way_are_counted_once() -> None:
    """Four calls of 10 ms that wait for one another take 10 ms together: 2.5 ms a frame."""
    together = threading.Barrier(4)

    def predict(frame: object) -> SimpleNamespace:
        together.wait(timeout=30)
        time.sleep(0.01)
        return SimpleNamespace(timing_ms={"infer": 10.0})

    with ThreadPoolExecutor(4) as callers:
        each = Contender(cast(Any, "a"), cast(Any, predict), "throughput", 4, callers)
        turn = each.turn(FRAMES[0])
        each.count(turn)
    assert len(turn.calls) % 4 == 0
    assert all(ms >= 10 for ms, _ in turn.calls)
    assert turn.frame_ms == pytest.approx(min(ms for ms, _ in turn.calls) / 4, rel=0.9)
    assert (len(each.frame_ms), len(each.latencies_ms)) == (1, len(turn.calls))
    assert each.stages_ms == {"infer": [10.0] * len(turn.calls)}


@pytest.mark.usefixtures("quick")
def test_parts_are_those_that_a_result_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    parts = {"geometry": 1.0, "infer": 2.0, "nms": 0.5, "tracking": 4.0}
    monkeypatch.setattr(Predictor, "__call__", lambda self, frame: SimpleNamespace(timing_ms=parts))
    (row,) = edgecnn.benchmark(bundle, runtime="ort", seconds=0.01).rows
    assert row.stages_ms == {**parts, "read": None, "decode": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda then: {"machine": replace(then.machine, cpu="486")}, "the machine's cpu was 486"),
        (lambda then: {"timed": replace(then.timed, task="detection")}, "task, was detection"),
        (lambda then: {"rows": (replace(then.rows[0], threads=99),)}, "threads of onnx-fp32 on ort was 99"),
        (
            lambda then: {"rows": (replace(then.rows[0], id="x"),)},
            "the baseline has none of onnx-fp32 on ort",
        ),
    ],
)
@pytest.mark.usefixtures("quick")
def test_baseline_of_something_else_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Benchmark], dict[str, Any]], said: str
) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    run = partial(edgecnn.benchmark, tmp_path / "a.edge", runtime="ort", seconds=0.01)
    then = run()
    then = replace(then, machine=replace(then.machine, others_share=None))
    assert run(baseline=then).rows
    monkeypatch.setattr(measuring, "warm_up", lambda *given: pytest.fail("was measured"))
    with pytest.raises(InputError, match=said):
        run(baseline=replace(then, **change(then)))


@pytest.mark.parametrize(("source", "said"), [("folder", r"b\.png: "), (None, "frames that were made up: ")])
def test_frame_that_no_window_fits_is_named(tmp_path: Path, source: str | None, said: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size in (("a", 40), ("b", 20), ("c", 40)):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((size, size, 3), np.uint8))
    side = 32 if source else 1000
    window = WindowGeometry(stride=16)
    spec = ModelSpec(task="window_detection", size_hw=(side, side), activation="none", window=window)
    write_mean_color(tmp_path / "a.edge", spec)
    with pytest.raises(InputError, match=f"{said}.*smaller than the smallest window"):
        edgecnn.benchmark(tmp_path / "a.edge", runtime="ort", source=source and tmp_path / source)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"mode": "fast"}, InputError, "mode is latency, throughput, both, not 'fast'"),
        ({"runtime": "nope"}, InputError, "no runtime 'nope'"),
        ({"runtime": "torch"}, BundleError, "takes torch"),
        ({"precision": "fp16"}, InputError, "no runtime takes it in fp16"),
        ({"precision": "fp8"}, InputError, "precision is"),
        ({"seconds": 0.0}, InputError, "seconds must be above 0"),
        ({"seconds": float("nan")}, InputError, "seconds must be above 0"),
    ],
)
def test_what_cannot_be_asked_for(
    tmp_path: Path, options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    with pytest.raises(kind, match=said):
        edgecnn.benchmark(tmp_path / "a.edge", **options)


def test_nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.runtimes import ort

    def missing() -> None:
        raise Unavailable("no engine")

    monkeypatch.setattr(ort.Backend, "check_here", missing)
    write_mean_color(tmp_path / "a.edge", SPEC)
    with pytest.raises(Unavailable, match=r"no runtime here can run .*a\.edge \(ort: no engine\)"):
        edgecnn.benchmark(tmp_path / "a.edge", runtime="ort")


@pytest.mark.usefixtures("quick")
def test_interrupt_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: object) -> FirstResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measure_first_result", interrupt)
    write_mean_color(tmp_path / "a.edge", SPEC)
    with pytest.raises(Interrupted) as interrupted:
        edgecnn.benchmark(tmp_path / "a.edge", runtime="ort", seconds=0.01)
    found = interrupted.value.found
    assert found.interrupted
    assert (found.rows[0].n >= 1, found.rows[0].first_result_ms) == (True, None)
    assert found.rows[0].first_result_reason == "interrupted before that"


def test_interrupt_before_anything_was_measured_is_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "warm_up", interrupt)
    write_mean_color(tmp_path / "a.edge", SPEC)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        edgecnn.benchmark(tmp_path / "a.edge", runtime="ort", seconds=0.01)
    assert not isinstance(interrupted.value, Interrupted)
