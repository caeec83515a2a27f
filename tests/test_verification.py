"""Verification and parity: what is equal, what is not, and what could not be run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgecnn
from edgecnn import Bundle, ModelSpec, engine_cache, verification
from edgecnn.bundle import write_bundle
from edgecnn.engine_cache import Target
from edgecnn.errors import BundleError, InputError, MissingDependency, Unavailable
from edgecnn.manifest import ArtifactEntry, Fidelity
from edgecnn.npz import encode_npz
from edgecnn.parity import compare
from edgecnn.runtimes import tensorrt
from tests.bundles import mean_color_model, write_mean_color
from tests.gpu import without_gpu

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
ONE = ModelSpec(task="window_detection", size_hw=(4, 4), activation="sigmoid")


def test_good_bundle_passes(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    result = edgecnn.verify(tmp_path / "a.edge", runtime="ort")
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
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))


@pytest.mark.parametrize(("change", "ok"), [(1e-6, True), (2e-2, False), (float("nan"), False)])
def test_device_that_computes_something_else_fails(tmp_path: Path, change: float, ok: bool) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    rewrite_golden(tmp_path / "a.edge", change)
    result = edgecnn.verify(tmp_path / "a.edge")
    assert result.ok is ok
    assert bool(result.artifacts[0].reason) is not ok


def test_runtime_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(verification, "known", lambda: ["null", "ort"])
    result = edgecnn.verify(tmp_path / "a.edge")
    assert not result.ok
    (check,) = result.artifacts
    assert (check.runtime, check.status) == ("ort", "skipped")
    assert "pip install" in check.reason
    with pytest.raises(MissingDependency):
        edgecnn.verify(tmp_path / "a.edge", runtime="ort")


def test_every_engine_that_is_here_is_asked(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", SPEC)
    result = edgecnn.verify(tmp_path / "a.edge")
    assert [check.runtime for check in result.artifacts] == ["openvino", "ort", "tensorrt"]
    for check in result.artifacts:
        assert (check.status == "ok") == (check.agreement == 1.0)
        assert (check.status == "skipped") == bool(check.reason)
    assert result.ok


def with_engine(path: Path, **requires: str) -> Bundle:
    """The bundle with an engine in it, built for something."""
    manifest = write_mean_color(path, SPEC).manifest
    golden = edgecnn.Bundle(path).golden()
    entry = ArtifactEntry(
        id="tensorrt-fp32-sm89",
        format="tensorrt",
        precision="fp32",
        placement="tensorrt",
        path="tensorrt/model.fp32.sm89.engine",
        requires={"flavor": "tensorrt_rtx", "tensorrt": "1.7.1", "compute_capability": "8.9", **requires},
    )
    with write_bundle(path) as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.add("golden.npz", encode_npz(golden or {}))
        writer.add(entry.path, b"machine code of another GPU")
        artifacts = (*manifest.artifacts, entry)
        writer.finish(msgspec.structs.replace(manifest, files=writer.files, artifacts=artifacts))
    return edgecnn.Bundle(path)


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with TensorRT for RTX and a GPU, as far as anyone can see who does not use it."""
    here = Target(flavor="tensorrt_rtx", tensorrt="1.7.1", compute_capability="8.9")
    monkeypatch.setattr(engine_cache, "target_here", lambda: here)
    monkeypatch.setattr(tensorrt.Backend, "check_here", classmethod(lambda cls: None))


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("change", [{"compute_capability": "8.6"}, {"tensorrt": "1.3.0"}])
def test_engine_of_another_device_is_skipped(tmp_path: Path, change: dict[str, str]) -> None:
    result = edgecnn.verify(with_engine(tmp_path / "a.edge", **change))
    check = next(check for check in result.artifacts if check.id == "tensorrt-fp32-sm89")
    assert (check.runtime, check.status) == ("tensorrt", "skipped")
    (value,) = change.values()
    assert value in check.reason
    assert "here is tensorrt_rtx 1.7.1 and compute capability 8.9" in check.reason


@pytest.mark.usefixtures("ada")
def test_engine_that_should_fit_and_does_not_load_fails(tmp_path: Path) -> None:
    result = edgecnn.verify(with_engine(tmp_path / "a.edge"))
    check = next(check for check in result.artifacts if check.id == "tensorrt-fp32-sm89")
    assert (check.status, result.ok) == ("failed", False)


def test_engine_is_skipped_where_there_is_no_gpu(tmp_path: Path) -> None:
    without_gpu()
    path = with_engine(tmp_path / "a.edge").path
    result = edgecnn.verify(path)
    assert result.ok
    (check,) = (check for check in result.artifacts if check.id == "tensorrt-fp32-sm89")
    assert check.status == "skipped"
    with pytest.raises(Unavailable):
        edgecnn.verify(path, runtime="tensorrt")


def test_int8_of_tensorrt_runs_where_it_was_measured_and_nowhere_else(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    golden, manifest = bundle.golden(), bundle.manifest
    assert golden is not None
    entry = msgspec.structs.replace(manifest.artifacts[0], precision="int8", placement="tensorrt")
    row = Fidelity(id=entry.id, runtime="ort", n=1, max_abs=0.1, mean_abs=0.1, cosine=1, agreement=1)
    with write_bundle(bundle.path) as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.add("golden.npz", encode_npz(golden))
        writer.finish(
            msgspec.structs.replace(manifest, files=writer.files, artifacts=(entry,), fidelity=(row,))
        )
    found = {check.runtime: check.status for check in edgecnn.verify(bundle.path).artifacts}
    assert set(found) == {"ort", "tensorrt"}
    assert found["ort"] == "ok"


def test_bundle_without_golden_tensors(tmp_path: Path) -> None:
    manifest = write_mean_color(tmp_path / "a.edge", SPEC).manifest
    with write_bundle(tmp_path / "a.edge") as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))
    with pytest.raises(BundleError, match=r"has no golden\.npz"):
        edgecnn.verify(tmp_path / "a.edge")


