"""What a canonical model computes, with answers known by hand or given by torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecnn.converters import load_model
from edgecnn.converters.base import run_chain
from edgecnn.converters.onnx_canonical import OnnxToCanonical
from edgecnn.converters.onnx_contract import check_scores
from edgecnn.converters.torch_onnx import TorchToOnnx
from edgecnn.errors import ModelError, SpecError
from edgecnn.manifest import TensorInfo
from edgecnn.spec import ModelSpec
from tests import models
from tests.converters.helpers import GUARDED, check_parity, convert, images, run

RAW = ModelSpec(task="tensors", size_hw=(8, 8), scale=1.0, activation="none")
GRAY = RAW.replace(color="gray", size_hw=(5, 5), mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("kernel", "image", "expected"),
    [
        (models.LAPLACIAN, models.IMAGE_5X5, models.LAPLACIAN_OF_5X5),
        (models.COLUMNS, models.SQUARE_5X5, models.COLUMNS_OF_SQUARE),
    ],
)
def test_convolution_is_a_correlation(kernel: Any, image: Any, expected: Any) -> None:
    converted = convert(models.kernel_net(kernel), GRAY)
    result = run(converted, np.array(image, np.uint8)[None, :, :, None])["output"]
    assert result[0, 0].tolist() == [list(row) for row in expected]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [(nn.MaxPool2d(2), [[6, 8], [14, 16]]), (nn.AvgPool2d(2), [[3.5, 5.5], [11.5, 13.5]])],
)
def test_pooling_of_a_ramp(pool: nn.Module, expected: Any) -> None:
    ramp = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4, 1)
    result = run(convert(pool, GRAY.replace(size_hw=(4, 4))), ramp)["output"]
    assert result[0, 0].tolist() == expected


def test_transposed_convolution_by_hand() -> None:
    """Stride 2: [2, 3] with [5, 7, 11] gives [2·5, 2·7, 2·11 + 3·5, 3·7, 3·11]."""
    conv = nn.ConvTranspose2d(1, 1, (1, 3), stride=(1, 2), bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([5.0, 7, 11]).reshape(1, 1, 1, 3))
    result = run(convert(conv, GRAY.replace(size_hw=(1, 2))), np.array([2, 3], np.uint8).reshape(1, 1, 2, 1))
    assert result["output"].ravel().tolist() == [10, 14, 37, 21, 33]


def test_preprocessing_by_hand() -> None:
    """(pixel · scale - mean) / std per channel, in the order of spec.color."""
    spec = ModelSpec(
        task="tensors", size_hw=(1, 1), scale=0.5, mean=(10, 20, 30), std=(1, 2, 4), activation="none"
    )
    pixel = np.array([100, 60, 20], np.uint8).reshape(1, 1, 1, 3)
    for color in ("rgb", "bgr"):
        result = run(convert(models.channel_means(), spec.replace(color=color)), pixel)["output"]
        assert result.tolist() == [[40, 5, -5]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"color": "bgr", "mean": (103.9, 116.8, 123.7), "std": (57.4, 57.1, 58.4), "scale": 1.0},
        {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        {"scale": 1 / 127.5, "mean": (1.0,)},
    ],
)
def test_preprocessing_is_exact_to_a_millionth(changes: dict[str, Any]) -> None:
    """Against float64, relative to the largest value, over all 256 pixel values."""
    spec = ModelSpec(task="tensors", size_hw=(16, 16), activation="none").replace(**changes)
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    found = run(convert(models.Lambda(lambda x: x * 1.0), spec), ramp)["output"]
    exact = (ramp.astype(np.float64) * spec.scale - spec.mean) / spec.std
    error = np.abs(found - exact.transpose(0, 3, 1, 2)).max()
    assert error <= 1e-6 * max(1.0, np.abs(exact).max())


def test_preprocessing_leaves_out_what_does_nothing() -> None:
    model = onnx.load_from_string(convert(models.channel_means(), RAW).model)
    assert [node.op_type for node in model.graph.node][:2] == ["Cast", "Transpose"]
    assert not {"Mul", "Add", "Sub", "Div"} & {node.op_type for node in model.graph.node}


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, :, [0, 1, 2, 0, 1, 2, 0, 1]]
        result: torch.Tensor = self.attention(tokens, tokens, tokens)[0]
        return result


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), id="depthwise"),
        pytest.param(nn.Conv2d(3, 4, 3, dilation=2, padding=2), id="dilated"),
        pytest.param(nn.Conv2d(3, 4, 2, padding="same"), id="even kernel, asymmetric padding"),
        pytest.param(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), id="reflect padding"),
        pytest.param(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), id="circular padding"),
        pytest.param(nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), id="transposed"),
        pytest.param(nn.Sequential(nn.Conv2d(3, 8, 1), nn.PixelShuffle(2)), id="pixel shuffle"),
        pytest.param(models.Residual(), id="in-place add"),
        pytest.param(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1)), id="leaky relu"),
        pytest.param(nn.Sequential(nn.GroupNorm(3, 3), nn.Hardswish(), nn.SiLU()), id="norm and swish"),
        pytest.param(nn.Sequential(nn.BatchNorm2d(3, eps=0.1), nn.Conv2d(3, 4, 3)), id="batchnorm eps"),
        pytest.param(nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4)), id="batchnorm 1d"),
        pytest.param(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Upsample((7, 9))), id="pool"),
        pytest.param(models.Lambda(lambda x: functional.interpolate(x, (13, 5), mode="bilinear")), id="up"),
        pytest.param(models.Lambda(lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1)), id="concat"),
        pytest.param(nn.AdaptiveAvgPool2d(3), id="adaptive average"),
        pytest.param(_Attention(), id="attention"),
    ],
)  # fmt: skip
def test_operations_give_what_torch_gives(module: nn.Module) -> None:
    spec = ModelSpec(task="tensors", size_hw=(8, 8), mean=(0.4,), std=(0.3,), activation="none")
    converted = convert(models.trained_statistics(module), spec)
    check_parity(converted, images(spec, 3))


@pytest.mark.parametrize("name", GUARDED)
def test_numbers_that_are_nearly_zero_are_not_left_out(name: str) -> None:
    converted = convert(models.Lambda(lambda x: GUARDED[name](x.relu().flatten(1))), RAW)
    batch = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 1)])
    (found,) = check_parity(converted, batch).values()
    assert np.isfinite(found).all()


def test_flatten_keeps_channels_first() -> None:
    """Output i of an identity Linear is pixel i of the channels-first order."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 12, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(12))
    spec = RAW.replace(size_hw=(2, 2))
    batch = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert (
        run(convert(net, spec), batch)["output"][0].tolist() == batch.transpose(0, 3, 1, 2).ravel().tolist()
    )


