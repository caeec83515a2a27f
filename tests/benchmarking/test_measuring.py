"""Warming up and taking turns on a clock that the calls themselves move; then a whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edgecnn
from edgecnn import ModelSpec
from edgecnn.benchmarking import Interrupted, measuring
from edgecnn.benchmarking.contenders import Contender
from edgecnn.benchmarking.measuring import take_turns, warm_up
from edgecnn.benchmarking.summary import Rounds
from edgecnn.devices.energy import EnergyMeter
from edgecnn.errors import BundleError, InputError, Unavailable
from edgecnn.first_result import FirstResult
from edgecnn.progress import silent_work
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
    assert best.stages_ms.read is None
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
    assert found.rows[0].stages_ms.read is not None


@pytest.mark.usefixtures("quick")
def test_precision_and_runtime_choose_rows(tmp_path: Path) -> None:
    entries = [entry("onnx-int8", "onnx", "int8", "cpu"), entry("onnx-fp32", "onnx")]
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, entries)
    found = edgecnn.benchmark(bundle, runtime="ort,openvino", precision="int8", seconds=0.01)
    assert {(row.id, row.runtime) for row in found.rows} == {("onnx-int8", "ort"), ("onnx-int8", "openvino")}


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
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
