"""Normalisation moves into the first layer; what the network computes stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto

from edgecnn.calibration.activations import expose
from edgecnn.calibration.layers import quant_layers
from edgecnn.calibration.pixels import PIXELS, byte_pixels, fold_pixels, pixel_params
from tests.calibration.graphs import content, graph, node, noise, pixels
from tests.converters.helpers import run_bytes

IMAGES = pixels(4, 8, 8, 3)
BORDER = (slice(None), slice(None), slice(1, -1), slice(1, -1))

# (p / 255 - mean) / std as a p + b
EQUAL = {"a": np.full((1, 1, 1, 1), 1 / 127.5), "b": np.full((1, 1, 1, 1), -1.0)}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
IMAGENET = {"a": (1 / 255 / STD).reshape(1, 3, 1, 1), "b": (-MEAN / STD).reshape(1, 3, 1, 1)}
NORMALIZE = [node("Mul", "x a", "scaled"), node("Add", "scaled b", "y")]


def net(
    *nodes: NodeProto,
    of: str = "y",
    bias: bool = True,
    weight: tuple[int, ...] = (4, 3, 3, 3),
    batch: int | str = "batch",
    **options: Any,
) -> ir.Model:
    """Nodes, then a convolution that reads the tensor ``of``; options are its attributes and constants."""
    constants = {name: options.pop(name) for name in list(options) if isinstance(options[name], np.ndarray)}
    inputs = f"{of} w bias" if bias else f"{of} w"
    if bias:
        constants["bias"] = noise(4, seed=2)
    conv = node("Conv", inputs, "out", **options)
    return graph(*nodes, conv, batch=batch, w=noise(*weight, seed=1), **constants)


def outputs(model: ir.Model) -> npt.NDArray[np.float32]:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return np.asarray(run_bytes(content(model), {"image": IMAGES})["out"])


def folded(model: ir.Model) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What a network gives before and after."""
    before = outputs(model)
    assert fold_pixels(model)
    return before, outputs(model)


def pixels_of(model: ir.Model) -> npt.NDArray[np.float32]:
    exposed, _ = expose(content(model), [PIXELS])
    return np.asarray(run_bytes(exposed, {"image": IMAGES})[PIXELS])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalization", [EQUAL, IMAGENET])
def test_without_padding(normalization: dict[str, Any], bias: bool) -> None:
    model = net(*NORMALIZE, bias=bias, strides=[2, 1], **normalization)
    before, after = folded(model)
    np.testing.assert_allclose(after, before, atol=2e-5)
    np.testing.assert_array_equal(pixels_of(model), IMAGES.transpose(0, 3, 1, 2).astype(float) - 128)
    assert [each.op_type for each in model.graph] == ["Cast", "Transpose", "Sub", "Conv"]


@pytest.mark.parametrize(
    ("nodes", "of", "constants"),
    [
        ([], "x", {}),
        ([node("Mul", "x a", "y")], "y", {"a": IMAGENET["a"]}),
        ([node("Mul", "a x", "y")], "y", {"a": IMAGENET["a"]}),
        # the border is the pixel 64 = -b / a
        (NORMALIZE, "y", {"a": np.full((1, 3, 1, 1), 1 / 32), "b": np.full((1, 3, 1, 1), -2.0)}),
        # shifted before it is scaled
        (
            [node("Add", "x b", "shifted"), node("Mul", "shifted a", "y")],
            "y",
            {"a": EQUAL["a"], "b": np.reshape([-100.0, -110.0, -120.0], (1, 3, 1, 1))},
        ),
        ([node("Cast", "x", "y", to=TensorProto.FLOAT)], "y", {}),
    ],
)
def test_a_border_that_is_a_whole_pixel(nodes: list[NodeProto], of: str, constants: dict[str, Any]) -> None:
    model = net(*nodes, of=of, pads=[1, 2, 0, 1], **constants)
    before, after = folded(model)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("normalization", [EQUAL, IMAGENET])
def test_a_border_that_is_rounded(normalization: dict[str, npt.NDArray[np.float64]]) -> None:
    model = net(*NORMALIZE, pads=[1, 1, 1, 1], **normalization)
    weight = np.abs(model.graph.initializers["w"].const_value.numpy())  # type: ignore[union-attr]
    before, after = folded(model)
    np.testing.assert_allclose(after[BORDER], before[BORDER], atol=2e-5)
    # half a pixel at most, at each place of the border
    most = (0.5 * np.broadcast_to(normalization["a"], (1, 3, 1, 1)) * weight).sum((1, 2, 3))
    error = np.abs(after - before).max((0, 2, 3))
    assert (error > 1e-4).any()
    assert (error <= most).all()


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 3, 4]])
@pytest.mark.parametrize("normalization", [EQUAL, IMAGENET])
def test_pixels_are_whole_numbers_of_eight_bits(
    normalization: dict[str, npt.NDArray[np.float64]], pads: list[int]
) -> None:
    model = net(*NORMALIZE, pads=pads, **normalization)
    assert fold_pixels(model)
    found = pixels_of(model)
    assert (found.min(), found.max()) == (-128, 127)
    np.testing.assert_array_equal(found, np.round(found))
    top, left, bottom, right = pads
    if normalization is EQUAL:  # the layer's own border of zeros is the pixel 128
        assert found.shape == IMAGES.transpose(0, 3, 1, 2).shape
        assert quant_layers(model)[0].geometry.pads == tuple(pads)  # type: ignore[union-attr]
        return
    assert found.shape == (4, 3, 8 + top + bottom, 8 + left + right)
    a, b = (np.broadcast_to(normalization[name].reshape(-1), 3) for name in "ab")
    if top:
        assert np.abs(found[0, :, 0, 0] + 128 + b / a).max() < 0.501


