"""Arrows: checked before and after, and chains that say where they stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.converters.base import Arrow, check_file, model_errors, run_chain, suggest
from edgecnn.errors import ModelError, SpecError


class Add(Arrow[int, int]):
    def __init__(self, name: str, limit: int = 100) -> None:
        self.name = name  # type: ignore[misc]
        self.limit = limit

    def requires(self, source: int) -> None:
        if source < 0:
            raise SpecError(f"{source} is below zero")

    def convert(self, source: int) -> int:
        return source + 1

    def ensures(self, source: int, target: int) -> None:
        if target > self.limit:
            raise ModelError(f"{target} is above {self.limit}")


def test_chain_gives_every_target_and_step() -> None:
    targets, steps = run_chain(1, [Add("first"), Add("second")])
    assert targets == [2, 3]
    assert [step.name for step in steps] == ["first", "second"]
    assert all(step.seconds >= 0 for step in steps)


def test_chain_stops_at_a_target_and_names_the_steps_that_ran() -> None:
    with pytest.raises(ModelError, match=r"^3 is above 2 \[third after first\]$"):
        run_chain(1, [Add("first"), Add("third", limit=2)])


def test_chain_stops_at_a_source() -> None:
    with pytest.raises(SpecError, match=r"^-1 is below zero \[first\]$"):
        run_chain(-1, [Add("first")])


def test_suggestions() -> None:
    assert suggest("resnet81", ["resnet18", "vgg16"]) == "; did you mean resnet18?"
    assert suggest("zzz", ["resnet18"]) == ""


def test_errors_of_libraries_become_model_errors() -> None:
    with (
        pytest.raises(ModelError, match=r"^net\.onnx: not valid \(first\)$"),
        model_errors("net.onnx: not valid"),
    ):
        raise AssertionError("first\nsecond")
    with pytest.raises(SpecError, match=r"^ours$"), model_errors("net.onnx: not valid"):
        raise SpecError("ours")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pt2: no such file$"):
        check_file(tmp_path / "none.pt2")
    with pytest.raises(ModelError, match=r": no such weights file$"):
        check_file(tmp_path, "weights file")
