"""Verification and parity: what is equal, what is not, and what could not be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgecnn
from edgecnn import ModelSpec
from edgecnn.bundle import encode_npz, write_bundle
from edgecnn.errors import InputError, MissingDependency
from edgecnn.parity import compare
from tests.bundles import mean_color_model, write_mean_color

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
ONE = ModelSpec(task="window_detection", size_hw=(4, 4), activation="sigmoid")


def test_good_bundle_passes(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    result = edgecnn.verify(tmp_path / "a.edge")
    assert result.ok
    (check,) = result.artifacts
    assert (check.id, check.runtime, check.status, check.agreement) == ("onnx-fp32", "ort", "ok", 1.0)
    assert check.max_abs is not None
    assert check.max_abs < 1e-6
    assert result.to_json()["artifacts"][0]["cosine"] > 0.999999


def rewrite_golden(path: Path, change: float) -> None:
    bundle = edgecnn.Bundle(path)
    golden = bundle.golden()
    assert golden is not None
    golden["output.scores"] = golden["output.scores"] + np.float32(change)
    manifest = bundle.manifest
    with write_bundle(path) as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.add("golden.npz", encode_npz(golden))
        import msgspec

        writer.finish(msgspec.structs.replace(manifest, files=writer.files))


@pytest.mark.parametrize(("change", "ok"), [(5e-4, True), (2e-3, False), (float("nan"), False)])
def test_device_that_computes_something_else_fails(tmp_path: Path, change: float, ok: bool) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    rewrite_golden(tmp_path / "a.edge", change)
    result = edgecnn.verify(tmp_path / "a.edge")
    assert result.ok is ok
    assert bool(result.artifacts[0].reason) is not ok


def test_runtime_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    result = edgecnn.verify(tmp_path / "a.edge")
    assert not result.ok
    assert result.artifacts[0].status == "skipped"
    assert "pip install" in result.artifacts[0].reason
    with pytest.raises(MissingDependency):
        edgecnn.verify(tmp_path / "a.edge", runtime="ort")


def test_bundle_without_golden_tensors(tmp_path: Path) -> None:
    import msgspec

    manifest = write_mean_color(tmp_path / "a.edge", SPEC).manifest
    with write_bundle(tmp_path / "a.edge") as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))
    with pytest.raises(InputError, match=r"has no golden\.npz"):
        edgecnn.verify(tmp_path / "a.edge")


def test_figures_by_hand() -> None:
    reference = {"scores": np.float32([[3, 4], [1, 0]])}
    outputs = {"scores": np.float32([[4, 3], [1, 0]])}
    figures = compare(reference, outputs, SPEC)
    assert (figures.n, figures.max_abs, figures.mean_abs, figures.agreement) == (2, 1.0, 0.5, 0.5)
    assert figures.cosine == pytest.approx(24 / 25)
    assert figures.relative == 0.25


def test_one_score_is_decided_by_the_threshold() -> None:
    reference = {"scores": np.float32([[0.4], [0.6], [0.5]])}
    outputs = {"scores": np.float32([[0.6], [0.7], [0.5]])}
    assert compare(reference, outputs, ONE).agreement == pytest.approx(2 / 3)


def test_zeros_are_equal_to_zeros_and_to_nothing_else() -> None:
    zeros = {"scores": np.zeros((1, 3), np.float32)}
    assert compare(zeros, zeros, SPEC).cosine == 1.0
    assert compare(zeros, {"scores": np.float32([[0, 0, 1e-9]])}, SPEC).cosine == 0.0


def test_names_and_shapes_must_agree() -> None:
    zeros = {"scores": np.zeros((1, 3), np.float32)}
    with pytest.raises(InputError, match="output scores is missing; there are other"):
        compare(zeros, {"other": zeros["scores"]}, SPEC)
    with pytest.raises(InputError, match=r"output scores: shape \(1, 2\), the reference has \(1, 3\)"):
        compare(zeros, {"scores": np.zeros((1, 2))}, SPEC)
