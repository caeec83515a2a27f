"""Which artifact of a bundle a runtime takes, and how it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgecnn import ModelSpec, engine_cache, engines
from edgecnn.bundle import Bundle
from edgecnn.engine_cache import Target
from edgecnn.errors import BundleError, EngineMismatch, InputError, Unavailable
from edgecnn.loading import artifact_for, open_artifact, open_bundle, read_artifact
from edgecnn.manifest import ArtifactEntry
from edgecnn.runtimes import Runtime, RuntimeOptions, backend, tensorrt
from tests.bundles import entry, mean_color_model, mean_color_scores, write_artifacts, write_mean_color
from tests.gpu import without_gpu

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
HERE = Target(flavor="tensorrt_rtx", tensorrt="1.7.1", compute_capability="8.9")
ADA = {"flavor": "tensorrt_rtx", "tensorrt": "1.7.1", "compute_capability": "8.9"}

FP32, FP16, INT8 = (
    entry("onnx-fp32", "onnx"),
    entry("onnx-fp16", "onnx", "fp16"),
    entry("onnx-int8", "onnx", "int8", "cpu"),
)
INT8_TENSORRT = entry("onnx-int8-tensorrt", "onnx", "int8", "tensorrt")
IR_FP32, IR_FP16, IR_INT8 = (
    entry("openvino-fp32", "openvino"),
    entry("openvino-fp16", "openvino", "fp16"),
    entry("openvino-int8", "openvino", "int8", "cpu"),
)
ENGINE = entry("tensorrt-int8-sm89", "tensorrt", "int8", "tensorrt", **ADA)
OTHER_ENGINE = entry(
    "tensorrt-int8-sm120", "tensorrt", "int8", "tensorrt", **{**ADA, "compute_capability": "12.0"}
)


def taken(path: Path, entries: Sequence[ArtifactEntry], runtime: str, precision: str = "auto") -> str:
    return artifact_for(write_artifacts(path, SPEC, entries), backend(runtime), precision).id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.edge"


@pytest.fixture
def _ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "target_here", lambda: HERE)


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ([FP32], "onnx-fp32"),
        ([INT8, FP32], "onnx-int8"),
        ([FP32, INT8], "onnx-fp32"),
        ([FP16, FP32, INT8], "onnx-fp16"),
        ([INT8_TENSORRT, FP32], "onnx-fp32"),
        ([IR_INT8, FP32], "onnx-fp32"),
    ],
)
def test_ort_takes_what_is_listed_first_and_placed_for_it(
    path: Path, entries: list[ArtifactEntry], name: str
) -> None:
    assert taken(path, entries, "ort") == name


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ([FP32], "onnx-fp32"),
        ([FP32, IR_FP32], "openvino-fp32"),
        ([INT8, IR_INT8, FP32, IR_FP32], "openvino-int8"),
        ([INT8, FP32, IR_FP32, IR_FP16], "openvino-fp32"),
        ([INT8_TENSORRT, FP32], "onnx-fp32"),
    ],
    ids=["onnx", "ir", "int8", "int8 ir was left out", "int8 for another"],
)
def test_openvino_takes_ir_before_onnx(path: Path, entries: list[ArtifactEntry], name: str) -> None:
    """INT8 in IR that was left out was slower on OpenVINO: the same in ONNX would be, too."""
    assert taken(path, entries, "openvino") == name


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ([FP32], "onnx-fp32"),
        ([FP32, FP16], "onnx-fp16"),
        ([INT8, FP32], "onnx-fp32"),
        ([FP32, FP16, INT8_TENSORRT], "onnx-int8-tensorrt"),
        ([FP32, INT8_TENSORRT, OTHER_ENGINE], "onnx-int8-tensorrt"),
        ([FP32, INT8_TENSORRT, OTHER_ENGINE, ENGINE], "tensorrt-int8-sm89"),
    ],
)
@pytest.mark.usefixtures("_ada")
def test_tensorrt_takes_what_costs_least_and_an_engine_that_fits(
    path: Path, entries: list[ArtifactEntry], name: str
) -> None:
    assert taken(path, entries, "tensorrt") == name


def test_no_engine_fits_where_there_is_no_gpu(path: Path) -> None:
    without_gpu()
    assert taken(path, [FP32, ENGINE], "tensorrt") == "onnx-fp32"


@pytest.mark.parametrize(
    ("runtime", "precision", "name"),
    [
        ("ort", "fp32", "onnx-fp32"),
        ("ort", "int8", "onnx-int8"),
        ("openvino", "fp16", "openvino-fp16"),
        ("openvino", "int8", "onnx-int8"),
        ("tensorrt", "fp32", "onnx-fp32"),
    ],
)
def test_precision_that_is_asked_for(path: Path, runtime: str, precision: str, name: str) -> None:
    assert taken(path, [INT8, FP32, IR_FP32, IR_FP16, INT8_TENSORRT], runtime, precision) == name


def test_bundle_without_it_says_what_it_holds(path: Path) -> None:
    with pytest.raises(BundleError) as refused:
        taken(path, [FP32, IR_FP16], "ort", "fp16")
    assert str(refused.value) == (
        f"{path}: the runtime ort takes onnx in fp16, it holds onnx-fp32 (onnx), openvino-fp16 (openvino)"
    )
    with pytest.raises(BundleError, match="the runtime tensorrt takes tensorrt or onnx in int8, it holds"):
        taken(path, [FP32, INT8], "tensorrt", "int8")


def test_precision_is_checked(path: Path) -> None:
    with pytest.raises(InputError, match="precision is auto, fp32, fp16 or int8, not 'int4'"):
        taken(path, [FP32], "ort", "int4")


def test_both_files_of_a_format_are_read(path: Path) -> None:
    bundle = write_artifacts(path, SPEC, [IR_INT8, FP32])
    artifact = read_artifact(bundle, IR_INT8)
    assert (artifact.content, artifact.weights) == (b"no model", b"no weights")
    assert (artifact.format, artifact.precision, artifact.placement) == ("openvino", "int8", "cpu")
    assert artifact.inputs == bundle.manifest.inputs
    plain = read_artifact(bundle, FP32)
    assert (plain.content, plain.weights) == (mean_color_model(SPEC), b"")


@pytest.mark.parametrize("name", ["openvino-int8.model", "openvino-int8.bin"])
def test_altered_files_are_not_loaded(path: Path, name: str) -> None:
    bundle = write_artifacts(path, SPEC, [IR_INT8, FP32])
    (path / name).write_bytes(b"altered!")
    with pytest.raises(BundleError, match=name):
        read_artifact(bundle, IR_INT8)


def test_open_artifact_runs_it(path: Path) -> None:
    bundle = write_mean_color(path, SPEC)
    with open_artifact(
        bundle, bundle.manifest.artifacts[0], backend("ort"), RuntimeOptions(threads=1)
    ) as model:
        image = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), np.uint8)
        np.testing.assert_allclose(model.run({"image": image})["scores"], mean_color_scores(image), atol=1e-6)


@pytest.mark.usefixtures("_ada")
def test_tensorrt_is_served_by_onnx_runtime_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what ONNX Runtime takes of the bundle, which is not what TensorRT builds from."""
    bundle = write_artifacts(path, SPEC, [FP32, INT8_TENSORRT])
    seen = {}

    def opened(artifact: object, options: RuntimeOptions, **more: object) -> Runtime:
        seen.update(more, artifact=artifact)
        return more["fallback"]()  # type: ignore[no-any-return, operator]

    monkeypatch.setattr(engines, "open_on_tensorrt", opened)
    entry = artifact_for(bundle, backend("tensorrt"))
    options = RuntimeOptions(threads=1)
    with open_artifact(bundle, entry, backend("tensorrt"), options, on_stale="serve") as model:
        assert (model.name, model.options.threads) == ("ort", 1)
        assert model.artifact.name == str(path / "onnx-fp32.model")
    assert seen["artifact"].name == str(path / "onnx-int8-tensorrt.model")
    assert (seen["on_stale"], seen["batches"]) == ("serve", SPEC.batch_range)


