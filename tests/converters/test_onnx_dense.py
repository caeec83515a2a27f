"""Dense networks: the scores of all windows, as those of each window cut out; and what has no dense form."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgecnn import ModelSpec
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters.dense_places import Axis, Place, Slide
from edgecnn.converters.onnx_dense import DenseOnnx, OnnxToDense
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.converters.onnx_packed import unpack_pixels
from edgecnn.errors import ModelError
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, backend
from tests.calibration.graphs import pixels
from tests.converters.helpers import convert
from tests.paths import engine

Array = npt.NDArray[Any]
WINDOW = 24
EXACT = 1e-5


def spec(size: int = WINDOW, **changes: Any) -> ModelSpec:
    return ModelSpec(
        task="window_detection",
        size_hw=(size, size),
        mean=(0.5,),
        std=(0.25,),
        **{"activation": "none", **changes},
    )


def windowed(net: nn.Module, size: int = WINDOW, **changes: Any) -> bytes:
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return convert(net.eval(), spec(size, **changes)).model


def dense(model: bytes, stride: int) -> DenseOnnx:
    return OnnxToDense(stride)(onnx.load_from_string(model))


def picture(height: int, width: int) -> Array:
    return np.random.default_rng(3).integers(0, 256, (1, height, width, 3), np.uint8)


def cut_out(image: Array, size: int, stride: int) -> Array:
    """Every window, row by row."""
    rows = range(0, image.shape[1] - size + 1, stride)
    columns = range(0, image.shape[2] - size + 1, stride)
    return np.concatenate([image[:, y : y + size, x : x + size] for y in rows for x in columns])


def scores(model: bytes, images: Array, runtime: str = "ort") -> Array:
    """Of windows, (n, K)."""
    with backend(runtime)(Artifact("onnx", model)) as loaded:
        found = next(iter(loaded.run({"image": images}).values()))
    return found.reshape(len(found), -1)


def score_map(made: DenseOnnx, image: Array, stride: int, runtime: str = "ort") -> Array:
    """Of all windows of an image, (n, K), row by row."""
    window = TensorInfo(name="image", dtype="uint8", shape=("batch", WINDOW, WINDOW, 3))
    with backend(runtime)(Artifact("onnx", made.model, inputs=(window,))) as loaded:
        found = next(iter(loaded.run({"image": image}).values()))[0]
    rows, columns = ((size - WINDOW) // stride + 1 for size in image.shape[1:3])
    return found[:, :rows, :columns].reshape(len(found), -1).T


def difference(model: bytes, made: DenseOnnx, stride: int, runtime: str = "ort") -> float:
    """The largest, relative to the largest score."""
    image = picture(WINDOW + 5 * stride, WINDOW + 3 * stride)
    wanted = scores(model, cut_out(image, WINDOW, stride), runtime)
    found = score_map(made, image, stride, runtime)
    assert found.shape == wanted.shape
    assert np.ptp(wanted, axis=0).min() > 1e-3, "windows that all look alike show nothing"
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


class Residual(nn.Module):
    """Two branches that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.left = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = self.left(x), self.right(x)
        x = torch.cat([left + x, left * right], 1)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class ChannelsLast(nn.Module):
    """Flattens rows, columns, channels, as Keras does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(6 * 5 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).permute(0, 2, 3, 1)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def plain(*head: nn.Module, channels: int = 12) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, channels, 3),
        nn.Hardswish(),
        nn.MaxPool2d(2, 2),
        *head,
    )


class Mean(nn.Module):
    """The mean of all features, and of the channels before, as attention to places has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = plain()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x.mean((1, 2, 3))


EXACT_NETS: dict[str, Any] = {
    "flatten": lambda: plain(nn.Flatten(), nn.Linear(12 * 4 * 4, 5)),
    "two layers": lambda: plain(nn.Flatten(), nn.Linear(192, 16), nn.PReLU(), nn.Linear(16, 5), nn.Sigmoid()),
    "average": lambda: plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
    "largest": lambda: plain(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(12, 5), nn.Softmax(1)),
    "average of four": lambda: plain(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 2), nn.Softmax(-1)),
    "convolution": lambda: plain(nn.Conv2d(12, 6, 4), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Flatten()),
    "depthwise": lambda: plain(nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 4, 2), nn.Flatten()),
    "dilated": lambda: plain(nn.Conv2d(12, 6, 2, dilation=2), nn.Flatten(), nn.Linear(24, 3)),
    "strides to the end": lambda: plain(
        nn.Conv2d(12, 6, 2, 2), nn.ReLU(), nn.Conv2d(6, 6, 2, 2), nn.Flatten(), nn.Linear(6, 3)
    ),
    "padding on a point": lambda: plain(nn.AvgPool2d(4), nn.Conv2d(12, 6, 3, padding=1), nn.Flatten()),
    "one score": lambda: plain(nn.Flatten(), nn.Linear(192, 1)),
    "residual": Residual,
    "mean of all": Mean,
    "channels last": ChannelsLast,
}


