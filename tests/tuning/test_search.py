"""The search on engines whose times are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate
from edgecnn.errors import InputError, Unavailable
from edgecnn.progress import silent_work
from edgecnn.runtimes import ort
from edgecnn.timing import Race
from edgecnn.tuning import search as module
from edgecnn.tuning.search import Search
from edgecnn.tuning.settings import Grid, Setting
from tests.bundles import entry, write_artifacts, write_mean_color

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
FP32, INT8 = entry("onnx-fp32", "onnx"), entry("onnx-int8", "onnx", "int8", "cpu")
CANDIDATES = [Candidate(ort.Backend, FP32), Candidate(ort.Backend, INT8)]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_artifacts(tmp_path / "a.edge", SPEC, [FP32, INT8])


@pytest.fixture
def search(bundle: Bundle) -> Iterator[Callable[..., Search]]:
    with ExitStack() as closing:
        yield lambda objective, processors=2, bundle=bundle: Search(
            bundle, None, Grid.of(bundle, objective, processors), closing, silent_work
        )


def known_times(monkeypatch: pytest.MonkeyPatch, ms: Callable[[Setting], float]) -> list[str]:
    """Let settings take known times; tells which were timed."""
    timed: list[str] = []

    def turn(self: Search, setting: Setting) -> tuple[Setting, Callable[[], float]]:
        timed.append(str(setting))
        return setting, lambda: ms(setting)

    monkeypatch.setattr(Search, "_turn", turn)
    return timed


def test_neighbours_lead_to_the_fastest(
    search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads are the best of sixteen; where it begins, with one and with all, is as good."""
    timed = known_times(
        monkeypatch,
        lambda each: (1 if each.candidate.entry is INT8 else 1.3) * (10 + abs((each.threads or 0) - 4)),
    )
    found = search("latency", 16).fastest(CANDIDATES, 0.001)
    assert str(found[0][0]) == "onnx-int8 on ort, 4 threads"
    assert found[0][1] == pytest.approx(10)
    assert [ms for _, ms in found] == sorted(ms for _, ms in found)
    assert "onnx-fp32 on ort, 1 thread" in timed


def test_what_is_far_behind_has_no_neighbours_tried(
    search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = known_times(monkeypatch, lambda each: 10 if each.candidate.entry is INT8 else 20)
    search("throughput").fastest(CANDIDATES, 0.001)
    assert {name for name in timed if "fp32" in name} == {"onnx-fp32 on ort, 2 streams of 1 thread"}
    assert len({name for name in timed if "int8" in name}) > 5


def test_times_of_those_that_were_dropped_are_beside_those_of_the_best() -> None:
    """The machine was twice as fast in the first race."""
    races = [
        Race("a", 5.0, {"a": 1.0, "slow": 1.5}, ("a",)),
        Race("b", 8.0, {"a": 1.25, "b": 1.0}, ("b",)),
    ]
    assert module._times_ms(races) == {"b": 8.0, "a": 10.0, "slow": 15.0}


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_timed_for_real(
    search: Callable[..., Search], objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.001)
    tried = search(objective)
    found = tried.fastest(CANDIDATES, 0.01)
    assert {each.candidate.entry.id for each, _ in found} == {"onnx-fp32", "onnx-int8"}
    assert all(ms > 0 for _, ms in found)
    assert tried.refused == {}
    assert ({each.batch for each, _ in found} > {1}) == (objective == "throughput")


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_windows_of_a_picture(
    tmp_path: Path, search: Callable[..., Search], objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.001)
    monkeypatch.setattr(module, "WINDOWS_A_SIDE", 3)
    spec = SPEC.replace(task="window_detection", window=WindowGeometry(stride=2))
    bundle = write_mean_color(tmp_path / "b.edge", spec)
    candidates = [Candidate(ort.Backend, bundle.manifest.artifacts[0])]
    assert search(objective, bundle=bundle).fastest(candidates, 0.01)


def test_what_is_refused_says_why_and_the_others_are_timed(
    search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.open_artifact

    def refuse(bundle: Bundle, listed: Any, *given: Any, **more: Any) -> Any:
        if listed.id == "onnx-int8":
            raise InputError("int8 is refused")
        return real(bundle, listed, *given, **more)

    monkeypatch.setattr(module, "TURN_S", 0.001)
    monkeypatch.setattr(module, "open_artifact", refuse)
    tried = search("latency")
    assert {each.candidate.entry.id for each, _ in tried.fastest(CANDIDATES, 0.01)} == {"onnx-fp32"}
    assert {name: str(error) for name, error in tried.refused.items()} == {
        "onnx-int8 on ort, 1 thread": "int8 is refused",
        "onnx-int8 on ort, 2 threads": "int8 is refused",
    }
    with pytest.raises(InputError, match="int8 is refused"):
        search("latency").fastest(CANDIDATES[1:], 0.01)


def test_engine_that_has_fewer_streams_is_named_as_it_is(
    search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.001)
    monkeypatch.setattr(ort.Backend, "parallel", property(lambda self: min(self.options.stream_count, 3)))
    found = search("throughput", 8).fastest(CANDIDATES, 0.01)
    names = [str(each) for each, _ in found]
    assert "onnx-fp32 on ort, 3 streams of 1 thread" in names
    assert {each.streams for each, _ in found} <= {1, 2, 3}
    assert len(set(names)) == len(names)


def test_models_are_closed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = module.open_artifact
    monkeypatch.setattr(
        module, "open_artifact", lambda *given, **more: opened.append(real(*given, **more)) or opened[-1]
    )
    monkeypatch.setattr(module, "TURN_S", 0.001)
    with pytest.raises(KeyboardInterrupt), ExitStack() as closing:
        tried = Search(bundle, None, Grid.of(bundle, "latency", 2), closing, silent_work)
        monkeypatch.setattr(module, "race", lambda *given, **more: (_ for _ in ()).throw(KeyboardInterrupt))
        tried.fastest(CANDIDATES, 0.01)
    assert len(opened) == 4
    assert all(model._closed for model in opened)


def test_memory_ends(search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.001)
    monkeypatch.setattr(module, "has_room", lambda: False)
    tried = search("latency")
    assert len(tried.fastest(CANDIDATES, 0.01)) == 1
    assert all(isinstance(error, Unavailable) for error in tried.refused.values())
    assert len(tried.refused) >= 3
