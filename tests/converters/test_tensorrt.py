"""Engines built for real, and a refusal in one line for everything that TensorRT accepts, or rejects, darkly.

TensorRT for RTX builds without a GPU; running an engine needs one, and is no part of this.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, external_data_helper, helper, numpy_helper
from torch import nn

from edgecnn import ModelSpec
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.converters.onnx_tensorrt import (
    OnnxToTensorRT,
    TensorRtEngine,
    _not_for_dla,
    _use_timing_cache,
    build,
)
from edgecnn.converters.tensorrt_checks import End, check_model
from edgecnn.errors import CompilerFailed, DeviceUnavailable, EdgeCnnError, InputError, ModelError
from edgecnn.isolation import Limits
from edgecnn.tensorrt_api import collector, find_tensorrt
from tests import models
from tests.calibration.graphs import node, noise, pixels
from tests.converters.helpers import convert
from tests.paths import engine

trt = engine("tensorrt_rtx_bindings")

WEIGHTS = noise(4, 3, 3, 3)
CAST = node("Cast", "image", "float", to=TensorProto.FLOAT)
FIRST = (CAST, node("Transpose", "float", "x", perm=(0, 3, 1, 2)))
CONV = node("Conv", "x weights", "out")
ADA = OnnxToTensorRT(compute_capability="8.9")


def model(
    nodes: Sequence[NodeProto],
    shape: Sequence[int | str] = ("batch", 8, 8, 3),
    kind: int = TensorProto.FLOAT,
    opset: int = 20,
    **constants: Any,
) -> onnx.ModelProto:
    """uint8 ``image`` → nodes → ``out``; constants keep their dtypes."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("out", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def plain_conv(shape: Sequence[int | str] = ("batch", 8, 8, 3)) -> bytes:
    return model([*FIRST, CONV], shape, weights=WEIGHTS).SerializeToString()


def quantized(zero: Any, **constants: Any) -> bytes:
    """A convolution of what was rounded; without a zero point where that is None."""
    pair = "s z" if zero is not None else "s"
    nodes = [node("QuantizeLinear", f"x {pair}", "q"), node("DequantizeLinear", f"q {pair}", "d")]
    constants |= {"z": zero} if zero is not None else {}
    made = [*FIRST, *nodes, node("Conv", "d weights", "out")]
    return model(made, weights=WEIGHTS, s=np.float32(0.5), **constants).SerializeToString()


def in_this_process(source: bytes, **options: Any) -> dict[str, Any]:
    """TensorRT alone, without the checks before it."""
    given = {"precision": "fp32", "batch": (1, 1, 8), "workspace_mb": None, "compute_capability": "8.9"}
    return build(**{**given, "model": source, "dla_core": None, "timing_cache": b"", **options})


def residual_net() -> bytes:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), models.Residual(16), models.Residual(16)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    spec = ModelSpec(task="classification", size_hw=(32, 32), mean=(0.5,), std=(0.25,))
    return convert(net, spec).model


