"""Where the search begins and which settings are next to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes.ort import Backend
from edgecnn.tuning.settings import Grid, Setting
from tests.bundles import entry, write_mean_color

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
CANDIDATE = Candidate(Backend, entry("onnx-fp32", "onnx"))


def numbers(settings: Any) -> set[tuple[int | None, int, int]]:
    """Threads, streams, batch."""
    return {(each.threads, each.streams, each.batch) for each in settings}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_mean_color(tmp_path / "a.edge", SPEC)


def test_latency_begins_with_one_thread_and_all() -> None:
    grid = Grid("latency", 6, (1,))
    assert numbers(grid.starts(CANDIDATE, on_processor=True)) == {(1, 1, 1), (6, 1, 1)}
    assert numbers(Grid("latency", 1, (1,)).starts(CANDIDATE, on_processor=True)) == {(1, 1, 1)}


def test_throughput_begins_with_a_stream_for_each_processor() -> None:
    grid = Grid("throughput", 4, (1, 2, 4))
    assert numbers(grid.starts(CANDIDATE, on_processor=True)) == {(1, 4, 1)}


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_gpu_has_no_threads(objective: Any) -> None:
    grid = Grid(objective, 4, (1, 2))
    (start,) = grid.starts(CANDIDATE, on_processor=False)
    assert start.threads is None
    assert numbers(grid.neighbours(start)) == {(None, 1, 2)}


@pytest.mark.parametrize(
    ("threads", "near"), [(1, {1, 2}), (2, {1, 4}), (4, {2, 6}), (6, {3, 6}), (3, {1, 6})]
)
def test_threads_are_halved_and_doubled_within_the_processors(threads: int, near: set[int]) -> None:
    found = Grid("latency", 6, (1,)).neighbours(Setting(CANDIDATE, threads, 1, 1))
    assert numbers(found) == {(count, 1, 1) for count in near}


def test_threads_are_traded_for_streams() -> None:
    near = numbers(Grid("throughput", 4, (1, 2, 4)).neighbours(Setting(CANDIDATE, 2, 2, 2)))
    assert near == {(2, 2, 1), (2, 2, 4), (4, 1, 2), (1, 4, 2), (2, 1, 2), (2, 4, 2)}


def test_no_more_than_twice_as_many_threads_as_processors() -> None:
    grid = Grid("throughput", 2, (1,))
    found, new = set(), {(1, 2)}
    while new:
        found |= new
        near = (near for each in new for near in grid.neighbours(Setting(CANDIDATE, *each, 1)))
        new = {(each.threads or 0, each.streams) for each in near} - found
    assert found == {(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)}


def test_batches_are_powers_of_two_for_throughput(bundle: Bundle) -> None:
    assert Grid.of(bundle, "throughput", 2).batches == (1, 2, 4, 8)
    assert Grid.of(bundle, "latency", 2).batches == (1,)


def test_fixed_batch_stays(bundle: Bundle) -> None:
    fixed = TensorInfo(name="image", dtype="uint8", shape=(4, 4, 4, 3))
    bundle.manifest = msgspec.structs.replace(bundle.manifest, inputs=(fixed,))
    assert Grid.of(bundle, "throughput", 2).batches == (4,)


def test_windows_come_in_pictures(tmp_path: Path) -> None:
    spec = SPEC.replace(task="window_detection", window=WindowGeometry(stride=2))
    assert Grid.of(write_mean_color(tmp_path / "a.edge", spec), "throughput", 2).batches == (1,)


def test_words() -> None:
    assert str(Setting(CANDIDATE, 1, 1, 1)) == "onnx-fp32 on ort, 1 thread"
    assert str(Setting(CANDIDATE, 2, 3, 4)) == "onnx-fp32 on ort, 3 streams of 2 threads, batches of 4"
    assert str(Setting(CANDIDATE, None, 1, 8)) == "onnx-fp32 on ort, the device, batches of 8"
