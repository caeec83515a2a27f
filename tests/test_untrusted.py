"""ONNX files go through a child process: the same comes back, errors too, and its death is one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.converters.load import load_model
from edgecnn.converters.onnx_canonical import canonical
from edgecnn.errors import CompilerFailed, ModelError
from edgecnn.isolation import Limits
from edgecnn.spec import ModelSpec
from edgecnn.untrusted import canonical_of
from tests.bundles import mean_color_model

SPEC = ModelSpec(task="classification", size_hw=(8, 8), labels=("b", "g", "r"), activation="none")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "user.onnx").write_bytes(mean_color_model(SPEC))
    return tmp_path / "user.onnx"


@pytest.mark.parametrize("batch", [None, 2])
def test_what_comes_back_is_what_would_be_made_here(path: Path, batch: int | None) -> None:
    made, here = (
        canonical_of(load_model(path), SPEC, batch=batch),
        canonical(load_model(path), SPEC, batch=batch),
    )
    for field in ("model", "inputs", "outputs", "network", "reference", "opset"):
        assert getattr(made, field) == getattr(here, field), field
    assert [step.name for step in made.steps] == [step.name for step in here.steps]


def test_errors_are_those_of_the_conversion(path: Path) -> None:
    with pytest.raises(ModelError, match=r"gives batch×16×16×3; change the spec") as caught:
        canonical_of(load_model(path), SPEC.replace(size_hw=(16, 16)))
    assert "\n" not in str(caught.value)
    path.write_bytes(b"\x08\x08garbage")
    with pytest.raises(ModelError, match=r"user\.onnx: not an ONNX model"):
        canonical_of(load_model(path), SPEC)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(seconds=0.02), r"took more than 0\.02 s"),
        (Limits(memory_mb=10), r"needed more than 10 MB"),
    ],
)
def test_a_child_that_takes_too_much_is_ended_with_the_model_named(
    path: Path, limits: Limits, message: str
) -> None:
    with pytest.raises(
        CompilerFailed,
        match=rf"user\.onnx: its conversion and first run {message}; export the model again, or allow more",
    ):
        canonical_of(load_model(path), SPEC, limits=limits)
