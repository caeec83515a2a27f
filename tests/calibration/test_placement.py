"""Where 8 bits begin and end, in the graph as written and as ONNX Runtime runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from edgecnn.calibration.activations import observe
from edgecnn.calibration.layers import quant_layers
from edgecnn.calibration.placement import Placement, is_symmetric, place, quantized_tensors
from edgecnn.calibration.ranges import QuantParams, quant_params
from edgecnn.calibration.rounding import Int8Weights, round_weights
from tests.calibration.graphs import Images, content, graph, node, noise, pixels
from tests.converters.helpers import run_bytes
from tests.paths import engine

IMAGES = pixels(16, 8, 8, 3)
PLACEMENTS: list[Placement] = ["cpu", "tensorrt"]


def chain() -> ir.Model:
    """Two convolutions and a classifier."""
    return graph(
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "small w2", "c2"), node("Clip", "c2 low high", "r2"),
        node("Flatten", "r2", "flat"), node("Gemm", "flat w3 b3", "logits", transB=1),
        node("Softmax", "logits", "out"),
        w1=noise(8, 3, 3, 3) / 255, b1=noise(8), w2=noise(6, 8, 3, 3), w3=noise(5, 24), b3=noise(5),
        low=0.0, high=6.0,
    )  # fmt: skip


def residual() -> ir.Model:
    """Two blocks, the second of them with a convolution on its skip."""
    return graph(
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]), node("Add", "r1 c2", "sum1"), node("Relu", "sum1", "r2"),
        node("Conv", "r2 w3", "c3"), node("Conv", "r2 w4", "c4"), node("Add", "c3 c4", "sum2"),
        node("Relu", "sum2", "r3"), node("Conv", "r3 w5", "c5"), node("Add", "r3 c5", "out"),
        w1=noise(8, 3, 3, 3) / 255, b1=noise(8), w2=noise(8, 8, 3, 3, seed=1), w3=noise(8, 8, 3, 3, seed=2),
        w4=noise(8, 8, 3, 3, seed=3), w5=noise(8, 8, 1, 1, seed=4),
    )  # fmt: skip


def mixed() -> ir.Model:
    """A transposed convolution, branches that meet, a dense layer on rows, two outputs."""
    return graph(
        node("Conv", "x w1 b1", "c1"), node("Sigmoid", "c1", "s1"),
        node("ConvTranspose", "s1 w2 b2", "up", strides=[2, 2]), node("Relu", "up", "r2"),
        node("Conv", "s1 w3", "deep", group=4), node("Concat", "deep deep", "both", axis=1),
        node("Reshape", "both rows", "tokens"), node("MatMul", "tokens w4", "out"),
        node("GlobalAveragePool", "r2", "mean"),
        outputs=["out", "mean"], rows=[0, 16, 16],
        w1=noise(4, 3, 3, 3) / 255, b1=noise(4), w2=noise(4, 6, 2, 2), b2=noise(6), w3=noise(8, 1, 3, 3),
        w4=noise(16, 5),
    )  # fmt: skip


NETS = [chain, residual, mixed]
LAYERS = {
    chain: ["c1", "c2", "logits"],
    residual: ["c1", "c2", "c3", "c4", "c5"],
    mixed: ["c1", "up", "deep", "out"],
}
every_net = pytest.mark.parametrize("net", NETS)
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


def chosen(
    model: ir.Model, placement: Placement, images: Images = IMAGES
) -> tuple[dict[str, QuantParams], dict[str, Int8Weights]]:
    """The whole range of each tensor, and weights for that."""
    layers = quant_layers(model)
    seen = observe(content(model), quantized_tensors(layers), [images], threads=1)
    symmetric = is_symmetric(placement)
    params = {name: quant_params(each.low, each.high, symmetric=symmetric) for name, each in seen.items()}
    return params, round_weights(model, layers, params, images, threads=1)


def placed(model: ir.Model, placement: Placement, kept_float: Collection[str] = ()) -> bytes:
    params, weights = chosen(model, placement)
    made = place(model, quant_layers(model), params, weights, placement=placement, kept_float=kept_float)
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    return made


class Graph:
    """A graph as written, to look things up in."""

    def __init__(self, model: bytes) -> None:
        self.proto = onnx.load_from_string(model).graph
        self.nodes = {each.name: each for each in self.proto.node if each.name}
        self.made = {name: each for each in self.proto.node for name in each.output}
        self.constants = {each.name: numpy_helper.to_array(each) for each in self.proto.initializer}

    def of(self, op: str) -> list[onnx.NodeProto]:
        return [each for each in self.proto.node if each.op_type == op]

    def maker(self, name: str) -> str:
        """Which operation gives a tensor; empty for constants and inputs."""
        return self.made[name].op_type if name in self.made else ""

    def pair(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Scale and zero point of the DequantizeLinear that gives a tensor, and of what is before it."""
        back = self.made[name]
        assert back.op_type == "DequantizeLinear"
        whole = self.made[back.input[0]]
        assert whole.op_type == "QuantizeLinear"
        assert list(whole.input[1:]) == list(back.input[1:])
        return self.constants[back.input[1]], self.constants[back.input[2]]

    def stored(self, name: str) -> tuple[npt.NDArray[Any], onnx.NodeProto]:
        """The whole numbers of a constant, and what makes real ones of them."""
        back = self.made[name]
        assert back.op_type == "DequantizeLinear"
        return self.constants[back.input[0]], back