@pytest.fixture(scope="module")
def precisions() -> dict[str, bytes]:
    """A small network with skips, in every precision."""
    fp32 = residual_net()
    images = pixels(8, 32, 32, 3)
    return {
        "fp32": fp32,
        "fp16": OnnxToFp16()(onnx.load_from_string(fp32)).SerializeToString(),
        "int8": Int8Builder(fp32, images, method="minmax", threads=1).build("tensorrt"),
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_engines_of_every_precision(precisions: dict[str, bytes], precision: Any, capability: str) -> None:
    arrow = OnnxToTensorRT(precision=precision, compute_capability=capability, batch=(1, 4, 8))
    engine = arrow(precisions[precision])
    assert len(engine.plan) > 100_000
    assert engine.inputs == (End("image", "uint8"),)
    assert engine.outputs == (End("scores", "float32"),)
    assert engine.facts == {
        "tensorrt": trt.__version__,
        "flavor": "tensorrt_rtx",
        "precision": precision,
        "compute_capability": capability,
        "profile": "1,4,8",
    }
    assert engine.warnings == ()
    assert engine.fallback == {}
    assert engine.build_s > 0


def test_precisions_are_those_of_the_model(precisions: dict[str, bytes]) -> None:
    plans = {ADA(source).plan for source in precisions.values()}
    assert len(plans) == 3


@pytest.mark.parametrize("one", ["8.9", "89", "sm89", "SM89"])
def test_a_gpu_has_several_names(one: str) -> None:
    source = plain_conv()
    assert OnnxToTensorRT(compute_capability=one)(source).facts["compute_capability"] == "8.9"


@given(st.data())
def test_damaged_models_are_refused_in_one_line_or_read(data: st.DataObject) -> None:
    source = bytearray(quantized(np.int8(0)))
    for place in data.draw(st.lists(st.integers(0, len(source) - 1), min_size=1, max_size=8)):
        source[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelError):
        inputs, outputs = check_model(bytes(source[: data.draw(st.integers(0, len(source)))]))
        assert all(isinstance(end, End) for end in (*inputs, *outputs))


def test_an_engine_is_of_its_gpu_and_batches_and_comes_out_the_same_again() -> None:
    source = plain_conv()
    first = ADA(source)
    assert ADA(source).plan == first.plan
    others = [
        OnnxToTensorRT(compute_capability="12.0"),
        OnnxToTensorRT(compute_capability="8.9", batch=(1, 2, 2)),
    ]
    assert all(arrow(source).plan != first.plan for arrow in others)


def test_without_a_gpu_named_it_is_for_all_that_are_supported() -> None:
    assert "compute_capability" not in OnnxToTensorRT()(plain_conv()).facts


def test_a_fixed_batch_needs_no_profile() -> None:
    assert "profile" not in ADA(plain_conv((2, 8, 8, 3))).facts


def test_steps_are_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    OnnxToTensorRT(compute_capability="8.9", on_work=lambda *step: seen.append(step))(plain_conv())
    assert seen[-1][0] == "Building engine"
    assert {1 <= done <= total for _, done, total in seen} == {True}


def test_integer_outputs_keep_their_type() -> None:
    made = model([CAST, node("ArgMax", "float", "out", axis=3)], kind=TensorProto.INT64).SerializeToString()
    engine = ADA(made)
    assert engine.outputs == (End("out", "int64"),)
    assert engine.warnings == ("Make sure output out has Int64 binding.",)


NOTHING = [b"", b"hello world", bytes(64), b"\xff" * 64, plain_conv()[:40], plain_conv()[:-5]]


@pytest.mark.parametrize("source", NOTHING)
def test_bytes_that_are_no_model(source: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        ADA(source)


@pytest.mark.parametrize("source", [b"", b"hello world"])
def test_tensorrt_takes_junk_for_a_network_and_that_is_noticed(source: bytes) -> None:
    builder = trt.Builder(collector(find_tensorrt()))
    network = builder.create_network(0)
    assert trt.OnnxParser(network, collector(find_tensorrt())).parse(source)
    with pytest.raises(ModelError, match=r"^TensorRT finds no network in it: it does not say why; "):
        in_this_process(source)


INT8 = "placement tensorrt"
UNSIGNED = [
    (quantized(np.uint8(0)), f"^q \\(QuantizeLinear\\): TensorRT .* this is uint8; .*{INT8}"),
    (quantized(np.uint8(128)), "^q .* this is uint8; "),
    (quantized(None), "^q .* this is uint8; "),
    (quantized(np.int16(0)), "^q .* this is int16; "),
    (quantized(np.int8(3)), f"^q .* zero point 0 only, this has another one; .*{INT8}"),
    (quantized(np.array(-128, np.int8)), "^q .* zero point 0 only"),
]


@pytest.mark.parametrize(("source", "message"), UNSIGNED)
def test_codes_other_than_int8_around_zero(source: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ADA(source)


@pytest.mark.parametrize("zero", [np.uint8(0), None])
def test_tensorrt_would_read_uint8_as_int8(zero: Any) -> None:
    """Which is why it is refused before; int8 codes are taken."""
    assert in_this_process(quantized(zero))["plan"]
    assert ADA(quantized(np.int8(0))).plan


def test_zero_points_that_are_constant_nodes_or_computed() -> None:
    def made(how: NodeProto, **constants: Any) -> bytes:
        nodes = [*FIRST, how, node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "out")]
        return model(nodes, s=np.float32(0.5), **constants).SerializeToString()

    value = numpy_helper.from_array(np.array(7, np.int8))
    with pytest.raises(ModelError, match=r"^q \(QuantizeLinear\): .* zero point 0 only"):
        ADA(made(node("Constant", "", "z", value=value)))
    with pytest.raises(ModelError, match=r"^z \(Cast\): TensorRT does not take it: .*UINT8"):
        ADA(made(node("Cast", "whole", "z", to=TensorProto.UINT8), whole=np.int32(0)))


def test_a_bias_in_int32() -> None:
    nodes = [*FIRST, node("DequantizeLinear", "codes s", "bias"), node("Conv", "x weights bias", "out")]
    codes = np.arange(4, dtype=np.int32)
    source = model(nodes, weights=WEIGHTS, codes=codes, s=np.float32(0.5)).SerializeToString()
    with pytest.raises(ModelError, match=r"^bias \(DequantizeLinear\): .* this is int32; .* biases in float"):
        ADA(source)


BOXES = {
    "boxes": np.ones((1, 9, 4), np.float32),
    "scores": np.ones((1, 2, 9), np.float32),
    "k": np.array([5]),
}
COUNTING = [
    ([CAST, node("NonMaxSuppression", "boxes scores k", "out")], BOXES, "NonMaxSuppression"),
    ([CAST, node("NonZero", "float", "out")], {}, "NonZero"),
]


@pytest.mark.parametrize(("nodes", "constants", "op"), COUNTING)
def test_outputs_of_a_size_that_nobody_knows(nodes: list[NodeProto], constants: Any, op: str) -> None:
    source = model(nodes, kind=TensorProto.INT64, **constants).SerializeToString()
    with pytest.raises(
        ModelError, match=rf"^out \({op}\): TensorRT builds no engine with it; keep it outside"
    ):
        ADA(source)
    # and it would come to nothing
    with pytest.raises(ModelError, match="TensorRT"):
        in_this_process(source)


def test_such_operations_in_branches_are_found() -> None:
    def branch(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{op}_out", TensorProto.INT64, None)
        return helper.make_graph([node(op, "float", f"{op}_out")], op, [], [out])

    choice = node("If", "yes", "out", then_branch=branch("NonZero"), else_branch=branch("Shape"))
    source = model([CAST, choice], kind=TensorProto.INT64, yes=np.array(True)).SerializeToString()
    with pytest.raises(ModelError, match=r"^NonZero_out \(NonZero\)"):
        check_model(source)


def test_pixels_in_branches_must_be_cast_first_too() -> None:
    out = helper.make_tensor_value_info("flat", TensorProto.UINT8, None)
    branch = helper.make_graph([node("Flatten", "image", "flat")], "branch", [], [out])
    choice = node("If", "yes", "out", then_branch=branch, else_branch=branch)
    source = model([choice], kind=TensorProto.UINT8, yes=np.array(True)).SerializeToString()
    with pytest.raises(ModelError, match=r"^flat \(Flatten\): TensorRT can only cast a uint8 input"):
        check_model(source)


REFUSED = [
    (
        node("Unique", "x", "out"),
        {},
        r"^out \(Unique\): TensorRT does not take it: an operation it does not know; ",
    ),
    (
        node("Ours", "x", "out", domain="ours"),
        {},
        r"^out \(Ours\): TensorRT does not take it: Plugin not found",
    ),
    (
        node("Resize", "x _ scales", "out", mode="linear", antialias=1),
        {},
        r"^out \(Resize\): .* Antialiasing is not",
    ),
    (
        node(
            "Resize", "x  scales", "out", mode="linear", coordinate_transformation_mode="half_pixel_symmetric"
        ),
        {},
        r"^out \(Resize\): .* only supports half_pixel, ",
    ),
    (
        node("Resize", "x roi scales", "out", coordinate_transformation_mode="tf_crop_and_resize"),
        {"roi": np.float32([0, 0, 0, 0, 1, 1, 1, 1])},
        r"^out \(Resize\): .* only supports half_pixel, ",
    ),
    (
        node("QLinearConv", "qx s z qw s z s z", "out"),
        {"qx": np.zeros((1, 3, 8, 8), np.int8), "qw": np.zeros((4, 3, 3, 3), np.int8), "s": np.float32(1)},
        r"^out \(QLinearConv\): TensorRT does not take it: ",
    ),
    (node("TopK", "flat k", "out places"), {"k": np.array([3841])}, "^TensorRT builds no engine.*TopK.*3840"),
]


@pytest.mark.parametrize(("last", "constants", "message"), REFUSED)
def test_what_tensorrt_refuses_is_told_by_node(last: NodeProto, constants: Any, message: str) -> None:
    given = {"scales": np.float32([1, 1, 2, 2]), "rows": np.array([0, -1]), "z": np.int8(0), **constants}
    nodes = [*FIRST, node("Reshape", "x rows", "flat"), last]
    read = {name for each in nodes for name in each.input}
    # an empty name is an input that is left out
    last.input[:] = ["" if name == "_" else name for name in last.input]
    kept = {name: value for name, value in given.items() if name in read}
    with pytest.raises(ModelError, match=message) as caught:
        ADA(model(nodes, ("batch", 64, 64, 3), **kept).SerializeToString())
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; change the model there, or use another target for it")


def test_the_largest_topk_is_built() -> None:
    nodes = [*FIRST, node("Reshape", "x rows", "flat"), node("TopK", "flat k", "out places")]
    made = model(nodes, ("batch", 64, 64, 3), rows=np.array([0, -1]), k=np.array([3840]))
    assert ADA(made.SerializeToString()).plan


@pytest.mark.parametrize(
    ("nodes", "blamed"),
    [
        (
            [node("Transpose", "image", "t", perm=(0, 3, 1, 2)), node("Cast", "t", "out", to=1)],
            "t \\(Transpose\\)",
        ),
        ([node("Concat", "image image", "t", axis=3), node("Cast", "t", "out", to=1)], "t \\(Concat\\)"),
    ],
)
def test_pixels_must_be_cast_first(nodes: list[NodeProto], blamed: str) -> None:
    source = model(nodes).SerializeToString()
    with pytest.raises(
        ModelError, match=rf"^{blamed}: TensorRT can only cast a uint8 input, and this reads image"
    ):
        ADA(source)
    with pytest.raises(ModelError, match=rf"^{blamed}: TensorRT does not take it: "):
        in_this_process(source)


def outside(place: str) -> bytes:
    """The convolution, with its weights in another file."""
    made = model([*FIRST, CONV], weights=WEIGHTS)
    external_data_helper.set_external_data(made.graph.initializer[0], place)
    made.graph.initializer[0].ClearField("raw_data")
    return made.SerializeToString()


def test_weights_in_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "link").symlink_to("secret")
    monkeypatch.chdir(tmp_path)
    # TensorRT itself goes through the link
    assert in_this_process(outside("link"))["plan"] == in_this_process(plain_conv())["plan"]
    for place in ("link", "secret", "/etc/passwd", "../up"):
        with pytest.raises(ModelError, match=rf"^weights: its values are in another file \({place}\)"):
            ADA(outside(place))


def test_weights_in_other_files_are_found_wherever_they_are() -> None:
    tensor = onnx.load_from_string(outside("hidden")).graph.initializer[0]
    constant = node("Constant", "", "c", value=tensor)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, None)])
    choice = node("If", "yes", "out", then_branch=branch, else_branch=branch)
    function = helper.make_function("ours", "F", [], ["c"], [constant], [helper.make_opsetid("", 20)])
    sparse = onnx.SparseTensorProto(values=tensor, dims=[108])
    inside = [
        model([CAST, constant]),
        model([CAST, choice], yes=np.array(True)),
        model([CAST]),
        model([CAST]),
    ]
    inside[2].functions.append(function)
    inside[3].graph.sparse_initializer.append(sparse)
    for each in inside:
        with pytest.raises(ModelError, match=r"^weights: its values are in another file \(hidden\)"):
            check_model(each.SerializeToString())
    # protobuf takes two graphs for one
    with pytest.raises(ModelError, match=r"^weights: its values"):
        check_model(outside("hidden") + plain_conv())