def test_dropout_vanishes() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), nn.ReLU(), nn.Dropout(0.9)).train()
    converted = convert(net, RAW)
    model = onnx.load_from_string(converted.model)
    assert [node.op_type for node in model.graph.node][2:] == ["Conv", "Relu"]
    check_parity(converted, images(RAW), atol=1e-3)
    assert net.training, "the caller's module is left as it was"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch(count: int) -> None:
    spec = ModelSpec(task="classification", size_hw=(4, 4))
    converted = convert(models.flat_net(), spec)
    assert converted.inputs[0].shape == ("batch", 4, 4, 3)
    assert converted.outputs[0].shape == ("batch", 3)
    scores = check_parity(converted, images(spec, count))["scores"]
    np.testing.assert_allclose(scores.sum(axis=1), np.ones(count), rtol=1e-6)


def test_fixed_batch() -> None:
    spec = ModelSpec(task="classification", size_hw=(4, 4))
    converted = convert(models.flat_net(), spec, batch=3)
    assert converted.inputs[0].shape == (3, 4, 4, 3)
    assert converted.outputs[0].shape == (3, 3)
    check_parity(converted, images(spec, 3))


def test_batch_that_is_baked_in_converts_for_that_batch() -> None:
    net = models.Lambda(lambda x: x.reshape(1, -1))
    converted = convert(net, RAW.replace(size_hw=(2, 2)), batch=1)
    assert converted.outputs[0].shape == (1, 12)


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda c, b: c, ["output"]),
        (lambda c, b: {"logits": c, "box": b}, ["logits", "box"]),
        (lambda c, b: {"zeta": b, "alpha": c}, ["zeta", "alpha"]),
        (lambda c, b: (c, b), ["output_0", "output_1"]),
        (lambda c, b: [c, b], ["output_0", "output_1"]),
        (lambda c, b: models.Pair(c, b), ["classes", "box"]),
        (
            lambda c, b: {"head": {"cls": c, "levels": [b, b + 1]}},
            ["head.cls", "head.levels.0", "head.levels.1"],
        ),
        (lambda c, b: (c, {"box": b}), ["output_0", "output_1.box"]),
        (lambda c, b: {"input": c, "mean": b}, ["input", "mean"]),
        (lambda c, b: {"box.bias": c, "features.weight": b}, ["box.bias", "features.weight"]),
        (lambda c, b: {"linear_1": c, "linear": b}, ["linear_1", "linear"]),
        (lambda c, b: (c, c), ["output_0", "output_1"]),
    ],
)
def test_outputs_keep_names_and_order(wrap: Any, names: list[str]) -> None:
    converted = convert(models.Named(wrap), RAW)
    assert [info.name for info in converted.outputs] == names
    check_parity(converted, images(RAW), atol=1e-3)


