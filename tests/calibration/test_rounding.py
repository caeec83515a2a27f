"""Rounding weights for the inputs that a layer really gets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecnn.calibration import rounding
from edgecnn.calibration.layers import ConvGeometry, QuantLayer, quant_layers
from edgecnn.calibration.ranges import QuantParams
from edgecnn.calibration.rounding import Int8Weights, round_weights
from edgecnn.errors import InputError, ModelError

STEP = 1.0  # pixels as they are: quantising the input loses nothing
EXACT = QuantParams(STEP, 0, signed=False)
COARSE = QuantParams(16.0, 0, signed=False)


def one_layer(
    op: str,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32] | None = None,
    shape: tuple[int, ...] = (1, 1, 2),
    batch: int | str = "batch",
    **attributes: Any,
) -> ir.Model:
    """uint8 (n, *shape) → ``float`` → NCHW ``x``, or rows for Gemm → the layer → ``y``."""
    nodes = [helper.make_node("Cast", ["image"], ["float"], name="cast", to=TensorProto.FLOAT)]
    if op.startswith("Conv"):
        nodes.append(helper.make_node("Transpose", ["float"], ["x"], perm=(0, 3, 1, 2)))
    elif op == "Gemm":
        nodes.append(helper.make_node("Flatten", ["float"], ["x"]))
    else:
        nodes.append(helper.make_node("Identity", ["float"], ["x"]))
    names = ["w"] if bias is None else ["w", "b"]
    nodes.append(helper.make_node(op, ["x", *names], ["y"], name="layer", **attributes))
    constants = [numpy_helper.from_array(weight, "w")]
    if bias is not None:
        constants.append(numpy_helper.from_array(bias, "b"))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(model)


def rounded(
    model: ir.Model, images: npt.NDArray[np.uint8], params: QuantParams = EXACT, **options: Any
) -> Int8Weights:
    found = round_weights(model, quant_layers(model), {"x": params}, images, threads=1, **options)
    assert list(found) == ["layer"]
    return found["layer"]


def photos(*shape: int) -> npt.NDArray[np.uint8]:
    """Random pixels that go along with their neighbours: all channels are nearly the same."""
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 240, (*shape[:-1], 1))
    return (shared + rng.integers(0, 16, shape)).astype(np.uint8)


def noise(*shape: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(0, scale, shape).astype(np.float32)


def steps(weight: npt.NDArray[np.float32], found: Int8Weights) -> npt.NDArray[np.float64]:
    """The weights that the codes stand for, output channels first."""
    return found.codes * found.scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_weights_on_the_grid_stay_as_they_are(step: float) -> None:
    codes = np.array([[127, -3, 0, 64], [-127, 1, 2, 3]], np.int8)
    found = rounded(one_layer("MatMul", (codes.T * step).astype(np.float32), shape=(4,)), photos(40, 4))
    assert np.array_equal(found.codes, codes.T)
    assert found.scales.tolist() == [step, step]
    assert found.bias == pytest.approx([0, 0], abs=1e-9)


def test_two_inputs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both inputs are equal: what the first code lacks is given to the second.

    With steps of 1, which the weight 127 of an input that is always 0 sees to, 0.4 and 0.4 would both be
    rounded to 0 and lose 0.8. Here 0.4 + 0.4 is rounded for the second, to 1: 0.2 too much.
    """
    monkeypatch.setattr(rounding, "DAMPING", 1e-6)
    weight = np.array([[0.4], [0.4], [127]], np.float32)
    images = np.array([[10, 10, 0], [30, 30, 0], [50, 50, 0], [90, 90, 0]], np.uint8)
    found = rounded(one_layer("MatMul", weight, shape=(3,)), images)
    assert found.scales.tolist() == [1]
    assert found.codes.tolist() == [[0], [1], [127]]
    # the mean of the inputs is 45: 0.8 * 45 was wanted, 1 * 45 is given
    assert found.bias == pytest.approx([-9], abs=1e-4)


def test_gemm_in_both_orders() -> None:
    weight, bias = noise(5, 8), noise(5)
    images = photos(30, 2, 2, 2)
    upright, transposed = (
        rounded(one_layer("Gemm", w, bias, (2, 2, 2), transB=t), images, COARSE)
        for w, t in ((weight.T.copy(), 0), (weight, 1))
    )
    assert transposed.codes.shape == weight.shape
    assert np.array_equal(transposed.codes.T, upright.codes)
    assert np.array_equal(transposed.scales, upright.scales)
    assert transposed.bias == pytest.approx(upright.bias)


def test_matmul_keeps_its_mean_without_a_bias() -> None:
    """Bright inputs: what a Gemm leaves to its bias, a MatMul has to get right in its weights."""
    weight = noise(8, 5)
    images = photos(30, 8) // 8 + np.uint8(200)
    plain = rounded(one_layer("MatMul", weight, shape=(8,)), images)
    nearest = np.clip(np.rint(weight / plain.scales), -127, 127)
    wanted = images.astype(np.float64) @ weight
    off = [
        abs((images @ (codes * plain.scales) - wanted).mean(axis=0)).mean()
        for codes in (plain.codes, nearest)
    ]
    assert off[0] < 0.5 * off[1]