def test_only_the_batch_may_be_open() -> None:
    with pytest.raises(ModelError, match=r"^input image: only its batch may be open"):
        ADA(plain_conv(("batch", "h", "w", 3)))


def test_a_range_that_tensorrt_turns_down_without_a_word() -> None:
    with pytest.raises(InputError, match=r"does not take batches of 4, 2, 1 \(min, opt, max\)"):
        in_this_process(plain_conv(), batch=(4, 2, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": (2, 1, 4)}, "min <= opt <= max"),
        ({"batch": (0, 1, 4)}, "1 <= min"),
        ({"workspace_mb": 0}, "workspace_mb must be 1 or more"),
        ({"dla_core": -1, "precision": "fp16"}, "dla_core must be 0 or more"),
        ({"dla_core": 0}, "fp16 and int8"),
        ({"dla_core": 0, "precision": "int8"}, "batches of one size"),
    ],
)
def test_options_that_contradict_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxToTensorRT(**options)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"compute_capability": "8.7"},
            InputError,
            "8.7: TensorRT .* builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1$",
        ),
        ({"compute_capability": "none"}, InputError, "builds for 7.5, "),
        (
            {"dla_core": 0, "precision": "fp16", "batch": (1, 1, 1)},
            DeviceUnavailable,
            "DLA core 0: TensorRT .* finds 0 of them here; leave out dla_core$",
        ),
        ({"workspace_mb": 1}, ModelError, "within workspace limit"),
        ({"limits": Limits(seconds=0.01)}, CompilerFailed, "TensorRT's builder took more than 0.01 s"),
    ],
)
def test_what_cannot_be_had_here(options: dict[str, Any], kind: type[EdgeCnnError], message: str) -> None:
    with pytest.raises(kind, match=message):
        OnnxToTensorRT(**options)(plain_conv())


