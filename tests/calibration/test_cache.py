"""Observations on disk: used for the same, and only for the same."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.calibration import Observation, cache, observe_cached
from tests.calibration.nets import tiny_model

IMAGES = np.arange(12, dtype=np.uint8).reshape(-1, 1, 2, 1)
SAME: dict[str, Any] = {"model": tiny_model(), "tensors": ["relu", "shifted"], "images": IMAGES}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the model was run."""
    made: list[int] = []
    observe = cache.observe

    def counted(*arguments: Any, **options: Any) -> dict[str, Observation]:
        made.append(1)
        return observe(*arguments, **options)

    monkeypatch.setattr(cache, "observe", counted)
    return made


def assert_equal(first: dict[str, Observation], second: dict[str, Observation]) -> None:
    assert list(first) == list(second)
    for name, one in first.items():
        for field, value in vars(one).items():
            np.testing.assert_array_equal(value, getattr(second[name], field), err_msg=f"{name} {field}")


def test_the_same_is_not_run_twice(tmp_path: Path, runs: list[int]) -> None:
    first = observe_cached(**SAME, cache_dir=tmp_path)
    again = observe_cached(**SAME, cache_dir=tmp_path)
    assert len(runs) == 1
    assert_equal(first, again)
    assert type(again["relu"].n) is int


@pytest.mark.parametrize(
    "change",
    [
        {"model": tiny_model(divisor=4)},
        {"tensors": ["shifted", "relu"]},
        {"tensors": ["relu"]},
        {"images": IMAGES + np.uint8(1)},
        {"images": IMAGES[:-1]},
        {"images": IMAGES[::-1]},
    ],
    ids=["model", "order", "tensors", "pixels", "fewer", "sequence"],
)
def test_any_change_is_run(change: dict[str, Any], tmp_path: Path, runs: list[int]) -> None:
    observe_cached(**SAME, cache_dir=tmp_path)
    observe_cached(**{**SAME, **change}, cache_dir=tmp_path)
    assert len(runs) == 2


def test_another_way_of_counting_is_run(
    tmp_path: Path, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    observe_cached(**SAME, cache_dir=tmp_path)
    monkeypatch.setattr(cache, "MOMENTUM", 0.5)
    observe_cached(**SAME, cache_dir=tmp_path)
    assert len(runs) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "folder"])
def test_damaged_files_are_told_of_and_written_again(
    damage: str, tmp_path: Path, runs: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = observe_cached(**SAME, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "foreign":
        np.savez(file, counts=np.zeros((2, 3), np.int64))
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut": content[:-40], "flipped": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert_equal(first, observe_cached(**SAME, cache_dir=tmp_path))
    assert len(runs) == 2
    assert file.name in caplog.text
    if damage != "folder":
        assert_equal(first, observe_cached(**SAME, cache_dir=tmp_path))
        assert len(runs) == 2


def test_a_folder_that_cannot_be_used_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    seen = observe_cached(**SAME, cache_dir=tmp_path / "file" / "cache")
    assert list(seen) == ["relu", "shifted"]
    assert "cannot be kept" in caplog.text


def test_the_oldest_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FILES_MAX", 2)
    for age in (30, 20, 10):
        path = tmp_path / f"{age}.npz"
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    observe_cached(**SAME, cache_dir=tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    assert "10.npz" in left


@pytest.mark.parametrize(("value", "home"), [("", ".cache"), ("relative", ".cache"), ("/x", None)])
def test_where_the_cache_is(
    value: str, home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDGECNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    root = tmp_path / home if home else Path(value)
    assert cache.cache_folder() == root / "edgecnn" / "observations"
