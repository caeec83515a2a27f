"""Artifacts in an engine's own form: IR and engines in bundles, what they have to hold, what is left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from onnx import TensorProto, helper

import edgecnn
from edgecnn import Bundle, ModelSpec, compiled, rungs
from edgecnn.auto import open_model
from edgecnn.errors import DeviceUnavailable, GateMissed, MissingDependency, ModelError
from edgecnn.openvino_api import read_model
from edgecnn.runtimes import openvino
from edgecnn.tensorrt_api import MODULES, find_tensorrt
from tests.int8 import FASTER, SLOWER, clock
from tests.paths import engine
from tests.test_quantization import shape_frames


@pytest.fixture
def _openvino() -> None:
    engine("openvino")


@pytest.fixture
def _tensorrt() -> None:
    engine("tensorrt_rtx_bindings")


with_openvino = pytest.mark.usefixtures("_openvino")
with_tensorrt = pytest.mark.usefixtures("_tensorrt")

SPEC = ModelSpec(task="classification", size_hw=(3, 3), activation="none")
RTX = ("8.6", "8.9", "12.0")


@pytest.fixture(autouse=True)
def _faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which all that is smaller is faster."""
    monkeypatch.setattr(rungs, "compare_speed", clock(FASTER))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "small.edge"


def write_onnx(path: Path, op: str, side: int, **attributes: Any) -> Path:
    """One node on float pixels (n, 3, side, side), which leaves a score for each colour."""
    graph = helper.make_graph(
        [helper.make_node(op, ["pixels"], ["scores"], name="only", **attributes)],
        "one",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def mean(tmp_path: Path) -> Path:
    """Mean of each colour: a model that takes no time to convert."""
    return write_onnx(tmp_path / "mean.onnx", "ReduceMean", 3, axes=[2, 3], keepdims=0)


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    find_tensorrt.cache_clear()
    for module in MODULES:
        monkeypatch.setitem(sys.modules, module, None)
    yield
    find_tensorrt.cache_clear()


def quantize(bundle: Path, out: Path, **options: Any) -> Bundle:
    defaults = {"calibration": shape_frames(), "samples": 32, "threads": 1, "target": ("openvino",)}
    return edgecnn.quantize(bundle, out=out, **{**defaults, **options})


def ids(bundle: Bundle) -> list[str]:
    return [entry.id for entry in bundle.manifest.artifacts]


def entry_of(bundle: Bundle, name: str) -> Any:
    return next(entry for entry in bundle.manifest.artifacts if entry.id == name)


def row_of(bundle: Bundle, name: str, compute: str = "f32") -> Any:
    rows = bundle.manifest.fidelity
    return next(row for row in rows if (row.id, row.compute) == (name, compute))


def weight_types(bundle: Bundle, name: str) -> set[str]:
    """Types of the weights of convolutions, as they are stored."""
    entry = entry_of(bundle, name)
    network = read_model(bundle.read(entry.path), bundle.read(entry.weights))
    constants = [node for node in network.get_ops() if node.get_type_name() == "Constant"]
    return {node.get_element_type().get_type_name() for node in constants if len(node.shape) == 4}


# OpenVINO


@with_openvino
def test_ir_of_a_model_that_stays_in_fp32(mean: Path, out: Path) -> None:
    bundle = edgecnn.convert(str(mean), spec=SPEC, out=out, samples=8, target=("onnx", "openvino"))
    assert ids(bundle) == ["onnx-fp32", "openvino-fp32"]
    entry = entry_of(bundle, "openvino-fp32")
    assert (entry.format, entry.precision, entry.placement) == ("openvino", "fp32", None)
    assert (entry.path, entry.weights) == ("openvino/model.fp32.xml", "openvino/model.fp32.bin")
    assert entry.requires == {"opset": "17", "openvino": openvino.Backend.version()}
    assert entry.build_s > 0
    row = row_of(bundle, "openvino-fp32")
    assert (row.runtime, row.n, row.agreement) == ("openvino", 8, 1.0)
    assert row.max_abs < 1e-5
    with open_model(bundle, runtime="openvino") as model:
        assert model.artifact.name == str(out / entry.path)
    assert edgecnn.verify(bundle, runtime="openvino").ok


@with_openvino
def test_ir_with_weights_in_fp16(shapes_bundle: Path, out: Path) -> None:
    bundle = quantize(shapes_bundle, out, precision="fp16")
    assert ids(bundle) == ["onnx-fp32", "openvino-fp32", "openvino-fp16"]
    assert "f16" in weight_types(bundle, "openvino-fp16")
    assert "f16" not in weight_types(bundle, "openvino-fp32")
    sizes = {name: bundle.file(f"openvino/model.{name}.bin").bytes for name in ("fp16", "fp32")}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert row_of(bundle, "openvino-fp32").max_abs < row_of(bundle, "openvino-fp16").max_abs < 0.01


@with_openvino
def test_ir_in_int8_is_listed_first_and_records_how_it_was_made(shapes_bundle: Path, out: Path) -> None:
    bundle = quantize(shapes_bundle, out, target=("onnx", "openvino"))
    assert ids(bundle) == ["onnx-int8", "openvino-int8", "onnx-fp32", "openvino-fp32"]
    entry = entry_of(bundle, "openvino-int8")
    assert (entry.path, entry.weights, entry.placement) == (
        "openvino/model.int8.xml", "openvino/model.int8.bin", "cpu"
    )  # fmt: skip
    first, second = bundle.manifest.quantization
    assert (first.artifact, second.artifact) == ("onnx-int8", "openvino-int8")
    assert msgspec.structs.replace(first, artifact="openvino-int8") == second
    assert row_of(bundle, "openvino-int8").agreement > 0.9
    with open_model(bundle, runtime="openvino") as model:
        assert model.artifact.name == str(out / entry.path)
    assert edgecnn.verify(bundle, runtime="openvino").ok


@with_openvino
def test_ir_in_int8_that_is_slower_here_is_left_out(
    shapes_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In ONNX it is faster, and stays; OpenVINO then runs fp32."""
    monkeypatch.setattr(rungs, "compare_speed", clock(FASTER, SLOWER))
    bundle = quantize(shapes_bundle, out, target=("onnx", "openvino"))
    assert ids(bundle) == ["onnx-int8", "onnx-fp32", "openvino-fp32"]
    assert not any("int8" in file.path for file in bundle.manifest.files if "openvino" in file.path)
    assert [row.artifact for row in bundle.manifest.quantization] == ["onnx-int8"]
    assert "openvino-int8: left out: it takes 3.00 ms here, fp32 2.00 ms" in caplog.text
    with open_model(bundle, runtime="openvino") as model:
        assert model.artifact.name == str(out / "openvino/model.fp32.xml")


@with_openvino
def test_without_the_speed_gate_it_stays(
    shapes_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER))
    bundle = quantize(shapes_bundle, out, speed_gate=False)
    assert "openvino-int8" in ids(bundle)


@pytest.fixture
def wrong_ir(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """OpenVINO gives other scores for artifacts of a precision."""

    def break_it(precision: str) -> None:
        run = openvino.Backend._run

        def wrong(self: Any, feeds: Any) -> Any:
            values = list(run(self, feeds))
            return [1 - value for value in values] if self.artifact.precision == precision else values

        monkeypatch.setattr(openvino.Backend, "_run", wrong)

    return break_it


@with_openvino
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_ir_that_decides_otherwise_is_no_bundle(
    shapes_bundle: Path, out: Path, wrong_ir: Callable[[str], None], precision: Any
) -> None:
    wrong_ir(precision)
    with pytest.raises(GateMissed, match=f"^openvino-{precision}: ") as missed:
        quantize(shapes_bundle, out, precision=precision)
    assert missed.value.figures["runtime"] == "openvino"
    assert not out.exists()
    assert out.with_suffix(".report.html").exists()


@with_openvino
def test_fp32_ir_that_computes_something_else_is_no_bundle(
    mean: Path, out: Path, wrong_ir: Callable[[str], None]
) -> None:
    wrong_ir("fp32")
    with pytest.raises(GateMissed, match=r"^openvino-fp32: scores differs by"):
        edgecnn.convert(str(mean), spec=SPEC, out=out, samples=8, target=("openvino",))
    assert not out.exists()


def in_bfloat16(monkeypatch: pytest.MonkeyPatch, *, wrong: bool = False) -> list[str]:
    """A processor with bfloat16, whatever this one has; gives the arithmetic of the models as they open."""
    seen = []
    load, run = openvino.Backend._load, openvino.Backend._run

    def opened(self: Any) -> None:
        seen.append(self.options.compute)
        load(self)

    def ran(self: Any, feeds: Any) -> Any:
        values = run(self, feeds)
        return [1 - value for value in values] if wrong and self.options.compute == "bf16" else values

    monkeypatch.setattr(openvino.Backend, "computes", classmethod(lambda cls: ("f32", "bf16")))
    monkeypatch.setattr(openvino.Backend, "_load", opened)
    monkeypatch.setattr(openvino.Backend, "_run", ran)
    return seen


@with_openvino
def test_bfloat16_is_recorded_where_it_holds_the_budget_and_is_faster(
    shapes_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bfloat16(monkeypatch)
    bundle = quantize(shapes_bundle, out, max_drop=0.5)
    row = row_of(bundle, "openvino-fp32", "bf16")
    assert row.runtime == "openvino"
    assert row.agreement > 0.9
    assert row_of(bundle, "openvino-fp32").compute == "f32"
    assert [each.id for each in bundle.manifest.fidelity if each.compute == "bf16"] == ["openvino-fp32"]


@with_openvino
@pytest.mark.parametrize(
    ("wrong", "ratio", "budget"),
    [(True, FASTER, 0.5), (False, SLOWER, 0.5), (False, FASTER, None)],
    ids=["wrong", "slower", "no budget"],
)
def test_bfloat16_is_not_recorded_else(
    shapes_bundle: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: bool,
    ratio: float,
    budget: float | None,
) -> None:
    seen = in_bfloat16(monkeypatch, wrong=wrong)
    monkeypatch.setattr(rungs, "compare_speed", clock(ratio))
    bundle = quantize(shapes_bundle, out, precision="fp16", max_drop=budget)
    assert {row.compute for row in bundle.manifest.fidelity} == {"f32"}
    assert ("bf16" in seen) == (budget is not None)


# TensorRT


@with_tensorrt
def test_engines_for_gpus_that_are_not_here(mean: Path, out: Path) -> None:
    bundle = edgecnn.convert(str(mean), spec=SPEC, out=out, samples=8, device="rtx")
    assert ids(bundle) == ["onnx-fp32", *(f"tensorrt-fp32-sm{sm}" for sm in (86, 89, 120))]
    for capability, entry in zip(RTX, bundle.manifest.artifacts[1:]):
        assert (entry.format, entry.precision, entry.placement) == ("tensorrt", "fp32", "tensorrt")
        assert entry.path == f"tensorrt/model.fp32.sm{capability.replace('.', '')}.engine"
        assert entry.build_s > 0
        assert entry.requires == {
            "source": "onnx-fp32",
            "flavor": "tensorrt_rtx",
            "tensorrt": find_tensorrt().version,
            "precision": "fp32",
            "compute_capability": capability,
            "profile": ",".join(map(str, SPEC.batch_range)),
        }
        assert len(bundle.read(entry.path)) > 10_000
    assert len({bundle.read(entry.path) for entry in bundle.manifest.artifacts[1:]}) == 3
    assert edgecnn.verify(bundle).ok


@with_tensorrt
def test_engines_are_made_of_int8_that_is_placed_for_them(shapes_bundle: Path, out: Path) -> None:
    bundle = quantize(shapes_bundle, out, target=("onnx", "tensorrt"))
    assert ids(bundle) == ["onnx-int8", "onnx-fp32", "onnx-int8-tensorrt"]
    assert bundle.manifest.provenance["tensorrt"] == (
        f"tensorrt_rtx {find_tensorrt().version} builds onnx-int8-tensorrt"
    )


@with_tensorrt
def test_build_that_proves_the_model_leaves_no_engine(mean: Path, out: Path) -> None:
    """A Jetson makes its own; what is built here shows that it can."""
    steps: list[str] = []
    bundle = edgecnn.convert(
        str(mean),
        spec=SPEC,
        out=out,
        samples=8,
        target=("tensorrt",),
        on_step=lambda name, seconds: steps.append(name),
    )
    assert ids(bundle) == ["onnx-fp32"]
    assert "tensorrt fp32" in steps
    assert "builds onnx-fp32" in bundle.manifest.provenance["tensorrt"]


@pytest.mark.usefixtures("no_tensorrt")
def test_target_without_tensorrt_is_a_warning(
    mean: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = edgecnn.convert(str(mean), spec=SPEC, out=out, samples=8, target=("tensorrt",))
    assert ids(bundle) == ["onnx-fp32"]
    assert "tensorrt" not in bundle.manifest.provenance
    (line,) = [record.getMessage() for record in caplog.records if record.name == "edgecnn.compiled"]
    assert line.startswith("that TensorRT takes model.onnx is not proven: ")
    assert "pip install" in line


@pytest.mark.usefixtures("no_tensorrt")
def test_engines_without_tensorrt_are_an_error(mean: Path, out: Path) -> None:
    with pytest.raises(MissingDependency):
        edgecnn.convert(str(mean), spec=SPEC, out=out, samples=8, device="rtx")
    assert not out.exists()


@with_tensorrt
def test_tensorrt_that_cannot_build_without_a_gpu_is_a_warning(
    mean: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the one that is not for RTX."""

    class NoGpu(compiled.OnnxToTensorRT):
        def convert(self, source: bytes) -> Any:
            raise DeviceUnavailable("TensorRT 10.3.0 cannot build here: CUDA initialization failure")

    monkeypatch.setattr(compiled, "OnnxToTensorRT", NoGpu)
    bundle = edgecnn.convert(str(mean), spec=SPEC, out=out, samples=8, target=("tensorrt",))
    assert ids(bundle) == ["onnx-fp32"]
    assert "is not proven: TensorRT 10.3.0 cannot build here" in caplog.text


@with_tensorrt
def test_model_that_tensorrt_refuses_is_no_bundle(out: Path) -> None:
    """It knows no determinant."""
    source = write_onnx(out.with_name("det.onnx"), "Det", 3)
    with pytest.raises(ModelError, match=r"only \(Det\): TensorRT does not take it"):
        edgecnn.convert(str(source), spec=SPEC, out=out, samples=4, target=("tensorrt",))
    assert not out.exists()
    # others do
    assert ids(edgecnn.convert(str(source), spec=SPEC, out=out, samples=4)) == ["onnx-fp32"]