@cache
def model_of(name: str) -> bytes:
    return windowed(EXACT_NETS[name]())


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("name", EXACT_NETS)
def test_scores_are_those_of_cut_windows(name: str, stride: int) -> None:
    model = model_of(name)
    made = dense(model, stride)
    assert made.exact
    assert difference(model, made, stride) <= EXACT


@pytest.mark.parametrize("name", ["flatten", "average", "residual", "strides to the end"])
def test_in_openvino_too(name: str) -> None:
    engine("openvino")
    model = model_of(name)
    made = dense(model, 2)
    assert difference(model, made, 2, "openvino") <= EXACT


@pytest.mark.parametrize("name", ["flatten", "two layers", "average", "residual", "channels last"])
def test_int8_stays_int8(name: str) -> None:
    """Weights keep their bytes, and scores differ from those of cut windows by at most some steps."""
    model = Int8Builder(model_of(name), pixels(16, WINDOW, WINDOW, 3), method="minmax", threads=1).build(
        "cpu"
    )
    made = dense(model, 4)
    assert made.exact
    assert difference(model, made, 4) <= 0.02
    before, after = (onnx.load_from_string(content).graph for content in (model, made.model))
    kinds = [[node.op_type for node in graph.node].count("DequantizeLinear") for graph in (before, after)]
    assert kinds[0] == kinds[1]
    assert _bytes_of_weights(after) == _bytes_of_weights(before)


@pytest.mark.parametrize("stride", [2, 4])
def test_int8_reads_four_pixels_at_a_time_where_windows_allow_it(stride: int) -> None:
    model = Int8Builder(model_of("flatten"), pixels(16, WINDOW, WINDOW, 3), method="minmax", threads=1).build(
        "cpu"
    )
    assert unpack_pixels(model) != model
    made = dense(model, stride)
    assert difference(model, made, stride) <= 0.02
    assert (unpack_pixels(made.model) != made.model) == (stride == 4)


def _bytes_of_weights(graph: onnx.GraphProto) -> int:
    return sum(numpy_helper.to_array(t).nbytes for t in graph.initializer if t.data_type == TensorProto.INT8)


@pytest.mark.parametrize("name", ["flatten", "average"])
def test_fp16(name: str) -> None:
    half = OnnxToFp16()(onnx.load_from_string(model_of(name))).SerializeToString()
    assert difference(half, dense(half, 4), 4) <= 5e-3


def padded() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_padding_is_said_and_counts_at_the_border_alone(stride: int) -> None:
    model = windowed(padded())
    made = dense(model, stride)
    assert not made.exact
    assert len(made.inexact) == 3
    one = picture(WINDOW, WINDOW)
    assert np.abs(score_map(made, one, stride) - scores(model, one)).max() <= EXACT, (
        "a window that is the image"
    )
    assert difference(model, made, stride) > EXACT


@pytest.mark.parametrize("size", [WINDOW, 25])
def test_pooling_that_rounds_up(size: int) -> None:
    """Where nothing is cut off by the border of a window it is as good as one that rounds down."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 2, ceil_mode=True), nn.Flatten(), nn.LazyLinear(3)
    )
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    model = windowed(net, size)
    made = dense(model, 2)
    assert made.exact == (size == WINDOW)
    if made.exact:
        assert difference(model, made, 2) <= EXACT


class Squeezed(nn.Module):
    """Squeeze and excitation: the mean of a window weighs its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(x.amax((2, 3)))  # type: ignore[no-any-return]