def test_golden_tensors_must_cover_every_output(tmp_path: Path) -> None:
    manifest = write_mean_color(tmp_path / "a.edge", SPEC).manifest
    with write_bundle(tmp_path / "a.edge") as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.add("golden.npz", encode_npz({"input": np.zeros((1, 4, 4, 3), np.uint8)}))
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))
    with pytest.raises(BundleError, match=r"golden\.npz: lacks output\.scores; convert it again"):
        edgecnn.verify(tmp_path / "a.edge")


@pytest.mark.parametrize(("recorded", "status"), [(0.2, "ok"), (0.02, "failed")])
def test_int8_may_differ_as_much_as_where_it_was_made(tmp_path: Path, recorded: float, status: str) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    golden, manifest = bundle.golden(), bundle.manifest
    assert golden is not None
    golden = {name: array + 0.1 if name == "output.scores" else array for name, array in golden.items()}
    row = Fidelity(
        id=manifest.artifacts[0].id,
        runtime="ort",
        n=1,
        max_abs=recorded,
        mean_abs=recorded,
        cosine=1,
        agreement=1,
    )
    with write_bundle(tmp_path / "a.edge") as writer:
        writer.add("model.onnx", mean_color_model(SPEC))
        writer.add("golden.npz", encode_npz(golden))
        artifacts = (msgspec.structs.replace(manifest.artifacts[0], precision="int8", placement="cpu"),)
        writer.finish(
            msgspec.structs.replace(manifest, files=writer.files, artifacts=artifacts, fidelity=(row,))
        )
    (check,) = edgecnn.verify(tmp_path / "a.edge", runtime="ort").artifacts
    assert check.status == status
    assert ("where the bundle was made by 0.02" in check.reason) == (status == "failed")


def test_figures_by_hand() -> None:
    reference = {"scores": np.float32([[3, 4], [1, 0]])}
    outputs = {"scores": np.float32([[4, 3], [1, 0]])}
    figures = compare(reference, outputs, SPEC)
    assert (figures.n, figures.max_abs, figures.mean_abs, figures.agreement) == (2, 1.0, 0.5, 0.5)
    assert figures.cosine == pytest.approx(25 / 26)
    assert figures.error == pytest.approx(1 / np.std([3, 4, 1, 0]))
    assert figures.worst == "scores"


def test_one_score_is_decided_by_the_threshold() -> None:
    reference = {"scores": np.float32([[0.4], [0.6], [0.5]])}
    outputs = {"scores": np.float32([[0.6], [0.7], [0.5]])}
    assert compare(reference, outputs, ONE).agreement == pytest.approx(2 / 3)


def test_large_output_does_not_hide_a_wrong_one() -> None:
    rng = np.random.default_rng(0)
    reference = {"scores": rng.random((8, 2)), "features": rng.random((8, 50)) * 3000}
    outputs = {"scores": reference["scores"][:, ::-1], "features": reference["features"]}
    figures = compare(reference, outputs, SPEC)
    assert figures.worst == "scores"
    assert "scores differs by" in (figures.missed("fp32") or "")


def flat() -> np.ndarray:
    """Probabilities of 1000 classes that are all near 0.001, as an untrained network gives them."""
    logits = np.random.default_rng(0).normal(0, 0.05, (16, 1000))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a[:, ::-1],
        lambda a: np.roll(a, 1, axis=1),
        lambda a: np.roll(a, 1, axis=0),
        lambda a: a * 1.001,
        lambda a: np.full_like(a, 0.001),
        lambda a: a**1.1 / (a**1.1).sum(axis=1, keepdims=True),
    ],
    ids=["reversed", "classes shifted", "inputs shifted", "scaled", "constant", "sharpened"],
)
def test_nearly_flat_probabilities_do_not_hide_a_wrong_model(
    wrong: Callable[[np.ndarray], np.ndarray],
) -> None:
    reference = flat()
    assert compare({"scores": reference}, {"scores": wrong(reference)}, SPEC).missed("fp32")


def test_rounding_passes() -> None:
    reference = flat()
    noise = reference * (1 + np.random.default_rng(1).normal(0, 1e-6, reference.shape))
    assert compare({"scores": reference}, {"scores": noise}, SPEC).missed("fp32") is None
    same = np.full((4, 3), 0.25)
    assert compare({"scores": same}, {"scores": same * (1 + 1e-7)}, SPEC).missed("fp32") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_fail(value: float) -> None:
    reference = {"scores": np.float32([[1, 2], [3, 4]])}
    figures = compare(reference, {"scores": np.float32([[1, value], [3, 4]])}, SPEC)
    assert figures.missed("fp32") == "scores is not finite"


def test_zeros_are_equal_to_zeros_and_to_nothing_else() -> None:
    zeros = {"scores": np.zeros((1, 3), np.float32)}
    assert compare(zeros, zeros, SPEC).missed("fp32") is None
    assert compare(zeros, {"scores": np.float32([[0, 0, 1e-9]])}, SPEC).missed("fp32") is not None


def test_names_and_shapes_must_agree() -> None:
    zeros = {"scores": np.zeros((1, 3), np.float32)}
    with pytest.raises(InputError, match="the outputs are other; the reference has scores"):
        compare(zeros, {"other": zeros["scores"]}, SPEC)
    with pytest.raises(InputError, match=r"output scores: shape \(1, 2\), the reference has \(1, 3\)"):
        compare(zeros, {"scores": np.zeros((1, 2))}, SPEC)
    with pytest.raises(InputError, match="no reference output"):
        compare({}, zeros, SPEC)