@pytest.mark.usefixtures("_ada")
def test_an_engine_that_does_not_load_is_built_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = entry("tensorrt-int8-sm89", "tensorrt", "int8", "tensorrt", source=INT8_TENSORRT.id, **ADA)
    bundle = write_artifacts(path, SPEC, [FP32, INT8_TENSORRT, made])

    class Mismatched(tensorrt.Backend):
        def _load(self) -> None:
            raise EngineMismatch("it was built for another driver")

    opened: list[str] = []
    monkeypatch.setattr(
        engines, "open_on_tensorrt", lambda artifact, *a, **more: opened.append(artifact.name)
    )
    open_artifact(bundle, made, Mismatched, RuntimeOptions())
    assert opened == [str(path / INT8_TENSORRT.path)]
    assert "it was built for another driver" in caplog.text
    with pytest.raises(EngineMismatch):
        open_artifact(bundle, made, Mismatched, RuntimeOptions(), on_stale="error")


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ([INT8, FP32, INT8_TENSORRT], "onnx-int8"),
        ([FP16, FP32, INT8, INT8_TENSORRT], "onnx-int8"),
        ([FP16, FP32, INT8_TENSORRT], "onnx-fp16"),
    ],
)
@pytest.mark.usefixtures("_ada")
def test_meanwhile_the_precision_is_the_same_where_it_can_be(
    path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[ArtifactEntry], name: str
) -> None:
    bundle = write_artifacts(path, SPEC, entries)
    monkeypatch.setattr(engines, "open_on_tensorrt", lambda *a, fallback, **more: fallback())
    with open_artifact(bundle, INT8_TENSORRT, backend("tensorrt"), RuntimeOptions(threads=1)) as model:
        assert model.artifact.name == str(path / f"{name}.model")


def test_engine_that_may_not_be_built_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "target_here", lambda: HERE)
    bundle = write_artifacts(path, SPEC, [FP32])
    with pytest.raises(Unavailable, match=r"holds no engine of it for tensorrt_rtx 1\.7\.1"):
        open_artifact(bundle, FP32, backend("tensorrt"), RuntimeOptions(), on_stale="error")


def test_bundles_by_path_name_and_as_they_are(path: Path) -> None:
    bundle = write_mean_color(path, SPEC)
    assert open_bundle(bundle) is bundle
    assert open_bundle(str(path)).manifest == bundle.manifest
    assert open_bundle("face").manifest.spec.task == "window_detection"
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(path.with_name("b.edge"))
    with pytest.raises(InputError, match="a bundle is a path, a name or a Bundle, not a int"):
        open_bundle(3)  # type: ignore[arg-type]
    assert isinstance(open_bundle("face"), Bundle)