class Placed(nn.Module):
    """Adds another number at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, 8, 3, 2), nn.Parameter(torch.randn(1, 8, 11, 11))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.stem(x) + self.place).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (Squeezed(), r"\(Mul\): joins values of different sizes"),
        (Placed(), r"\(Add\): has another number for each place in a window"),
        (
            plain(nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(768, 2)),
            r"\(Resize\): is not an operation",
        ),
        (plain(nn.InstanceNorm2d(12), nn.Flatten(), nn.Linear(192, 2)), r"\(\w+\): "),
        (plain(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 2)), r"\(\w+\): "),
        (plain(nn.PixelShuffle(2), nn.Flatten(), nn.Linear(192, 2)), r"\(\w+\): is not an operation"),
    ],
)
def test_what_has_no_dense_form_is_named(net: nn.Module, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        dense(windowed(net), 4)


def by_hand(
    nodes: list[onnx.NodeProto], weights: dict[str, Array], classes: int, size: int = 4, opset: int = 18
) -> onnx.ModelProto:
    """A network on ``x``, float (batch, size, size, 3), that gives ``scores``."""
    shape = ["batch", size, size, 3]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT), *nodes],
        "by hand",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


RNG = np.random.default_rng(0)
CUBE = RNG.normal(size=(3, 3, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("op", ["Conv", "GlobalAveragePool"])
def test_axes_that_look_like_others_are_refused(op: str) -> None:
    """Three rows, three columns and three channels: by their sizes alone nothing is wrong."""
    weights = ["w"] if op == "Conv" else []
    nodes = [
        helper.make_node(op, ["x", *weights], ["y"]),
        helper.make_node("ReduceMean", ["y", "axes"], ["scores"], keepdims=0),
    ]
    model = by_hand(nodes, {"w": CUBE, "axes": np.array([2, 3])}, 3, size=3)
    with pytest.raises(ModelError, match=rf"\({op}\): its channels do not come first"):
        OnnxToDense(1)(model)


def test_scales_of_inputs_are_not_those_of_outputs() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], axis=0),
        helper.make_node("MatMul", ["f", "w"], ["scores"]),
    ]
    weights = {
        "q": RNG.integers(-99, 99, (48, 48)).astype(np.int8),
        "scale": np.linspace(0.1, 9, 48, dtype=np.float32),
    }
    with pytest.raises(ModelError, match="has scales that are not of output channels"):
        OnnxToDense(1)(by_hand(nodes, weights, 48))


def test_weights_that_are_quantized_in_the_graph_are_refused() -> None:
    """As exports of training with quantization have them."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Conv", ["t", "d"], ["c"]),
        helper.make_node("Flatten", ["c"], ["scores"]),
    ]
    weights = {
        "w": RNG.normal(size=(2, 3, 4, 4)).astype(np.float32),
        "scale": np.float32(0.1),
        "zero": np.int8(0),
    }
    with pytest.raises(ModelError, match=r"\(Conv\): its weights are computed"):
        OnnxToDense(1)(by_hand(nodes, {k: np.asarray(v) for k, v in weights.items()}, 2))


def test_a_position_beyond_the_picture_is_refused() -> None:
    """Three positions of a kernel of 2 in steps of 3 over 6 pixels: shape inference counts them, engines do not."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("MaxPool", ["t"], ["p"], kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1),
        helper.make_node("Flatten", ["p"], ["scores"]),
    ]
    with pytest.raises(ModelError, match=r"\(MaxPool\): its last position lies beyond the picture"):
        OnnxToDense(1)(by_hand(nodes, {}, 27, size=6))


@pytest.mark.parametrize("kind", ["value_float", "value_floats"])
def test_constants_of_every_kind(kind: str) -> None:
    value: Any = {"value_float": 2.0, "value_floats": [1.0, 2.0, 3.0]}[kind]
    nodes = [
        helper.make_node("Constant", [], ["c"], **{kind: value}),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["t"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Mul", ["f", "c"], ["scores"]),
    ]
    model = by_hand(nodes, {}, 3)
    made = OnnxToDense(2)(model)
    image = picture(8, 10)
    wanted = scores(model.SerializeToString(), cut_out(image, 4, 2))
    with backend("ort")(Artifact("onnx", made.model)) as loaded:
        (found,) = loaded.run({"image": image}).values()
    assert np.abs(found[0].reshape(3, -1).T - wanted).max() <= 1e-4


def test_a_stride_is_at_least_one() -> None:
    with pytest.raises(ModelError, match="stride of windows is at least 1, not 0"):
        dense(windowed(plain(nn.Flatten(), nn.Linear(192, 2))), 0)


def test_what_takes_no_window_is_refused() -> None:
    info = [helper.make_tensor_value_info(n, TensorProto.UINT8, ["batch", 4]) for n in ("image", "scores")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["scores"])], "g", info[:1], info[1:])
    with pytest.raises(ModelError, match=r"takes one input, \(batch, height, width, channels\)"):
        OnnxToDense(4)(helper.make_model(graph))


def test_strides_become_dilations() -> None:
    """Two strides of 2 where windows are 2 pixels apart: the second is left out, what follows is spread."""
    place = Place(3, Axis(24), Axis(24))
    slide, place = Slide((3, 3), (2, 2)).over(place, (11, 11), 2)
    assert (slide.strides, slide.dilations) == ((2, 2), (1, 1))
    slide, place = Slide((3, 3), (2, 2), pads=((1, 1), (0, 0))).over(place, (5, 5), 2)
    assert (slide.strides, slide.dilations) == ((1, 1), (1, 1))
    slide, place = Slide((3, 3), pads=((1, 1), (0, 0))).over(place, (5, 3), 2)
    assert (slide.dilations, slide.pads) == ((2, 2), ((2, 2), (0, 0)))
    assert (place.height, place.width) == (Axis(5, 4, 2), Axis(3, 4, 2))
    slide, place = Slide((5, 3)).over(place, (1, 1), 8)
    assert slide.strides == (4, 4)
    assert place.is_point