@pytest.mark.parametrize("symmetric", [True, False])
def test_their_parameters_lose_nothing(symmetric: bool) -> None:
    params = pixel_params(symmetric=symmetric)
    values = np.arange(-128, 128)
    codes = values / params.scale + params.zero_point
    assert (codes.min(), codes.max()) == (params.qmin, params.qmax)
    assert (params.scale, params.signed, params.zero_point == 0) == (1, symmetric, symmetric)


def test_the_layer_keeps_its_name_and_reads_pixels() -> None:
    model = net(*NORMALIZE, pads=[1, 1, 1, 1], bias=False, **IMAGENET)
    assert fold_pixels(model)
    (layer,) = quant_layers(model)
    assert (layer.name, layer.input, layer.geometry.pads) == ("out", PIXELS, (0, 0, 0, 0))  # type: ignore[union-attr]
    assert [str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)] == ["image", "out"]
    assert not {"a", "b", "w"} & set(model.graph.initializers)


def test_a_weight_that_another_layer_reads_too_stays() -> None:
    model = graph(
        *NORMALIZE, node("Conv", "y w", "c"), node("Conv", "c w", "out"), w=noise(3, 3, 3, 3), **IMAGENET
    )
    before, after = folded(model)
    np.testing.assert_allclose(after, before, atol=5e-5)


def test_a_tensor_in_between_may_be_an_output() -> None:
    model = graph(
        *NORMALIZE, node("Conv", "y w", "out"), outputs=["out", "y"], w=noise(2, 3, 3, 3), **IMAGENET
    )
    before = run_bytes(content(model), {"image": IMAGES})["y"]
    assert fold_pixels(model)
    np.testing.assert_array_equal(run_bytes(content(model), {"image": IMAGES})["y"], before)


def test_a_fixed_batch() -> None:
    model = net(*NORMALIZE, batch=4, pads=[1, 1, 1, 1], **IMAGENET)
    before, after = folded(model)
    np.testing.assert_allclose(after[BORDER], before[BORDER], atol=2e-5)


@pytest.mark.parametrize(
    "model",
    [
        net(*NORMALIZE, weight=(3, 1, 3, 3), bias=False, group=3, **IMAGENET),
        net(*NORMALIZE, auto_pad="SAME_UPPER", **IMAGENET),
        net(*NORMALIZE, a=np.zeros((1, 3, 1, 1)), b=EQUAL["b"]),
        net(*NORMALIZE, a=np.reshape([1.0, 0.0, 1.0], (1, 3, 1, 1)), b=EQUAL["b"]),
        # not one number a channel
        net(node("Mul", "x a", "y"), a=np.ones((1, 1, 8, 8))),
        net(node("Mul", "x a", "y"), a=np.ones((3, 1, 1))),
        net(node("Mul", "x x", "y")),
        net(node("Relu", "x", "y")),
        net(*NORMALIZE, node("Pad", "y around", "z"), of="z", around=np.array([0, 0, 1, 1, 0, 0, 1, 1]), **IMAGENET),
        graph(node("Flatten", "x", "f"), node("Gemm", "f w", "out"), w=noise(192, 2)),
        graph(node("MatMul", "x w", "out"), w=noise(8, 2)),
        graph(node("Conv", "x w", "a"), node("Conv", "x w", "b"), node("Add", "a b", "out"), w=noise(2, 3, 3, 3)),
        graph(node("Conv", "x w", "c"), node("Neg", "x", "out"), outputs=["out", "c"], w=noise(2, 3, 3, 3)),
        graph(node("ConvTranspose", "x w", "out"), w=noise(3, 2, 3, 3)),
        graph(node("Abs", "w", "v"), node("Conv", "x v", "out"), w=noise(2, 3, 3, 3)),
    ],
)  # fmt: skip
def test_what_is_left_alone(model: ir.Model) -> None:
    before = content(model)
    assert not fold_pixels(model)
    assert content(model) == before


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 3, 4]])
@pytest.mark.parametrize("normalization", [EQUAL, IMAGENET, {"a": np.full((1, 3, 1, 1), 2.0)}])
def test_bytes_are_the_same_pixels(
    normalization: dict[str, npt.NDArray[np.float64]], pads: list[int]
) -> None:
    nodes = NORMALIZE if "b" in normalization else [node("Mul", "x a", "y")]
    model = net(*nodes, pads=pads, **normalization)
    assert fold_pixels(model)
    whole = byte_pixels(model)
    assert whole is not None
    whole.name = "bytes"
    wanted = pixels_of(model)
    exposed, _ = expose(content(model), ["bytes"])
    found = run_bytes(exposed, {"image": IMAGES})["bytes"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted + 128)


def test_without_a_folded_layer_there_are_no_bytes() -> None:
    model = net(node("Relu", "x", "y"))
    assert byte_pixels(model) is None
