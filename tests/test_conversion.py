"""The whole road: a module becomes a bundle, and the bundle gives the module's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import edgecnn
from edgecnn import Classification, Detections, ModelSpec
from edgecnn.errors import GateMissed, InputError, ModelError, SpecError
from edgecnn.reference import activate
from edgecnn.vision import fit, iou_matrix, read_image
from tests import shapes
from tests.paths import data


def test_three_shapes_in_one_frame_at_three_sizes(shapes_bundle: Path) -> None:
    """K classes with a background, several of them in one frame, sizes by the pyramid."""
    frame = shapes.background(np.random.default_rng(5), (160, 240))
    truth = {"disc": (50, 50, 20), "square": (170, 60, 30), "cross": (110, 115, 44)}
    for kind, (x, y, size) in truth.items():
        shapes.draw_shape(frame, kind, x, y, size)
    with edgecnn.load(shapes_bundle) as detector:
        found = detector(frame)
    assert isinstance(found, Detections)
    assert "background" not in found.labels
    for kind, (x, y, size) in truth.items():
        box = np.float32([[x - size / 2, y - size / 2, x + size / 2, y + size / 2]])
        of_kind = found[[label == kind for label in found.labels]]
        assert len(of_kind) >= 1, kind
        assert iou_matrix(of_kind.boxes[:1], box)[0, 0] > 0.4, kind


def test_per_class_threshold_silences_one_class(shapes_module: torch.nn.Module, tmp_path: Path) -> None:
    spec = shapes.SPEC.replace(class_thresholds={"square": 1.0})
    edgecnn.convert(shapes_module, spec=spec, out=tmp_path / "a.edge", samples=8)
    frame = shapes.background(np.random.default_rng(5), (60, 100))
    shapes.draw_shape(frame, "square", 30, 30, 20)
    shapes.draw_shape(frame, "disc", 70, 30, 20)
    with edgecnn.load(tmp_path / "a.edge") as detector:
        found = detector(frame)
    assert isinstance(found, Detections)
    assert "disc" in found.labels
    assert "square" not in found.labels


def test_windows_score_as_the_module_does(shapes_module: torch.nn.Module, shapes_bundle: Path) -> None:
    """Not only on the samples of the conversion: any batch of windows, any batch size."""
    rng = np.random.default_rng(1)
    with edgecnn.open_model(shapes_bundle) as model:
        for batch in (1, 2, 7):
            images = rng.integers(0, 256, (batch, 24, 24, 3), np.uint8)
            x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
            with torch.no_grad():
                expected = shapes_module(x).softmax(1).numpy()
            np.testing.assert_allclose(model.run({"image": images})["scores"], expected, atol=1e-5)


def test_one_logit_is_a_detector_of_one_class(tmp_path: Path) -> None:
    """Bright windows: sigmoid of (mean - 0.5) * 40, so a white square is 1 and black is 0."""

    class Bright(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.mean((1, 2, 3)) - 0.5) * 40

    spec = ModelSpec(
        task="window_detection", size_hw=(16, 16), activation="sigmoid", labels=("light",), threshold=0.99,
        nms_iou=0.2,
    )  # fmt: skip
    edgecnn.convert(Bright(), spec=spec, out=tmp_path / "light.edge")
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[32:48, 16:32] = 255
    with edgecnn.load(tmp_path / "light.edge") as detector:
        found = detector(frame)
    assert isinstance(found, Detections)
    assert found.labels == ("light",)
    assert found.boxes.tolist() == [[16, 32, 32, 48]]


def test_torchvision_classifier_with_random_weights(photo_bundle: Path) -> None:
    bundle = edgecnn.Bundle(photo_bundle)
    spec = bundle.manifest.spec
    assert (spec.size_hw, spec.resize, spec.resize_short) == ((224, 224), "center_crop", 256)
    assert len(spec.labels) == 1000
    assert bundle.manifest.fidelity[0].cosine > 0.99999
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration.generated
    assert "random" in bundle.manifest.provenance["weights"]
    assert bundle.manifest.network is not None
    assert bundle.manifest.network.params == 1_235_496
    assert edgecnn.verify(photo_bundle).ok
    with edgecnn.load(photo_bundle) as classifier:
        result = classifier(np.full((300, 200, 3), 128, np.uint8))
    assert isinstance(result, Classification)
    assert len(result) == 5
    assert result.scores[0] >= result.scores[-1] > 0


def test_real_weights_keep_their_accuracy(tmp_path: Path) -> None:
    """SqueezeNet 1.1 is right on 73.2 % of these images in torch; a part of them is enough here."""
    weights, images = data("models/squeezenet1_1_imagenet.pth"), data("imagenet_val650")
    spec = ModelSpec(
        task="classification", size_hw=(227, 227), resize="center_crop", mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    bundle = edgecnn.convert(
        "torchvision:squeezenet1_1",
        spec=spec,
        weights=weights,
        out=tmp_path / "s.edge",
        calibration=images,
        samples=8,
    )
    fidelity = bundle.manifest.fidelity[0]
    assert (fidelity.n, fidelity.agreement) == (8, 1.0)
    assert fidelity.max_abs < 1e-4
    rows = [line.split(",") for line in (images / "labels.csv").read_text().splitlines() if ".JPEG" in line][
        ::5
    ]
    with edgecnn.load(bundle) as classifier:
        right = [classifier(read_image(images / name)).class_ids[0] == int(label) for name, label in rows]  # type: ignore[union-attr]
    assert 0.64 < np.mean(right) < 0.84


def test_golden_tensors_are_inputs_and_answers_of_the_module(
    shapes_module: torch.nn.Module, shapes_bundle: Path
) -> None:
    golden = edgecnn.Bundle(shapes_bundle).golden()
    assert golden is not None
    assert golden["input"].shape == (4, 24, 24, 3)
    x = (torch.from_numpy(golden["input"]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        np.testing.assert_allclose(golden["output.scores"], shapes_module(x).softmax(1).numpy(), atol=1e-5)


def test_module_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate: a reference that differs by more than rounding writes no bundle and leaves the old one."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    spec = ModelSpec(task="classification", size_hw=(2, 2))
    edgecnn.convert(net, spec=spec, out=tmp_path / "a.edge")
    before = (tmp_path / "a.edge" / "manifest.json").read_bytes()
    honest = edgecnn.conversion.reference_for
    monkeypatch.setattr(
        edgecnn.conversion,
        "reference_for",
        lambda *a: lambda images: {k: v + np.float32(0.01) for k, v in honest(*a)(images).items()},
    )
    with pytest.raises(
        GateMissed, match=r"differs from the original on 32 inputs: scores differs by"
    ) as caught:
        edgecnn.convert(net, spec=spec, out=tmp_path / "a.edge")
    assert caught.value.figures["max_abs"] == pytest.approx(0.01, rel=0.01)
    assert (tmp_path / "a.edge" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.edge"]


def test_onnx_file_of_a_user(tmp_path: Path) -> None:
    """Float NCHW logits of another exporter: mean of each channel."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "user",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "user.onnx")
    spec = ModelSpec(
        task="classification", size_hw=(6, 6), scale=1.0, mean=(100.0,), std=(50.0,), labels=("r", "g", "b")
    )
    bundle = edgecnn.convert(tmp_path / "user.onnx", spec=spec, out=tmp_path / "user.edge")
    assert bundle.manifest.fidelity[0].max_abs < 1e-5
    with edgecnn.load(bundle) as classifier:
        result = classifier(np.full((6, 6, 3), (100, 150, 200), np.uint8))
    expected = activate(np.float32([2, 1, 0]), spec)
    assert isinstance(result, Classification)
    assert result.labels == ("r", "g", "b")
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5)