def axis(back: onnx.NodeProto) -> int:
    return int(onnx.helper.get_node_attr_value(back, "axis"))


def optimized(model: bytes, folder: Path) -> Counter[str]:
    """The operations that ONNX Runtime makes of a model."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    # without the layouts of one processor
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return Counter(each.op_type for each in onnx.load(settings.optimized_model_filepath).graph.node)


@every_net
@every_placement
def test_values_are_close_to_float(net: Callable[[], ir.Model], placement: Placement) -> None:
    model = net()
    wanted = run_bytes(content(model), {"image": IMAGES})
    found = run_bytes(placed(model, placement), {"image": IMAGES})
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        error = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
        assert 1e-6 < error < 0.05


@every_net
@every_placement
def test_names_are_kept_and_the_model_is_untouched(net: Callable[[], ir.Model], placement: Placement) -> None:
    model = net()
    before = content(model)
    made = Graph(placed(model, placement))
    assert content(model) == before
    proto = onnx.load_from_string(before).graph
    assert made.proto.input == proto.input
    assert made.proto.output == proto.output
    assert {each.name: each.op_type for each in proto.node} == {
        name: each.op_type for name, each in made.nodes.items()
    }


@every_net
@every_placement
def test_no_tensor_is_rounded_twice(net: Callable[[], ir.Model], placement: Placement) -> None:
    made = Graph(placed(net(), placement))
    rounded = [each.input[0] for each in made.of("QuantizeLinear")]
    assert len(rounded) == len(set(rounded))
    assert "DequantizeLinear" not in map(made.maker, rounded)
    # nothing is computed with whole numbers but what goes with them
    whole = {name for each in made.of("QuantizeLinear") for name in each.output}
    assert {each.op_type for each in made.proto.node if whole & set(each.input)} == {"DequantizeLinear"}


@every_net
@every_placement
def test_inputs_and_weights_of_each_layer(net: Callable[[], ir.Model], placement: Placement) -> None:
    model = net()
    params, weights = chosen(model, placement)
    made = Graph(placed(model, placement))
    layers = quant_layers(model)
    assert [layer.name for layer in layers] == LAYERS[net]
    for layer in layers:
        each = made.nodes[layer.name]
        scale, zero = made.pair(each.input[0])
        assert (scale, zero) == (np.float32(params[layer.input].scale), params[layer.input].zero_point)
        assert zero.dtype == (np.int8 if placement == "tensorrt" else np.uint8)
        codes, back = made.stored(each.input[1])
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(codes, weights[layer.name].codes)
        np.testing.assert_array_equal(made.constants[back.input[1]], weights[layer.name].scales)
        assert axis(back) == {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}[layer.op]
        assert all(not made.constants[name].any() for name in back.input[2:])


@every_net
def test_biases_for_the_cpu_are_int32_in_steps_of_both_scales(net: Callable[[], ir.Model]) -> None:
    model = net()
    _, weights = chosen(model, "cpu")
    made = Graph(placed(model, "cpu"))
    for layer in quant_layers(model):
        each, bias = made.nodes[layer.name], weights[layer.name].bias
        if layer.op == "MatMul":
            assert len(each.input) == 2
            continue
        assert bias is not None
        codes, back = made.stored(each.input[2])
        assert codes.dtype == np.int32
        factors = [made.constants[name] for name in made.made[back.input[1]].input]
        assert made.maker(back.input[1]) == "Mul"
        step = factors[0] * factors[1]
        assert step == pytest.approx(made.pair(each.input[0])[0] * weights[layer.name].scales)
        assert np.abs(codes * step - bias).max() <= 0.51 * step.max()


@every_net
def test_the_cpu_reads_uint8_on_both_sides_of_a_layer(net: Callable[[], ir.Model]) -> None:
    model = net()
    made = Graph(placed(model, "cpu"))
    outputs = [value.name for value in made.proto.output]
    for layer in quant_layers(model):
        (given,) = made.nodes[layer.name].output
        readers = [each for each in made.proto.node if given in each.input]
        if readers and readers[0].op_type in ("Relu", "Clip"):
            given = readers[0].output[0]
            readers = [each for each in made.proto.node if given in each.input]
        wanted = {"Softmax"} if layer.name == "logits" else set() if given in outputs else {"QuantizeLinear"}
        assert {each.op_type for each in readers} == wanted


@pytest.mark.parametrize(
    ("net", "integer"),
    [
        (chain, {"QLinearConv": 2, "QGemm": 1, "MaxPool": 1}),
        # the first sum is read by layers alone, the others are not rounded
        (residual, {"QLinearConv": 5, "QLinearAdd": 1, "Add": 2}),
        # there is no transposed convolution of integers
        (mixed, {"QLinearConv": 2, "MatMulIntegerToFloat": 1, "ConvTranspose": 1}),
    ],
)
def test_the_cpu_runs_layers_in_integers(
    net: Callable[[], ir.Model], integer: dict[str, int], tmp_path: Path
) -> None:
    found = optimized(placed(net(), "cpu"), tmp_path)
    assert {op: found[op] for op in integer} == integer
    assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & set(found)


def test_on_the_cpu_sums_are_handed_on_in_float() -> None:
    made = Graph(placed(residual(), "cpu"))
    skip, branch = made.nodes["out"].input
    assert (made.maker(skip), made.maker(branch)) == ("Relu", "DequantizeLinear")
    assert made.nodes["c5"].input[0] != skip


@every_net
def test_tensorrt_gets_what_it_parses(net: Callable[[], ir.Model]) -> None:
    model = net()
    made = Graph(placed(model, "tensorrt"))
    assert {array.dtype for array in made.constants.values()} <= {
        np.dtype(kind) for kind in ("float32", "int8", "int64")
    }
    for each in made.of("QuantizeLinear"):
        assert (made.constants[each.input[2]].dtype, made.constants[each.input[2]]) == (np.int8, 0)
    (image,) = [each for each in made.proto.node if "image" in each.input]
    assert image.op_type == "Cast"
    for layer in quant_layers(model):
        biases = made.nodes[layer.name].input[2:]
        assert [made.constants[name].dtype for name in biases] == [np.float32] * len(biases)
        assert len(biases) == (0 if layer.op == "MatMul" else 1)


@every_net
def test_tensorrt_keeps_what_is_around_layers_in_float(net: Callable[[], ir.Model]) -> None:
    model = net()
    made = Graph(placed(model, "tensorrt"))
    read = {each.name for each in made.nodes.values() if "DequantizeLinear" in map(made.maker, each.input)}
    sums = {each.name for each in made.of("Add")}
    assert read - sums == set(LAYERS[net])


def test_tensorrt_quantises_the_skip_of_a_sum_alone() -> None:
    made = Graph(placed(residual(), "tensorrt"))
    kinds = {each.name: [made.maker(name) for name in each.input] for each in made.of("Add")}
    assert kinds == {
        "sum1": ["DequantizeLinear", "Conv"],
        # both come from layers and nobody reads the second in 8 bits
        "sum2": ["Conv", "DequantizeLinear"],
        "out": ["DequantizeLinear", "Conv"],
    }
    # it is the pair that the next layer reads
    assert made.nodes["sum1"].input[0] == made.nodes["c2"].input[0]


def inverted() -> ir.Model:
    """Bottlenecks as of MobileNetV2: what comes past the layers comes from a layer without activation."""
    return graph(
        node("Conv", "x w1", "p1"),
        node("Conv", "p1 w2", "e1"), node("Relu", "e1", "r1"), node("Conv", "r1 w3", "p2"),
        node("Add", "p1 p2", "sum1"),
        node("Conv", "sum1 w2", "e2"), node("Relu", "e2", "r2"), node("Conv", "r2 w3", "p3"),
        node("Add", "p3 sum1", "sum2"), node("Relu", "p2", "left"), node("Add", "left sum1", "sum3"),
        node("Add", "sum2 one", "out"), outputs=["out", "sum3"],
        w1=noise(4, 3, 1, 1) / 255, w2=noise(8, 4, 1, 1), w3=noise(4, 8, 1, 1), one=1.0,
    )  # fmt: skip


def test_tensorrt_knows_the_skip_by_its_other_readers() -> None:
    made = Graph(placed(inverted(), "tensorrt"))
    kinds = {each.name: [made.maker(name) for name in each.input] for each in made.of("Add")}
    assert kinds == {
        # p2 is read twice, so there is nothing to fuse the sum into
        "sum1": ["Conv", "Conv"],
        "sum2": ["Conv", "DequantizeLinear"],
        "sum3": ["Relu", "Add"],
        "out": ["Add", ""],
    }


@every_placement
def test_layers_that_are_kept_in_float(placement: Placement) -> None:
    model = chain()
    made = Graph(placed(model, placement, ["c2"]))
    before = Graph(content(model))
    inputs = made.nodes["c2"].input
    assert len(inputs) == 2
    np.testing.assert_array_equal(made.constants[inputs[1]], before.constants["w2"])
    assert made.maker(made.nodes["c2"].input[0]) == "MaxPool"
    for name in ("c1", "logits"):
        made.stored(made.nodes[name].input[1])
    around = {"cpu": ["x", "r1", "flat"], "tensorrt": ["x", "flat"]}[placement]
    assert len(made.of("QuantizeLinear")) == len(around)


@every_placement
def test_with_all_layers_in_float_nothing_changes(placement: Placement) -> None:
    for net in NETS:
        model = net()
        made = placed(model, placement, LAYERS[net])
        assert not Graph(made).of("QuantizeLinear")
        wanted = run_bytes(content(model), {"image": IMAGES})
        for name, values in run_bytes(made, {"image": IMAGES}).items():
            np.testing.assert_array_equal(values, wanted[name])


@every_placement
def test_a_tensor_that_a_layer_in_float_reads_too(placement: Placement) -> None:
    made = Graph(placed(residual(), placement, ["c4"]))
    eight, real = made.nodes["c3"].input[0], made.nodes["c4"].input[0]
    made.pair(eight)
    assert made.maker(real) == "Relu"
    assert made.made[made.made[eight].input[0]].input[0] == real


@every_placement
def test_names_of_the_model_that_are_numbers(placement: Placement) -> None:
    """As exporters give them: the short names of other values must not meet them."""
    constants: dict[str, Any] = {"w": noise(4, 3, 3, 3) / 255, "0": 1.0, "a": 2.0, "1": noise(4, 4, 1, 1)}
    model = graph(
        node("Conv", "x w", "5"), node("Add", "5 0", "3"), node("Mul", "3 a", "2"), node("Conv", "2 1", "out"),
        **constants,
    )  # fmt: skip
    wanted = run_bytes(content(model), {"image": IMAGES})["out"]
    found = run_bytes(placed(model, placement), {"image": IMAGES})["out"]
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


@every_net
def test_tensorrt_builds_an_engine(net: Callable[[], ir.Model]) -> None:
    """With the builder of TensorRT for RTX, which needs no GPU."""
    trt = engine("tensorrt_rtx_bindings")
    said: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                said.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(placed(net(), "tensorrt")), said
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *[(batch, 8, 8, 3) for batch in (1, 4, 16)])
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None, said
    assert not said