def test_layers_that_no_dla_runs_are_listed_by_kind() -> None:
    """By TensorRT for RTX, which knows of no DLA: all of them, but for constants."""
    builder = trt.Builder(collector(find_tensorrt()))
    network, config = builder.create_network(0), builder.create_builder_config()
    parser = trt.OnnxParser(network, collector(find_tensorrt()))
    nodes = [*FIRST, node("Conv", "x weights", "c"), node("Mul", "c two", "out")]
    two = np.full((1, 1, 1, 1), 2, np.float32)
    assert parser.parse(model(nodes, weights=WEIGHTS, two=two).SerializeToString())
    assert _not_for_dla(network, config) == {
        "cast": ["float"], "shuffle": ["x"], "convolution": ["c"], "elementwise": ["out"],
    }  # fmt: skip


def test_an_engine_must_take_and_give_what_the_model_does() -> None:
    source = plain_conv()
    ends = (End("image", "uint8"),), (End("out", "float32"),)
    ADA.ensures(source, TensorRtEngine(b"engine", *ends, {}))
    with pytest.raises(ModelError, match="an empty engine"):
        ADA.ensures(source, TensorRtEngine(b"", *ends, {}))
    with pytest.raises(ModelError, match=r"has out \(float16\) where the model has out \(float32\)"):
        ADA.ensures(source, TensorRtEngine(b"engine", ends[0], (End("out", "float16"),), {}))


def test_versions_without_int64_give_int32() -> None:
    made = model([CAST, node("ArgMax", "float", "out", axis=3)], kind=TensorProto.INT64).SerializeToString()
    ADA.ensures(made, TensorRtEngine(b"engine", (End("image", "uint8"),), (End("out", "int32"),), {}))


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
@pytest.mark.parametrize("known", [b"", b"of another GPU"])
def test_a_timing_cache_is_used_or_begun(known: bytes) -> None:
    """With the calls of TensorRT for RTX, which has them still."""
    config = trt.Builder(collector(find_tensorrt())).create_builder_config()
    _use_timing_cache(config, known)
    assert bytes(config.get_timing_cache().serialize())


def test_a_device_builds_without_the_packages_of_a_workstation() -> None:
    code = (
        "import sys; from edgecnn.converters.onnx_tensorrt import build, OnnxToTensorRT;"
        "print({'onnx', 'torch', 'tensorrt', 'tensorrt_rtx_bindings', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
