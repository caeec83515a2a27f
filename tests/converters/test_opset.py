"""Older opsets: the same values in the words that they have, or a refusal that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser
from torch import nn

from edgecnn import ModelSpec
from edgecnn.converters.onnx_opset import OnnxToOlderOpset
from edgecnn.errors import ModelError
from tests.converters.helpers import check_parity, convert, images, run_bytes

PIXELS = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
SPEC = ModelSpec(task="classification", size_hw=(12, 12))
SAME = "float[N,3,5,6] y"


def model(body: str, outputs: str = SAME, opset: int = 20) -> onnx.ModelProto:
    """ONNX from ``x`` (N, 3, 5, 6); its last node is called last."""
    graph = f"g (float[N,3,5,6] x) => ({outputs}) {{ {body} }}"
    made = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> {graph}')
    made.graph.node[-1].name = "last"
    onnx.checker.check_model(made, full_check=True)
    return made


def constant(name: str, values: list[Any]) -> str:
    kind = "floats" if isinstance(values[0], float) else "ints"
    return f"{name} = Constant<value_{kind}={values}>()"


def values(made: onnx.ModelProto) -> dict[str, Any]:
    return run_bytes(made.SerializeToString(), {"x": PIXELS})


def opset(made: onnx.ModelProto) -> int:
    (version,) = (each.version for each in made.opset_import if each.domain == "")
    return int(version)


AXES = constant("axes", [2, 3])
POOLED = "float[N,3,1,1] y"
PADS = constant("pads", [0, 0, 1, 1, 0, 0, 1, 2])
PADDED = "float[N,3,7,9] y"
TWICE = constant("scales", [1.0, 1.0, 2.0, 2.0])
LARGE = "float[N,3,10,12] y"
GRID = (
    f"{constant('g', [0.0, 0.0, 0.5, 0.5, -0.5, -0.5, 1.0, 1.0])} {constant('s', [1, 2, 2, 2])} "
    f"g4 = Reshape(g, s) z = Constant<value_ints=[0]>() o = Constant<value_ints=[1]>() size = Shape(x) "
    "n = Slice(size, z, o) t = Constant<value_ints=[2, 2, 2]>() full = Concat<axis=0>(n, t) "
    "grid = Expand(g4, full)"
)

SAID = [
    *((f"{AXES} y = {op}(x, axes)", POOLED) for op in (
        "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
        "ReduceLogSumExp", "ReduceSum",
    )),
    (f"{AXES} y = ReduceMean<keepdims=0>(x, axes)", "float[N,3] y"),
    ("y = ReduceMean<noop_with_empty_axes=0>(x)", "float[1,1,1,1] y"),
    ("y, z = Split<axis=3, num_outputs=2>(x)", "float[N,3,5,3] y, float[N,3,5,3] z"),
    ("y, z = Split<axis=2, num_outputs=2>(x)", "float[N,3,3,6] y, float[N,3,2,6] z"),
    ("y, z = Split<axis=-2, num_outputs=2>(x)", "float[N,3,3,6] y, float[N,3,2,6] z"),
    (f"{constant('s', [1, 4])} y, z = Split<axis=2>(x, s)", "float[N,3,1,6] y, float[N,3,4,6] z"),
    (f"{PADS} y = Pad(x, pads)", PADDED),
    (f'{PADS} y = Pad<mode="reflect">(x, pads)', PADDED),
    (f'{TWICE} y = Resize<mode="linear", antialias=0>(x, , scales)', LARGE),
    (f'{TWICE} y = Resize<keep_aspect_ratio_policy="stretch">(x, , scales)', LARGE),
    ("y = Cast<to=1, saturate=1>(x)", SAME),
    ("y = AveragePool<kernel_shape=[2, 2]>(x)", "float[N,3,4,5] y"),
    (f"{constant('s', [-1, 90])} y = Reshape<allowzero=0>(x, s)", "float[N,90] y"),
    ("y = Gelu(x)", SAME),
    ('y = Gelu<approximate="tanh">(x)', SAME),
    ("y = Mish(x)", SAME),
    ("h = Gelu(x) y = Mish(h)", SAME),
    ("yes = Constant<value=bool {1}>() y = If(yes)<"
     "then_branch = t () => (float[N,3,1,1] a) { i = Constant<value_ints=[2,3]>() a = ReduceMean(x, i) },"
     "else_branch = e () => (float[N,3,1,1] b) { j = Constant<value_ints=[2,3]>() b = ReduceMax(x, j) }>",
     POOLED),
]  # fmt: skip


@pytest.mark.parametrize(("body", "outputs"), SAID)
@pytest.mark.parametrize("older", [13, 17])
def test_the_same_is_computed(body: str, outputs: str, older: int) -> None:
    source = model(body, outputs)
    made = OnnxToOlderOpset(older)(source)
    assert opset(made) == older
    found, wanted = values(made), values(source)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"), [("bilinear", "linear"), ("nearest", "nearest"), ("bicubic", "cubic")]
)
def test_modes_that_were_renamed(old: str, new: str) -> None:
    source = model(f'{GRID} y = GridSample<mode="{new}">(x, grid)', "float[N,3,2,2] y")
    made = OnnxToOlderOpset(17)(source)
    (node,) = (node for node in made.graph.node if node.op_type == "GridSample")
    assert [attribute.s.decode() for attribute in node.attribute] == [old]
    np.testing.assert_allclose(values(made)["y"], values(source)["y"], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "outputs", "older", "reason"),
    [
        ("y = HardSwish(x)", SAME, 13, r"^last \(HardSwish\): is new in opset 14"),
        ("y = Reshape<allowzero=1>(x, s)", "float[N,90] y", 13, r"last \(Reshape\): has allowzero"),
        ("y = Cast<to=1, saturate=0>(x)", SAME, 17, r"last \(Cast\): has saturate"),
        (
            'y = Resize<mode="linear", antialias=1>(x, , scales)', LARGE, 17, r"last \(Resize\): has antialias"
        ),
        (
            'y = Resize<coordinate_transformation_mode="half_pixel_symmetric">(x, , scales)', LARGE, 17,
            r"last \(Resize\): has coordinate_transformation_mode 'half_pixel_symmetric'",
        ),
        ('y = Pad<mode="wrap">(x, pads)', PADDED, 17, r"last \(Pad\): has mode 'wrap', which opset 17 does"),
        ("y = Pad(x, two, , one)", "float[N,3,7,6] y", 17, r"last \(Pad\): has 4 inputs, there it takes 3"),
        (
            "y = AveragePool<kernel_shape=[2, 2], dilations=[2, 2]>(x)", "float[N,3,3,4] y", 17,
            r"last \(AveragePool\): has dilations, which opset 17 does not know",
        ),
        (
            "y = ReduceMean<noop_with_empty_axes=1>(x)", SAME, 17, r"last \(ReduceMean\): has noop_with_empty"
        ),
        (
            "c = Abs(one) h = ReduceMean(x, c) y = Reshape(h, s)", "float[M,90] y", 17,
            r"^h \(ReduceMean\): has axes that are computed",
        ),
        (
            "y, z = Split<axis=0, num_outputs=2>(x)", "float[A,3,5,6] y, float[B,3,5,6] z", 17,
            r"last \(Split\): splits a size that is not known",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_node(body: str, outputs: str, older: int, reason: str) -> None:
    numbers = [
        constant("s", [-1, 90]), PADS, TWICE, constant("two", [1, 1]), constant("one", [2]),
    ]  # fmt: skip
    with pytest.raises(ModelError, match=reason) as refused:
        OnnxToOlderOpset(older)(model(f"{' '.join(numbers)} {body}", outputs))
    text = str(refused.value)
    assert "\n" not in text
    assert text.endswith("use another layer, or newer software on the device")
    assert f"no newer opset than {older}" in text


def test_nodes_keep_their_names() -> None:
    made = OnnxToOlderOpset(17)(model("h = Gelu(x) y = Mish(h)"))
    assert [(node.name, node.op_type) for node in made.graph.node][-3:] == [
        ("last/0", "Softplus"), ("last/1", "Tanh"), ("last/2", "Mul")
    ]  # fmt: skip
    assert len({node.output[0] for node in made.graph.node}) == len(made.graph.node)


@pytest.mark.parametrize("older", [20, 21])
def test_model_that_is_old_enough_stays_as_it_is(older: int) -> None:
    source = model("y = Gelu(x)")
    assert OnnxToOlderOpset(older)(source) is source


def test_source_is_left_alone() -> None:
    source = model(f"{AXES} y = ReduceMean(x, axes)", POOLED)
    before = source.SerializeToString()
    OnnxToOlderOpset(17)(source)
    assert source.SerializeToString() == before


def test_there_is_an_oldest() -> None:
    with pytest.raises(ModelError, match="opset 12 is older than 13, the oldest that edgecnn writes"):
        OnnxToOlderOpset(12)(model("y = Relu(x)"))


LAYERS: dict[str, nn.Module] = {
    "Mish": nn.Mish(),
    "GELU": nn.GELU(),
    "Hardswish": nn.Hardswish(),
    "LayerNorm": nn.LayerNorm([10, 10]),
    "GroupNorm": nn.GroupNorm(5, 5),
    "Upsample": nn.Upsample(scale_factor=2, mode="bilinear"),
    "ReflectionPad": nn.ReflectionPad2d(2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_modules_in_the_opset_of_an_old_jetson(name: str) -> None:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(nn.Conv2d(3, 5, 3), LAYERS[name], head).eval()
    made = convert(net, SPEC, opset=17)
    assert made.opset == opset(onnx.load_from_string(made.model)) == 17
    check_parity(made, images(SPEC))


def test_refusal_of_a_whole_conversion_names_the_layer() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 2, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )

        def forward(self, x: Any) -> Any:
            return self.net(x)

    with pytest.raises(ModelError, match=r"^net\.1 \(HardSwish\): is new in opset 14, .* \[onnx_opset after"):
        convert(Wrapped().eval(), SPEC, opset=13)