def test_chosen_output_of_several(tmp_path: Path) -> None:
    """A module that gives a dict: the named output is activated and comes first, the others keep their names."""

    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            flat = x.flatten(1)
            return {"features": flat, "logits": flat[:, :3] * 10}

    spec = ModelSpec(task="classification", size_hw=(2, 2), output="logits", labels=("a", "b", "c"))
    bundle = edgecnn.convert(Two(), spec=spec, out=tmp_path / "two.edge")
    assert [output.name for output in bundle.manifest.outputs] == ["scores", "features"]
    assert bundle.manifest.fidelity[0].agreement == 1.0
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 1, 2] = 255  # red, second pixel: the second of the flattened values
    with edgecnn.load(bundle) as classifier:
        result = classifier(frame)
    assert isinstance(result, Classification)
    assert result.labels[0] == "b"


def test_fixed_batch_is_kept_and_padded(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    spec = ModelSpec(task="classification", size_hw=(2, 2))
    bundle = edgecnn.convert(net, spec=spec, out=tmp_path / "a.edge", batch=4)
    assert bundle.manifest.inputs[0].shape == (4, 2, 2, 3)
    with edgecnn.load(bundle) as classifier:
        assert len(classifier(np.zeros((5, 5, 3), np.uint8)).scores) == 3  # type: ignore[union-attr]
    with pytest.raises(InputError, match="a fixed batch of 4 needs as many samples, there are 3"):
        edgecnn.convert(net, spec=spec, out=tmp_path / "a.edge", batch=4, samples=3)


def test_steps_are_reported(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    steps: list[str] = []
    edgecnn.convert(
        net,
        spec=ModelSpec(task="classification", size_hw=(2, 2)),
        out=tmp_path / "a.edge",
        on_step=lambda name, seconds: steps.append(name),
    )
    assert steps == ["load", "samples", "torch_onnx", "onnx_canonical", "parity", "bundle"]


def test_same_conversion_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    )
    spec = ModelSpec(task="classification", size_hw=(6, 6))
    bundles = [edgecnn.convert(net, spec=spec, out=tmp_path / f"{name}/a.edge") for name in "xy"]
    files = [{f.path: f.sha256 for f in bundle.manifest.files} for bundle in bundles]
    assert files[0] == files[1]
    assert bundles[0].manifest.created == "2026-01-01T00:00:00Z"


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    with torch.no_grad():
        net[1].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"1\.weight"):
        edgecnn.convert(net, spec=ModelSpec(task="classification", size_hw=(2, 2)), out=tmp_path / "a.edge")
    assert list(tmp_path.iterdir()) == []