def test_matmul_of_more_dimensions_reads_rows() -> None:
    weight, images = noise(4, 3), photos(6, 5, 4)
    found = rounded(one_layer("MatMul", weight, shape=(5, 4)), images, COARSE)
    rows = rounded(one_layer("MatMul", weight, shape=(4,)), images.reshape(30, 4), COARSE)
    assert np.array_equal(found.codes, rows.codes)
    assert np.array_equal(found.bias, rows.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_output_is_closer_than_with_the_nearest_codes(group: int) -> None:
    weight, bias = noise(8, 4 // group, 3, 3), noise(8)
    model = one_layer("Conv", weight, bias, (8, 8, 4), group=group, pads=(1, 1, 1, 1))
    images = photos(40, 8, 8, 4)
    found = rounded(model, images[:20])
    nearest = np.clip(np.rint(weight / found.scales[:, None, None, None]), -127, 127)
    nearest = nearest * found.scales[:, None, None, None]
    # judged on other images than those that were looked at
    x = torch.from_numpy(images[20:].transpose(0, 3, 1, 2).astype(np.float64))
    assert found.bias is not None

    def error(weights: npt.NDArray[np.float64], shift: npt.NDArray[np.float32]) -> float:
        difference = torch.from_numpy((weights - weight).astype(np.float64))
        output = torch.nn.functional.conv2d(
            x, difference, torch.from_numpy((shift - bias).astype(np.float64)), padding=1, groups=group
        )
        return float((output**2).mean())

    assert error(steps(weight, found), found.bias) < 0.5 * error(nearest, bias)
    assert abs(found.codes - nearest / found.scales[:, None, None, None]).max() >= 1


@pytest.mark.parametrize(("channels", "outputs", "group"), [(6, 6, 6), (6, 12, 6), (6, 4, 2)])
def test_groups_are_rounded_as_layers_of_their_own(channels: int, outputs: int, group: int) -> None:
    weight, bias = noise(outputs, channels // group, 3, 3), noise(outputs)
    images = photos(12, 6, 6, channels)
    whole = rounded(one_layer("Conv", weight, bias, (6, 6, channels), group=group), images, COARSE)
    assert whole.bias is not None
    reads, gives = channels // group, outputs // group
    for number in range(group):
        part = slice(number * gives, (number + 1) * gives)
        seen = np.ascontiguousarray(images[..., number * reads : (number + 1) * reads])
        alone = rounded(one_layer("Conv", weight[part], bias[part], (6, 6, reads)), seen, COARSE)
        assert alone.bias is not None
        assert np.array_equal(whole.codes[part], alone.codes)
        assert np.array_equal(whole.scales[part], alone.scales)
        assert whole.bias[part] == pytest.approx(alone.bias, rel=1e-5)


@pytest.mark.parametrize(
    "params", [COARSE, QuantParams(2.0, 0, signed=True), QuantParams(16.0, 250, signed=False)], ids=str
)
def test_mean_output_stays(monkeypatch: pytest.MonkeyPatch, params: QuantParams) -> None:
    """Over all positions the mean output is that of the float layer, however coarse the input is."""
    monkeypatch.setattr(rounding, "POSITIONS", 64)
    weight, bias = noise(3, 2, 3, 3), noise(3)
    images = photos(10, 8, 8, 2)
    found = rounded(one_layer("Conv", weight, bias, (8, 8, 2), pads=(1, 1, 1, 1)), images, params)
    x = images.transpose(0, 3, 1, 2).astype(np.float64)
    q = np.clip(np.rint(x / params.scale) + params.zero_point, params.qmin, params.qmax)
    quantised = (q - params.zero_point) * params.scale

    def means(x: npt.NDArray[Any], weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> Any:
        assert bias is not None
        tensors = [torch.from_numpy(each.astype(np.float64)) for each in (x, weight, bias)]
        return torch.nn.functional.conv2d(*tensors, padding=1).mean((0, 2, 3)).numpy()

    wanted = means(x, weight, bias)
    assert means(quantised, steps(weight, found), found.bias) == pytest.approx(wanted, abs=1e-4)
    assert means(quantised, weight, bias) != pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations"),
    [
        ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
        ((3, 2), (2, 1), (1, 0, 1, 0), (1, 2)),
        ((2, 3), (1, 3), (2, 1, 2, 1), (2, 1)),
        ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    ],
)
def test_windows_are_those_of_unfold(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
) -> None:
    geometry = ConvGeometry(kernel_hw=kernel, strides=strides, pads=pads, dilations=dilations)
    tensor = noise(2, 3, 9, 8)
    windows = rounding._windows(tensor, geometry)
    wanted = torch.nn.functional.unfold(torch.from_numpy(tensor), kernel, dilations, pads[:2], strides)
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(2, 3 * math.prod(kernel), -1)
    assert np.array_equal(columns, wanted.numpy())


def test_unequal_pads_are_top_left_bottom_right() -> None:
    geometry = ConvGeometry(kernel_hw=(1, 1), strides=(1, 1), pads=(0, 1, 2, 3), dilations=(1, 1))
    windows = rounding._windows(np.full((1, 1, 1, 1), 5, np.float32), geometry)
    assert windows[0, 0, :, :, 0, 0].tolist() == [[0, 5, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_dead_inputs_and_dead_channels() -> None:
    """A channel without weights, inputs that are always 0 and one that never changes."""
    weight = np.array([[0, 0], [0.3, 1], [0.7, 1], [-1, 1]], np.float32)
    images = np.zeros((20, 4), np.uint8)
    images[:, 1] = 7
    images[:, 3] = np.arange(20)
    found = rounded(one_layer("MatMul", weight, shape=(4,)), images)
    assert found.codes[:, 0].tolist() == [0, 38, 89, -127]
    found = rounded(one_layer("MatMul", np.zeros((4, 2), np.float32), shape=(4,)), images)
    assert not found.codes.any()
    assert found.scales == pytest.approx([1 / 127, 1 / 127])
    images[:] = 0
    found = rounded(one_layer("MatMul", weight, shape=(4,)), images)
    assert np.array_equal(found.codes, np.clip(np.rint(weight / found.scales), -127, 127))
    assert found.bias == pytest.approx([0, 0])


def test_a_depth_of_one_is_rounded_to_the_nearest() -> None:
    weight = noise(3, 1, 1, 1)
    found = rounded(one_layer("Conv", weight, shape=(4, 4, 3), group=3), photos(4, 4, 4, 3))
    assert np.array_equal(found.codes, np.rint(weight / found.scales[:, None, None, None]))


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_scales_are_wide_enough_for_an_int32_bias(op: str) -> None:
    """A weight of 1e-9 would count a bias of 1 in steps of 1e-9 / 127: far beyond 2**31 of them."""
    weight = np.array([1e-9, 1], np.float32).reshape((2, 1, 1, 1) if op == "Conv" else (1, 2, 1, 1))
    found = rounded(one_layer(op, weight, np.array([1, -1], np.float32), (2, 2, 1)), photos(4, 2, 2, 1))
    assert found.bias is not None
    units = found.bias / found.scales.astype(np.float64)
    assert abs(units).max() == pytest.approx(2**30)
    assert found.codes.ravel().tolist()[1] == 127


def test_layers_that_are_not_looked_at_get_the_nearest_codes() -> None:
    weight = noise(4, 2, 3, 3)
    model = one_layer("ConvTranspose", weight, shape=(4, 4, 4))
    found = rounded(model, photos(2, 4, 4, 4))
    assert found.bias is None
    assert found.scales.shape == (2,)
    assert np.array_equal(
        found.codes, np.clip(np.rint(weight / found.scales[:, None, None]), -127, 127).astype(np.int8)
    )


def test_several_passes_change_nothing_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [noise(4, 3, 3, 3), noise(2, 3, 1, 1)]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=(0, 3, 1, 2)),
        helper.make_node("Conv", ["x", "w0"], ["y0"], name="first"),
        helper.make_node("Conv", ["x", "w1"], ["y1"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 6, 6, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y0", "y1")],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    )
    told: list[tuple[int, int]] = []
    images = photos(3, 6, 6, 3)

    def run() -> dict[str, Int8Weights]:
        return round_weights(
            model, quant_layers(model), {"x": COARSE}, images, on_progress=lambda *n: told.append(n)
        )

    once = run()
    monkeypatch.setattr(rounding, "BYTES_A_PASS", 1)
    twice = run()
    assert told == [(2, 3), (3, 3), (2, 6), (3, 6), (5, 6), (6, 6)]
    assert list(once) == list(twice) == ["first", "second"]
    for name in once:
        assert np.array_equal(once[name].codes, twice[name].codes)
        assert np.array_equal(once[name].bias, twice[name].bias)  # type: ignore[arg-type]


def test_blocks_only_save_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = one_layer("MatMul", noise(12, 5), shape=(12,))
    whole = rounded(model, photos(30, 12), COARSE)
    monkeypatch.setattr(rounding, "BLOCK", 5)
    assert np.array_equal(rounded(model, photos(30, 12), COARSE).codes, whole.codes)


def test_what_cannot_be_looked_at() -> None:
    model = one_layer("MatMul", noise(4, 2), shape=(4,), batch=8)
    with pytest.raises(InputError, match="fewer samples than the 8"):
        rounded(model, photos(3, 4))
    absent = QuantLayer(
        name="layer", op="MatMul", input="image", output="y", weight="w", bias=None, channel_axis=1
    )
    with pytest.raises(ModelError, match="image: no layer of the model makes such a tensor"):
        round_weights(model, [absent], {"image": EXACT}, photos(8, 4))
