"""The first convolution on four pixels at a time gives what it gave on each, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgecnn.converters.onnx_openvino import OnnxToOpenVino
from edgecnn.converters.onnx_packed import pack_pixels, unpack_pixels
from edgecnn.openvino_api import read_model
from edgecnn.runtimes import Artifact, backend
from tests.calibration.graphs import node
from tests.converters.helpers import run_bytes
from tests.paths import engine

Array = npt.NDArray[Any]

# powers of two, so that float32 rounds nothing on the way
SCALES = {"one": np.float32(1), "step": np.float32(64)}
ZERO = 128
RANGES = {"Relu": (0, np.inf), "Clip": (0, 3000)}


def network(
    weight: tuple[int, ...] = (4, 3, 3, 3),
    *,
    image: tuple[int | str, ...] = ("batch", 8, 12, 3),
    bias: bool = True,
    activation: str | None = "Relu",
    changes: dict[str, Any] | None = None,
    **options: Any,
) -> bytes:
    """A convolution in INT8 as placement writes it; changes replace nodes by their names."""
    rng = np.random.default_rng(0)
    arrays = {
        **SCALES,
        "zero": np.uint8(ZERO),
        "first": np.uint8(0 if activation else 100),
        "codes": rng.integers(-127, 128, weight).astype(np.int8),
        "scales": (0.5 ** rng.integers(0, 3, weight[0])).astype(np.float32),
        "whole": rng.integers(-999, 999, weight[0]).astype(np.int32),
        "low": np.float32(0),
        "high": np.float32(3000),
    }
    activations = {"Relu": node("Relu", "c", "a"), "Clip": node("Clip", "c low high", "a")}
    nodes = {
        "nchw": node("Transpose", "image", "nchw", perm=(0, 3, 1, 2)),
        "x": node("DequantizeLinear", "nchw one zero", "x"),
        "w": node("DequantizeLinear", "codes scales", "w", axis=0),
        "steps": node("Mul", "scales one", "steps") if bias else None,
        "b": node("DequantizeLinear", "whole steps", "b", axis=0) if bias else None,
        "c": node("Conv", "x w b" if bias else "x w", "c", **options),
        "a": activations.get(str(activation)),
        "q": node("QuantizeLinear", "a step first" if activation else "c step first", "q"),
        "d": node("DequantizeLinear", "q step first", "d"),
        "out": node("Identity", "d", "out"),
        **(changes or {}),
    }
    made = helper.make_graph(
        [each for each in nodes.values() if each is not None],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, image)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, list("ncyx"))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(onnx.shape_inference.infer_shapes(proto).SerializeToString())


def constants(model: bytes) -> dict[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(model).graph.initializer}


def by_hand(
    model: bytes,
    images: Array,
    strides: tuple[int, int],
    pads: tuple[int, ...],
    activation: str | None,
    bias: bool,
) -> Array:
    """What the network gives, in whole numbers as far as they go."""
    known = constants(model)
    codes = known["codes"].astype(np.int64)
    top, left, bottom, right = pads
    pixels = images.transpose(0, 3, 1, 2).astype(np.int64) - ZERO
    pixels = np.pad(pixels, ((0, 0), (0, 0), (top, bottom), (left, right)))
    patches = np.lib.stride_tricks.sliding_window_view(pixels, codes.shape[2:], axis=(2, 3))
    sums = np.einsum("ncyxij,ocij->noyx", patches[:, :, :: strides[0], :: strides[1]], codes)
    if bias:
        sums = sums + known["whole"][:, None, None]
    values = sums * known["scales"].astype(np.float64)[:, None, None]
    if activation:
        values = np.clip(values, *RANGES[activation])
    step, first = float(SCALES["step"]), int(known["first"])
    return (np.clip(np.rint(values / step) + first, 0, 255) - first) * step


def outline(model: bytes) -> list[tuple[Any, ...]]:
    """Its nodes without the names of values: operation, attributes, constants."""
    graph, known = onnx.load_from_string(model).graph, constants(model)
    return [
        (
            each.op_type,
            {a.name: helper.get_attribute_value(a) for a in each.attribute if a.name != "kernel_shape"},
            [known[name].tolist() for name in each.input if name in known],
        )
        for each in graph.node
    ]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_same_as_by_hand(data: st.DataObject) -> None:
    def number(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    channels, outputs, rows, columns = number(1, 3), number(1, 6), number(1, 4), number(1, 9)
    strides = (number(1, 3), data.draw(st.sampled_from([1, 2, 4])))
    pads = (number(0, 2), number(0, 5), number(0, 2), number(0, 5))
    height, width = number(max(rows, 3), 7), number(max(columns - pads[1] - pads[3], 1), 21)
    activation, bias = data.draw(st.sampled_from([None, "Relu", "Clip"])), data.draw(st.booleans())
    model = network(
        (outputs, channels, rows, columns),
        image=("batch", height, width, channels),
        bias=bias,
        activation=activation,
        strides=strides,
        pads=pads,
    )
    packed = pack_pixels(model)
    assert packed != model
    onnx.checker.check_model(onnx.load_from_string(packed), full_check=True)
    images = np.random.default_rng(1).integers(0, 256, (2, height, width, channels), np.uint8)
    wanted = by_hand(model, images, strides, pads, activation, bias)
    np.testing.assert_array_equal(run_bytes(packed, {"image": images})["out"], wanted)
    unpacked = unpack_pixels(packed)
    assert outline(unpacked) == outline(model)
    np.testing.assert_array_equal(run_bytes(unpacked, {"image": images})["out"], wanted)


def test_four_pixels_as_one_by_hand() -> None:
    """Stride 2, kernel of three, one left of the image: positions begin at pixels 3 and 5 of two fours."""
    model = network((1, 1, 1, 3), image=(1, 3, 8, 1), strides=[1, 2], pads=[0, 1, 0, 0], bias=False)
    first, second, third = constants(model)["codes"].ravel()
    packed = onnx.load_from_string(pack_pixels(model)).graph
    (conv,) = [each for each in packed.node if each.op_type == "Conv"]
    given = {each.name: helper.get_attribute_value(each) for each in conv.attribute}
    assert given == {"kernel_shape": [1, 2], "strides": [1, 1], "pads": [0, 1, 0, 0]}
    (codes,) = [numpy_helper.to_array(each) for each in packed.initializer if len(each.dims) == 4]
    # by position: pixels 0 to 3 of the first four, then of the second
    assert codes.transpose(0, 2, 3, 1).reshape(2, 8).tolist() == [
        [0, 0, 0, first, second, third, 0, 0],
        [0, 0, 0, 0, 0, first, second, third],
    ]


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_open_sizes(stride: int, pads: list[int]) -> None:
    model = network(image=("batch", "height", "width", 3), strides=[stride, stride], pads=pads)
    assert pack_pixels(model) == model
    for first in (9, 10, 11, 12):
        packed = pack_pixels(model, size_hw=(9, first))
        assert packed != model
        for width in (first, first + 4, first + 12):
            images = np.random.default_rng(1).integers(0, 256, (1, 15, width, 3), np.uint8)
            found, wanted = (run_bytes(each, {"image": images})["out"] for each in (packed, model))
            np.testing.assert_array_equal(found, wanted)


FLOAT_WEIGHTS = node("Cast", "codes", "w", to=TensorProto.FLOAT)


@pytest.mark.parametrize(
    "model",
    [
        network(strides=[1, 3]),
        network(dilations=[1, 2]),
        network(auto_pad="SAME_UPPER"),
        network((3, 1, 3, 3), group=3),
        network((4, 4, 3, 3), image=("batch", 8, 12, 4)),
        network(changes={"w": FLOAT_WEIGHTS}),
        # its result stays in float
        network(changes={"q": None, "d": None, "out": node("Identity", "a", "out")}),
        # what stands between is not fused with it
        network(changes={"a": node("Sigmoid", "c", "a")}),
        # two read what it gives
        network(changes={"out": node("Mul", "c d", "out")}),
        network(changes={"d": node("DequantizeLinear", "q step first", "out"), "out": None}),
        network(changes={"x": node("Cast", "nchw", "x", to=TensorProto.FLOAT)}),
    ],
)
def test_what_is_left_alone(model: bytes) -> None:
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    assert pack_pixels(model) is model
    assert unpack_pixels(model) is model


def test_bytes_keep_their_places(tmp_path: Path) -> None:
    """ONNX Runtime takes four pixels as they lie: it moves nothing before the layer."""
    model = pack_pixels(network((8, 3, 3, 3), image=("batch", 16, 16, 3), strides=[2, 2], pads=[1, 1, 1, 1]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kinds = [each.op_type for each in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds[: kinds.index("QLinearConv")] == ["Reshape"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [2, "batch"])
def test_openvino_reads_pixels_one_by_one(batch: int | str, bias: bool) -> None:
    """From ONNX and as IR, and in INT8."""
    engine("openvino")
    options: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1], "bias": bias}
    model = network((8, 3, 3, 3), image=(batch, 16, 16, 3), **options)
    packed = pack_pixels(model)
    nodes = read_model(packed).get_ordered_ops()
    assert [each.get_type_name() for each in nodes].count("Transpose") == 1
    assert [
        list(each.input_value(1).get_shape()) for each in nodes if each.get_type_name() == "Convolution"
    ] == [[8, 3, 3, 3]]
    made = OnnxToOpenVino()(packed)
    assert made.facts["int8_layers"] == "1 of 1"
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    wanted = by_hand(model, images, (2, 2), (1, 1, 1, 1), "Relu", bias)
    for artifact in (Artifact("onnx", packed), Artifact("openvino", made.xml, weights=made.weights)):
        with backend("openvino")(artifact) as runtime:
            found = runtime.run({"image": images})["out"]
        # it rounds halves otherwise
        np.testing.assert_allclose(found, wanted, atol=SCALES["step"])
        assert (found == wanted).mean() > 0.99