def test_original_that_is_not_finite_is_blamed(tmp_path: Path) -> None:
    class Log(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(x.flatten(1) - 0.5)

    spec = ModelSpec(task="tensors", size_hw=(2, 2))
    with pytest.raises(ModelError, match="log: the model itself gives values in output that are not finite"):
        edgecnn.convert(Log(), spec=spec, out=tmp_path / "a.edge")


def test_logits_are_no_scores_of_windows(tmp_path: Path) -> None:
    class Logit(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3)) * 40

    spec = ModelSpec(task="window_detection", size_hw=(8, 8), activation="none")
    with pytest.raises(SpecError, match=r'scores of boxes are in 0..1, set activation = "sigmoid"'):
        edgecnn.convert(Logit(), spec=spec, out=tmp_path / "a.edge")


@pytest.mark.parametrize("batch", [0, -2, "2"])
def test_batch_is_checked(tmp_path: Path, batch: Any) -> None:
    with pytest.raises(InputError, match="batch must be a whole number of at least 1"):
        edgecnn.convert("any.onnx", out=tmp_path / "a.edge", batch=batch)


def test_occupied_destination_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.edge").mkdir()
    (tmp_path / "a.edge" / "mine").touch()
    with pytest.raises(InputError, match="exists and is not a bundle"):
        edgecnn.convert("missing.onnx", out=tmp_path / "a.edge")


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    net = torch.nn.Flatten()
    with pytest.raises(SpecError, match=r"how frames become its input is not known; pass a spec"):
        edgecnn.convert(net, out=tmp_path / "a.edge")
    with pytest.raises(InputError, match=r"a\.onnx: a bundle's name ends in \.edge"):
        edgecnn.convert(net, out=tmp_path / "a.onnx")
    with pytest.raises(SpecError, match=r"none\.toml: cannot be read as a spec"):
        edgecnn.convert(net, out=tmp_path / "a.edge", spec=tmp_path / "none.toml")


def test_softmax_of_large_logits_is_finite() -> None:
    spec = ModelSpec(task="classification", size_hw=(1, 1))
    np.testing.assert_allclose(
        activate(np.float32([1000, 999, -1000]), spec), [0.7310586, 0.26894143, 0], rtol=1e-5
    )
    one = spec.replace(activation="sigmoid")
    np.testing.assert_allclose(activate(np.float32([-1000, 0, 1000]), one), [0, 0.5, 1])


def test_fit_is_the_same_for_samples_and_predictor(photo_bundle: Path) -> None:
    """One preprocessing: what the predictor feeds is what samples are made of."""
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    with edgecnn.load(photo_bundle) as classifier, edgecnn.open_model(photo_bundle) as model:
        image, _ = fit(frame, classifier.spec)
        scores = model.run({"image": image[None]})["scores"][0]
        result = classifier(frame)
    assert isinstance(result, Classification)
    assert result.class_ids[0] == scores.argmax()
    np.testing.assert_array_equal(result.scores, np.sort(scores)[::-1][:5])