def test_chosen_output_becomes_scores_and_stands_first() -> None:
    net = models.Named(lambda c, b: {"box": b, "logits": c})
    spec = ModelSpec(task="classification", size_hw=(8, 8), output="logits", labels=("a", "b", "c"))
    converted = convert(net, spec)
    assert [(o.name, o.shape) for o in converted.outputs] == [("scores", ("batch", 3)), ("box", ("batch", 4))]
    check_parity(converted, images(spec))
    plain = convert(net, spec.replace(activation="none"))
    assert [o.name for o in plain.outputs] == ["logits", "box"]
    check_parity(plain, images(spec))


def test_outputs_that_have_our_names() -> None:
    spec = ModelSpec(task="classification", size_hw=(8, 8), output="scores")
    converted = convert(models.Named(lambda c, b: {"box": b, "scores": c}), spec)
    assert [o.name for o in converted.outputs] == ["scores", "box"]
    check_parity(converted, images(spec))
    with pytest.raises(ModelError, match="an output of the name 'scores', which edgecnn needs; rename it"):
        convert(models.Named(lambda c, b: {"logits": c, "scores": b}), spec.replace(output="logits"))
    with pytest.raises(ModelError, match="an output of the name 'image'"):
        convert(models.Named(lambda c, b: {"image": c}), spec.replace(output=None, activation="none"))


