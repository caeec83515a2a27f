"""From a bundle or a model to smaller artifacts that keep their accuracy, or to a report that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import edgecnn
from edgecnn import Bundle, ModelSpec, quantization, rungs
from edgecnn.bundle import write_bundle
from edgecnn.errors import BundleError, EdgeCnnError, GateMissed, InputError, MediaError
from edgecnn.judging import Judge
from edgecnn.manifest import Manifest
from edgecnn.vision.opencv import cv2
from tests import int8, shapes
from tests.int8 import CONV_MACS, FASTER, HEAD_MACS, SLOWER, clock

FRAMES = int8.frames()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a machine on which all that is smaller is faster."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rungs, "compare_speed", clock(FASTER))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write: a folder of its own, which at the end holds nothing but what is expected."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "small.edge"


def shape_frames(count: int = 4) -> npt.NDArray[np.uint8]:
    """Frames with one shape of each kind, of 20 pixels, where `centre` says."""
    rng = np.random.default_rng(3)
    frames = np.stack([shapes.background(rng, (72, 120)) for _ in range(count)])
    for number, frame in enumerate(frames):
        for class_id, kind in enumerate(shapes.CLASSES):
            shapes.draw_shape(frame, kind, *centre(number, class_id), size=20)
    return frames


def centre(number: int, class_id: int) -> tuple[int, int]:
    """Side by side, up and down."""
    return 22 + 38 * class_id, 28 + 7 * ((number + class_id) % 3)


def quantize(bundle: Path | Bundle, out: Path, **options: Any) -> Bundle:
    return edgecnn.quantize(
        bundle, out=out, **{"calibration": FRAMES, "samples": 36, "threads": 1, **options}
    )


def convert(out: Path, model: Any = None, **options: Any) -> Bundle:
    defaults = {"spec": int8.SPEC, "calibration": FRAMES, "samples": 36, "threads": 1}
    return edgecnn.convert(model or int8.TwoScales(), out=out, **{**defaults, **options})


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def ids(bundle: Bundle) -> list[str]:
    return [entry.id for entry in bundle.manifest.artifacts]


def test_shapes_in_int8(shapes_bundle: Path, out: Path) -> None:
    """A trained detector: another bundle with INT8 before fp32, and the first one as it was.

    It is compared on the samples and on the four golden inputs.
    """
    before = contents(shapes_bundle)
    bundle = quantize(shapes_bundle, out, calibration=shape_frames(), samples=32)
    assert contents(shapes_bundle) == before
    assert bundle.path == out
    assert {file.path for file in bundle.manifest.files} == {
        "model.onnx", "model.int8.onnx", "model.dense.onnx", "model.int8.dense.onnx", "golden.npz", "report.html"
    }  # fmt: skip
    assert bundle.read("model.onnx") == before["model.onnx"]
    assert bundle.read("golden.npz") == before["golden.npz"]
    manifest = bundle.manifest
    assert manifest.name == "small"
    assert ids(bundle) == ["onnx-int8", "onnx-fp32"]
    assert manifest.evaluated is not None
    evaluated = manifest.evaluated
    assert (evaluated.metric, evaluated.source, evaluated.n, evaluated.max_drop) == (
        "agreement", "4 frames", 32, None
    )  # fmt: skip
    assert manifest.calibration is not None
    assert (manifest.calibration.n, manifest.calibration.generated) == (32, False)
    (row,) = manifest.quantization
    assert (row.artifact, row.method, row.int8_macs_share, row.kept_float) == ("onnx-int8", "auto", 1.0, ())
    whole, small = manifest.fidelity
    assert (whole.id, whole.metric, whole.metric_fp32, whole.drop) == ("onnx-fp32", 1.0, 1.0, 0.0)
    assert (small.id, small.runtime, small.n, small.metric_fp32) == ("onnx-int8", "ort", 36, 1.0)
    assert small.drop == 1.0 - (small.metric or 0)
    assert small.agreement > 0.9


def test_first_artifact_is_what_runs(shapes_bundle: Path, out: Path) -> None:
    bundle = quantize(shapes_bundle, out, calibration=shape_frames(), samples=32)
    images = np.random.default_rng(1).integers(0, 256, (3, 24, 24, 3), np.uint8)
    scores = {}
    for precision in ("auto", "int8", "fp32"):
        with edgecnn.open_model(bundle, precision=precision) as model:
            scores[precision] = model.run({"image": images})["scores"]
    np.testing.assert_array_equal(scores["auto"], scores["int8"])
    assert 0 < np.abs(scores["int8"] - scores["fp32"]).max() < 0.3


def test_bundle_can_take_the_place_of_its_source(two_scales_bundle: Path, out: Path) -> None:
    """Twice: INT8 is made of fp32 again, and is not piled up."""
    first = quantize(two_scales_bundle, out, max_drop=0.0)
    second = quantize(out, out, max_drop=0.0)
    assert ids(second) == ["onnx-int8", "onnx-fp32"]
    assert second.read("model.int8.onnx") == first.read("model.int8.onnx")
    assert len(second.manifest.fidelity) == 2
    assert [path.name for path in out.parent.iterdir()] == ["small.edge"]


def test_convert_goes_down_to_int8_by_itself(two_scales_bundle: Path, out: Path, tmp_path: Path) -> None:
    """The same as converting to fp32 and quantising that, but for the reference, which is the module."""
    steps: list[str] = []
    bundle = convert(out, precision="int8", max_drop=0.0, on_step=lambda name, seconds: steps.append(name))
    other = quantize(two_scales_bundle, tmp_path / "other" / "small.edge", max_drop=0.0)
    assert bundle.read("model.int8.onnx") == other.read("model.int8.onnx")
    assert bundle.manifest.artifacts[0].id == "onnx-int8"
    rows = [made.manifest.quantization[0] for made in (bundle, other)]
    assert [[layer.layer for layer in row.kept_float] for row in rows] == [["head.linear"]] * 2
    assert bundle.manifest.evaluated == other.manifest.evaluated
    assert {file.path for file in bundle.manifest.files} == {file.path for file in other.manifest.files}
    assert steps[-2:] == ["int8 for cpu", "bundle"]


def test_fp16(shapes_bundle: Path, out: Path) -> None:
    bundle = quantize(shapes_bundle, out, precision="fp16", speed_gate=False, calibration=shape_frames())
    assert ids(bundle) == ["onnx-fp16", "onnx-fp32"]
    assert bundle.manifest.quantization == ()
    assert bundle.manifest.fidelity[1].max_abs < 0.01
    assert len(bundle.read("model.fp16.onnx")) < 0.75 * len(bundle.read("model.onnx"))


def test_two_targets(shapes_bundle: Path, out: Path) -> None:
    """What another machine runs comes after what this one runs; a target named twice is one."""
    targets = ("onnx", "tensorrt", "onnx")
    bundle = quantize(shapes_bundle, out, target=targets, calibration=shape_frames(), samples=32)
    assert ids(bundle) == ["onnx-int8", "onnx-fp32", "onnx-int8-tensorrt"]
    assert [row.artifact for row in bundle.manifest.quantization] == ["onnx-int8", "onnx-int8-tensorrt"]
    assert [entry.placement for entry in bundle.manifest.artifacts] == ["cpu", None, "tensorrt"]


def test_layer_that_int8_breaks_stays_in_float(two_scales_bundle: Path, out: Path, tmp_path: Path) -> None:
    """Labelled images, half of them green, which INT8 does not see: only the head has to be float for it."""
    photos = int8.write_frames(tmp_path / "photos", FRAMES)
    bundle = quantize(two_scales_bundle, out, evaluation=photos, max_drop=0.005)
    evaluated = bundle.manifest.evaluated
    assert evaluated is not None
    assert (evaluated.metric, evaluated.source, evaluated.n, evaluated.max_drop) == (
        "top1", str(photos), 36, 0.005
    )  # fmt: skip
    (row,) = bundle.manifest.quantization
    (layer,) = row.kept_float
    assert layer.layer in {each.name for each in bundle.manifest.network.layers}  # type: ignore[union-attr]
    assert layer.macs_share == pytest.approx(HEAD_MACS / (CONV_MACS + HEAD_MACS))
    assert row.int8_macs_share == pytest.approx(1 - layer.macs_share)
    small = bundle.manifest.fidelity[1]
    assert (small.metric, small.metric_fp32, small.drop) == (1.0, 1.0, 0.0)
    assert edgecnn.evaluate(bundle, photos, precision="int8").value == small.metric


def test_evaluation_has_a_budget_of_its_own(two_scales_bundle: Path, out: Path) -> None:
    bundle = quantize(two_scales_bundle, out, evaluation=FRAMES)
    assert bundle.manifest.evaluated is not None
    assert bundle.manifest.evaluated.max_drop == 0.01
    assert len(bundle.manifest.quantization[0].kept_float) == 1


def test_boxes_judge_a_detector(shapes_bundle: Path, out: Path, tmp_path: Path) -> None:
    frames = shape_frames(2)
    for number, frame in enumerate(frames):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    corners = {(i, k): [x - 10 for x in centre(i, k)] for i in range(2) for k in range(3)}
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(2)],
        "annotations": [
            {"image_id": i, "category_id": k, "bbox": [*corner, 20, 20]} for (i, k), corner in corners.items()
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(shapes.CLASSES)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    bundle = quantize(
        shapes_bundle, out, calibration=frames, samples=32, evaluation=tmp_path / "boxes.json", max_drop=0.05
    )
    assert bundle.manifest.evaluated is not None
    assert (bundle.manifest.evaluated.metric, bundle.manifest.evaluated.n) == ("ap50", 2)
    small = bundle.manifest.fidelity[1]
    assert small.metric_fp32 is not None
    assert small.metric_fp32 > 0.5
    assert small.drop is not None
    assert small.drop <= 0.05


@pytest.mark.parametrize("older", [False, True])
def test_budget_that_cannot_be_held(
    two_scales_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """No bundle, or the one that was there; the report beside it; the figures in the error."""
    if older:
        quantize(two_scales_bundle, out, max_drop=0.0)
    before = contents(out) if older else None
    hard = Judge("top1", "a hard test", 10, lambda model: 0.4, fp32=0.9)
    monkeypatch.setattr(quantization, "judge_for", lambda *args, **options: hard)
    with pytest.raises(GateMissed) as caught:
        quantize(two_scales_bundle, out, max_drop=0.1)
    (line,) = str(caught.value).splitlines()
    report = out.parent / "small.report.html"
    assert line.startswith("onnx-int8: ")
    assert line.endswith(f"; no bundle was written, {report} says more")
    figures = caught.value.figures
    assert (figures["id"], figures["metric"], figures["metric_fp32"]) == ("onnx-int8", 0.4, 0.9)
    assert (figures["drop"], figures["max_drop"]) == (0.5, 0.1)
    json.dumps(figures)
    assert "Gate missed: no bundle was written" in report.read_text(encoding="utf-8")
    assert {path.name for path in out.parent.iterdir()} == {report.name, *([out.name] if older else [])}
    assert (contents(out) if older else None) == before


def test_int8_that_decides_otherwise_is_no_bundle_without_a_budget_either(
    two_scales_bundle: Path, out: Path
) -> None:
    with pytest.raises(GateMissed, match=r"onnx-int8: only \d+\.\d% of the decisions agree") as caught:
        quantize(two_scales_bundle, out)
    figures = caught.value.figures
    assert isinstance(figures["agreement"], float)
    assert figures["agreement"] <= 0.6
    assert figures["max_drop"] is None
    assert [path.name for path in out.parent.iterdir()] == ["small.report.html"]


def test_int8_that_is_slower_here_gives_way_to_fp16(
    shapes_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER, FASTER))
    bundle = quantize(shapes_bundle, out, calibration=shape_frames(), samples=32)
    assert ids(bundle) == ["onnx-fp16", "onnx-fp32"]
    assert bundle.manifest.quantization == ()
    assert [row.id for row in bundle.manifest.fidelity] == ["onnx-fp32", "onnx-fp16"]
    assert (
        "onnx-int8: left out: it takes 3.00 ms here, fp32 2.00 ms (--no-speed-gate keeps it)"
        in caplog.messages
    )


def test_fp32_alone_where_nothing_is_faster(
    shapes_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER))
    bundle = quantize(shapes_bundle, out, calibration=shape_frames(), samples=32)
    assert ids(bundle) == ["onnx-fp32"]
    assert {file.path for file in bundle.manifest.files} == {
        "model.onnx", "model.dense.onnx", "golden.npz", "report.html"
    }  # fmt: skip
    assert sum("left out" in message for message in caplog.messages) == 2
    kept = quantize(shapes_bundle, out, calibration=shape_frames(), samples=32, speed_gate=False)
    assert ids(kept) == ["onnx-int8", "onnx-fp32"]


def test_method_of_the_ranges_is_recorded(two_scales_bundle: Path, out: Path) -> None:
    bundle = quantize(two_scales_bundle, out, method="minmax", max_drop=0.0)
    assert bundle.manifest.quantization[0].method == "minmax"


@pytest.mark.parametrize("samples", [36, 35])
def test_fixed_batch(out: Path, samples: int) -> None:
    """Also with a number of samples that fills no whole number of batches."""
    bundle = convert(out, batch=2, precision="int8", max_drop=0.0, samples=samples)
    assert bundle.manifest.artifacts[0].id == "onnx-int8"
    assert bundle.manifest.inputs[0].shape == (2, 8, 8, 3)
    again = quantize(bundle, out, samples=samples, max_drop=0.0)
    assert ids(again) == ["onnx-int8", "onnx-fp32"]
    half = quantize(bundle, out, samples=samples, precision="fp16")
    assert ids(half) == ["onnx-fp16", "onnx-fp32"]


def nameless_model() -> onnx.ModelProto:
    """The network of two scales as some exporters write it: no node has a name."""
    head = int8.Head().linear
    constants = {
        "eye": np.eye(2, 3, dtype=np.float32)[:, :, None, None],
        "scale": np.array([[1000, 1]], np.float32),
        "weight": head.weight.detach().numpy(),
        "bias": head.bias.detach().numpy(),
    }
    nodes = [
        helper.make_node("Conv", ["x", "eye"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weight", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "nameless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_onnx_file_without_names(tmp_path: Path, out: Path) -> None:
    onnx.save(nameless_model(), tmp_path / "net.onnx")
    bundle = convert(out, tmp_path / "net.onnx", precision="int8", max_drop=0.0)
    assert bundle.manifest.network is not None
    assert [layer.name for layer in bundle.manifest.network.layers] == [
        "Conv_0", "Relu_1", "GlobalAveragePool_2", "Flatten_3", "Mul_4", "Gemm_5"
    ]  # fmt: skip
    (row,) = bundle.manifest.quantization
    (layer,) = row.kept_float
    assert layer.layer == "Gemm_5"
    assert layer.macs_share == pytest.approx(HEAD_MACS / (CONV_MACS + HEAD_MACS))


@pytest.mark.parametrize(
    "during", ["observing", "choosing ranges", "rounding weights", "sensitivity", "searching"]
)
def test_interrupted_work_leaves_nothing(two_scales_bundle: Path, out: Path, during: str) -> None:
    def on_work(what: str, done: int, total: int) -> None:
        if what.startswith(during):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(two_scales_bundle, out, max_drop=0.0, on_work=on_work)
    assert list(out.parent.iterdir()) == []


def test_what_takes_long_is_reported(two_scales_bundle: Path, out: Path, tmp_path: Path) -> None:
    works: dict[str, tuple[int, int]] = {}
    steps: list[str] = []
    quantize(
        two_scales_bundle,
        out,
        evaluation=int8.write_frames(tmp_path / "photos", FRAMES),
        on_step=lambda name, seconds: steps.append(name),
        on_work=lambda what, done, total: works.update({what: (done, total)}),
    )
    assert steps == ["int8 for cpu"]
    assert works["evaluating fp32"] == (36, 36)
    assert works["sensitivity of layers for cpu"] == (2, 2)


def test_doubts_about_samples_are_told(
    two_scales_bundle: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = quantize(two_scales_bundle, out, samples=12, max_drop=0.0)
    assert "36 frames: 12 samples are few to find ranges on; pass at least 32" in caplog.messages
    assert "12 samples are few to find ranges on" in bundle.read("report.html").decode()


BAD: list[tuple[dict[str, Any], type[EdgeCnnError], str]] = [
    ({"precision": "int4"}, InputError, "precision is fp32, fp16 or int8, not 'int4'"),
    ({"target": ("onnx", "tflite")}, InputError, "target: 'tflite' is not onnx, openvino, tensorrt"),
    ({"target": ()}, InputError, "target: none is given of onnx, openvino, tensorrt"),
    ({"target": "onnx"}, InputError, r"target is a list of names, such as \['onnx'\], not 'onnx'"),
    ({"method": "kl"}, InputError, "method is auto, minmax, .*, not 'kl'"),
    ({"max_drop": 1.5}, InputError, r"max_drop is a fraction in 0\.\.1 \(0.005 for half a point\), not 1.5"),
    ({"max_drop": -0.01}, InputError, "max_drop is a fraction"),
    ({"max_drop": float("nan")}, InputError, "max_drop is a fraction"),
    ({"calibration": None}, InputError, r"is made for real inputs: pass some of them as calibration"),
]
BAD_DATA: list[tuple[dict[str, Any], type[EdgeCnnError], str]] = [
    ({"calibration": FRAMES[:1]}, InputError, "there is 1 distinct image in 1 samples"),
    ({"calibration": FRAMES[[0, 0, 0]]}, InputError, "there is 1 distinct image in 3 samples"),
    ({"calibration": FRAMES * 0}, InputError, "all of the 36 samples are of one colour"),
    ({"calibration": "photos_that_are_not_there"}, MediaError, "not_there: no such file or folder"),
    ({"evaluation": Path("missing")}, MediaError, "missing: no such file or folder"),
    ({"evaluation": "missing.csv"}, MediaError, r"missing\.csv: no such file or folder"),
    ({"samples": 0}, InputError, "samples must be at least 1, not 0"),
]


@pytest.mark.parametrize(("options", "kind", "problem"), [*BAD, *BAD_DATA])
def test_bad_arguments(
    two_scales_bundle: Path, out: Path, options: dict[str, Any], kind: type[EdgeCnnError], problem: str
) -> None:
    """One line, and nothing written."""
    with pytest.raises(kind, match=problem) as caught:
        quantize(two_scales_bundle, out, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(("options", "kind", "problem"), BAD)
def test_bad_arguments_are_found_before_the_work(
    out: Path, options: dict[str, Any], kind: type[EdgeCnnError], problem: str
) -> None:
    """Before the model is looked for."""
    with pytest.raises(kind, match=problem) as caught:
        convert(out, "missing.onnx", **{"precision": "int8", **options})
    assert len(str(caught.value).splitlines()) == 1
    assert list(out.parent.iterdir()) == []


def test_fp32_is_nothing_to_quantize_to(two_scales_bundle: Path, out: Path) -> None:
    with pytest.raises(InputError, match="precision is fp16 or int8 here"):
        quantize(two_scales_bundle, out, precision="fp32")


@pytest.mark.parametrize("options", [{"max_drop": 0.1}, {"evaluation": FRAMES}])
def test_fp32_has_no_budget(out: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="evaluation and max_drop "):
        convert(out, **options)


def test_name_of_the_bundle(two_scales_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"small\.onnx: a bundle's name ends in \.edge"):
        quantize(two_scales_bundle, tmp_path / "small.onnx")


def test_tensors_are_no_decisions(out: Path) -> None:
    spec = ModelSpec(task="tensors", size_hw=(8, 8))
    with pytest.raises(InputError, match="outputs of the task 'tensors' are not decisions"):
        convert(out, spec=spec, precision="int8")


def test_network_without_a_layer_for_int8(out: Path) -> None:
    spec = ModelSpec(task="classification", size_hw=(8, 8))
    net = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten())
    with pytest.raises(InputError, match="nothing to quantise: the network has no Conv, Gemm or MatMul"):
        convert(out, net, spec=spec, precision="int8")
    assert list(out.parent.iterdir()) == []


def rewritten(source: Path, path: Path, **changes: Any) -> Path:
    """A copy of a bundle with a changed manifest."""
    bundle = Bundle(source)
    with write_bundle(path) as writer:
        writer.add("model.onnx", bundle.read("model.onnx"))
        fields = {**bundle.manifest.to_dict(), **changes}
        kept = {name: getattr(bundle.manifest, name) for name in fields if name not in changes}
        writer.finish(Manifest(**{**kept, **changes, "files": writer.files}))
    return path


def test_bundle_without_fp32(two_scales_bundle: Path, out: Path, tmp_path: Path) -> None:
    (entry,) = Bundle(two_scales_bundle).manifest.artifacts
    others = (type(entry)(id="onnx-fp16", format="onnx", precision="fp16", path="model.onnx"),)
    source = rewritten(two_scales_bundle, tmp_path / "half.edge", artifacts=others)
    with pytest.raises(BundleError, match=r"half\.edge: holds no ONNX model in fp32"):
        quantize(source, out)


def test_bundle_of_an_older_kind(two_scales_bundle: Path, out: Path, tmp_path: Path) -> None:
    source = rewritten(two_scales_bundle, tmp_path / "old.edge", network=None)
    with pytest.raises(BundleError, match="does not say what its network consists of; convert it again"):
        quantize(source, out)


def test_golden_tensors_are_not_needed(two_scales_bundle: Path, out: Path, tmp_path: Path) -> None:
    source = rewritten(two_scales_bundle, tmp_path / "plain.edge")
    assert quantize(source, out, max_drop=0.0).golden() is None