@pytest.mark.parametrize("batch", [None, 2])
def test_input_that_forward_changes_in_place(batch: int | None) -> None:
    converted = convert(models.Lambda(lambda x: x.mul_(2).mean((2, 3))), RAW, batch=batch)
    assert [info.name for info in converted.outputs] == ["output"]
    check_parity(converted, images(RAW), atol=1e-3)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_logit(shape: tuple[int, ...]) -> None:
    """sigmoid(0) is 0.5, sigmoid(ln 3) is 0.75."""
    net = models.Lambda(lambda x: x.mean((1, 2, 3)).reshape(shape))
    spec = RAW.replace(task="window_detection", size_hw=(1, 1), activation="sigmoid", scale=float(np.log(3)))
    batch = np.array([0, 1], np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    scores = run(convert(net, spec), batch)["scores"]
    np.testing.assert_allclose(scores.ravel(), [0.5, 0.75], rtol=1e-6)
    assert scores.ndim == len(shape)


def test_softmax_of_logits_of_1000_is_finite() -> None:
    spec = RAW.replace(task="classification", size_hw=(1, 1), activation="softmax")
    pixel = np.array([255, 254, 0], np.uint8).reshape(1, 1, 1, 3)
    scores = run(convert(models.channel_means(1000 / 255), spec), pixel)["scores"]
    weight = np.exp(-1000 / 255)
    np.testing.assert_allclose(scores[0], [1 / (1 + weight), weight / (1 + weight), 0], rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (
            models.flat_net(classes=5),
            {"labels": ("a", "b", "c")},
            r"labels has 3 names but the model gives 5 classes",
        ),
        (models.flat_net(classes=1), {}, r"softmax of one value is always 1\.0; use sigmoid"),
        (models.Lambda(lambda x: x.mean((1, 2, 3))), {}, r"softmax of one value is always 1\.0"),
        (models.flat_net(), {"output": "logit"}, r"the model has no output 'logit', it gives output"),
        (
            models.flat_net(),
            {"task": "window_detection", "background": 3},
            r"background is class 3 but the model gives 3 classes",
        ),
        (
            nn.Sequential(models.flat_net(), nn.Softmax(dim=1)),
            {},
            r'^activation: output of the model already ends in Softmax .*; set activation = "none"',
        ),
        (
            nn.Sequential(nn.Conv2d(3, 1, 4), nn.Sigmoid(), nn.Flatten(0)),
            {"activation": "sigmoid"},
            r"already ends in Sigmoid",
        ),
    ],
)
def test_spec_that_does_not_fit_the_model(module: nn.Module, changes: dict[str, Any], message: str) -> None:
    spec = ModelSpec(task="classification", size_hw=(4, 4)).replace(**changes)
    with pytest.raises(SpecError, match=message) as caught:
        convert(module, spec)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("[onnx_canonical after torch_onnx]")


def test_symbols_of_shape_inference_are_not_shown() -> None:
    info = TensorInfo(name="logits", dtype="float32", shape=("unk__0", 1))
    message = r"^activation: output logits is float32 batch×1, and softmax of one value"
    with pytest.raises(SpecError, match=message):
        check_scores(info, ModelSpec(task="classification", size_hw=(4, 4)))


def test_scores_of_another_rank_are_refused() -> None:
    spec = ModelSpec(task="classification", size_hw=(4, 4))
    with pytest.raises(ModelError, match=r"^output is float32 batch×3×4×4; the task classification reads"):
        convert(models.Lambda(lambda x: x * 2), spec)


def test_model_without_operations() -> None:
    batch = images(RAW)
    found = run(convert(nn.Identity(), RAW), batch)["output"]
    np.testing.assert_array_equal(found, batch.transpose(0, 3, 1, 2))


def test_same_module_gives_same_bytes() -> None:
    spec = ModelSpec(task="classification", size_hw=(4, 4))
    first, second = (convert(models.flat_net(), spec).model for _ in range(2))
    assert first == second


def test_steps_are_named_and_timed() -> None:
    converted = convert(models.flat_net(), ModelSpec(task="classification", size_hw=(4, 4)))
    assert [step.name for step in converted.steps] == ["torch_onnx", "onnx_canonical"]
    assert all(step.seconds > 0 for step in converted.steps)


def test_model_holds_no_dead_weights_and_no_other_file() -> None:
    loaded = load_model(models.trained_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    (bare, made), _ = run_chain(loaded.module, [TorchToOnnx(RAW), OnnxToCanonical(RAW)])
    for model in (bare, made):
        used = {name for node in model.graph.node for name in node.input}
        assert {tensor.name for tensor in model.graph.initializer} <= used
        assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert made.opset_import[0].version == 20
    assert made.ir_version == 9
