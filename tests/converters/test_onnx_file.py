"""Models that come as ONNX: what is taken, and what is refused in one line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from onnx import TensorProto, helper, numpy_helper

from edgecnn.converters import Canonical, canonical, load_model
from edgecnn.converters.onnx_canonical import OnnxToCanonical
from edgecnn.errors import EdgeCnnError, ModelError, SpecError
from edgecnn.spec import ModelSpec
from tests import models
from tests.converters.helpers import convert, images, run, run_bytes

SPEC = ModelSpec(task="classification", size_hw=(4, 4), mean=(0.5,), std=(0.25,))
WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2) - 2


def user_model(
    shape: Sequence[int | str] = ("N", 3, 4, 4),
    *,
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    extra: Sequence[onnx.NodeProto] = (),
    weight: Any = WEIGHT,
    out: Sequence[int | str] = ("N", 2),
    result: str = "logits",
    name: str = "x",
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Mean of each channel, times a 3×2 matrix."""
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="fc"),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info(name, dtype, shape)],
        [helper.make_tensor_value_info(result, kind, out)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def to_canonical(model: onnx.ModelProto, path: Path, spec: ModelSpec = SPEC, **options: Any) -> Canonical:
    onnx.save(model, path / "user.onnx")
    return canonical(load_model(path / "user.onnx"), spec, **options)


def expected_logits(batch: Any) -> Any:
    x = (batch.astype(np.float64) / 255 - 0.5) / 0.25
    return x.mean(axis=(1, 2)) @ WEIGHT


def test_float_model_gets_preprocessing_and_activation(tmp_path: Path) -> None:
    converted = to_canonical(user_model(), tmp_path)
    batch = images(SPEC, 3)
    logits = expected_logits(batch)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(converted, batch)["scores"], scores, rtol=1e-5)
    assert [(v.name, v.dtype, v.shape) for v in converted.inputs] == [("image", "uint8", ("batch", 4, 4, 3))]
    assert [(v.name, v.dtype, v.shape) for v in converted.outputs] == [("scores", "float32", ("batch", 2))]
    assert [step.name for step in converted.steps] == ["onnx_file", "onnx_canonical"]
    assert converted.reference == (tmp_path / "user.onnx").read_bytes()
    assert (converted.network.params, converted.network.macs) == (6, 6)


def test_nodes_without_names_get_them(tmp_path: Path) -> None:
    """Names that are there stay; a name that is taken is not given again."""
    model = user_model()
    model.graph.node[0].name = "MatMul_2"
    for node in model.graph.node[1:]:
        node.name = ""
    converted = to_canonical(model, tmp_path)
    assert [layer.name for layer in converted.network.layers] == ["MatMul_2", "Flatten_1", "MatMul_2_"]
    names = [node.name for node in onnx.load_model_from_string(converted.model).graph.node]
    assert {"MatMul_2", "Flatten_1", "MatMul_2_"} <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "shape", [("N", 3, 4, 4), ("N", 3, "H", "W"), ("N", "C", "H", "W"), ("", 3, 4, 4), ("batch", 3, 4, 4)]
)
def test_open_sizes_become_those_of_the_spec(tmp_path: Path, shape: Any) -> None:
    spec = SPEC.replace(activation="none")
    converted = to_canonical(user_model(shape, out=(shape[0], 2)), tmp_path, spec)
    assert converted.inputs[0].shape == ("batch", 4, 4, 3)
    assert converted.outputs[0].shape == ("batch", 2)
    batch = images(spec, 5)
    np.testing.assert_allclose(run(converted, batch)["logits"], expected_logits(batch), rtol=1e-4, atol=1e-6)


def test_fixed_batch_of_a_file_is_kept(tmp_path: Path) -> None:
    converted = to_canonical(user_model((1, 3, 4, 4), out=(1, 2)), tmp_path)
    assert converted.inputs[0].shape == (1, 4, 4, 3)
    assert converted.outputs[0].shape == (1, 2)
    assert run(converted, images(SPEC, 1))["scores"].shape == (1, 2)


def test_open_batch_can_be_fixed(tmp_path: Path) -> None:
    converted = to_canonical(user_model(), tmp_path, batch=4)
    assert (converted.inputs[0].shape, converted.outputs[0].shape) == ((4, 4, 4, 3), (4, 2))


def test_names_of_ours_inside_a_model(tmp_path: Path) -> None:
    """Its input is called image, and the value it gives scores."""
    model = user_model(
        name="image", result="scores", extra=[helper.make_node("Identity", ["logits"], ["scores"])]
    )
    converted = to_canonical(model, tmp_path)
    batch = images(SPEC)
    plain = to_canonical(user_model(), tmp_path)
    np.testing.assert_array_equal(run(converted, batch)["scores"], run(plain, batch)["scores"])


def test_model_that_is_canonical_already(tmp_path: Path) -> None:
    """uint8 [N, H, W, C]: the preprocessing in it stays, the spec's is not added."""
    first = convert(models.flat_net(), SPEC)
    (tmp_path / "c.onnx").write_bytes(first.model)
    plain = ModelSpec(task="classification", size_hw=SPEC.size_hw, activation="none")
    again = canonical(load_model(tmp_path / "c.onnx"), plain)
    batch = images(SPEC)
    np.testing.assert_array_equal(run(first, batch)["scores"], run(again, batch)["scores"])
    assert again.inputs == first.inputs
    assert again.outputs == first.outputs


@pytest.mark.parametrize("changes", [{"scale": 1.0}, {"mean": (0.5,)}, {"std": (1.0, 1.0, 0.5)}])
def test_normalisation_that_a_uint8_model_would_ignore(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
    (tmp_path / "c.onnx").write_bytes(convert(models.flat_net(), plain).model)
    message = rf"^{next(iter(changes))}: input image is uint8 batch×4×4×3, .* leave them at their default"
    with pytest.raises(SpecError, match=message):
        canonical(load_model(tmp_path / "c.onnx"), plain.replace(**changes))


def test_reference_is_the_file_as_it_came(tmp_path: Path) -> None:
    converted = to_canonical(user_model(), tmp_path)
    batch = images(SPEC)
    x = ((batch / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    logits = run_bytes(converted.reference, {"x": x})["logits"]
    np.testing.assert_allclose(logits, expected_logits(batch), rtol=1e-4, atol=1e-6)


def _two_inputs() -> onnx.ModelProto:
    model = user_model()
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, [1]))
    return model


def _external() -> onnx.ModelProto:
    model = user_model()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="w.bin")
    return model


def _node(op: str, result: str = "out", **attributes: Any) -> dict[str, Any]:
    return {
        "extra": [helper.make_node(op, ["logits"], [result], name="last", **attributes)],
        "result": result,
    }


def _custom() -> onnx.ModelProto:
    model = user_model(**_node("Gelu", domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _constant(**value: Any) -> onnx.ModelProto:
    """Multiplies by a constant that is a node."""
    return user_model(
        extra=[
            helper.make_node("Constant", [], ["k"], **value),
            helper.make_node("MatMul", ["logits", "k"], ["out"]),
        ],
        result="out",
    )


def _branch(value: float) -> onnx.ModelProto:
    """Adds a constant that lies in a branch of an If."""
    graphs = {
        name: helper.make_graph(
            [helper.make_node("Add", ["logits", "inner"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.full(2, value, np.float32), "inner")],
        )
        for name in ("then_branch", "else_branch")
    }
    model = user_model(extra=[helper.make_node("If", ["yes"], ["out"], **graphs)], result="out")
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    return model


def _sequence() -> onnx.ModelProto:
    model = user_model(extra=[helper.make_node("SplitToSequence", ["logits"], ["s"], axis=1)])
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    return model


def _no_output() -> onnx.ModelProto:
    model = user_model()
    del model.graph.output[:]
    return model


NAN = WEIGHT.copy()
NAN[1, 1] = np.nan
INF = WEIGHT.copy()
INF[1, 1] = np.inf


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            user_model((1, 3, 8, 8), out=(1, 2)),
            r"input x is float32 1×3×8×8, the spec \(size_hw 4×4, color rgb\) gives 1×3",
        ),
        (
            user_model(("N", 1, 4, 4)),
            r"input x is float32 N×1×4×4, the spec .* gives batch×3×4×4; change the spec",
        ),
        (
            user_model(("N", 4, 4, 3)),
            r"input x is float32 N×4×4×3, channels last; export the model with the layout",
        ),
        (
            user_model(("N", 48)),
            r"input x is float32 N×48; edgecnn converts float32 N×C×H×W, or uint8 N×H×W×C",
        ),
        (
            user_model(dtype=TensorProto.UINT8),
            r"^input x is uint8 N×3×4×4, channels first; export the model with uint8 N×H×W×C or float32",
        ),
        (user_model(("N", 48), name="input"), r"^input is float32 N×48; edgecnn converts"),
        (user_model(dtype=TensorProto.FLOAT16), r"input x is float16 N×3×4×4; edgecnn converts float32"),
        (_two_inputs(), r"user\.onnx: has 2 inputs \(x, size\); one image input is converted"),
        (
            _external(),
            r"user\.onnx: the weights \(weight\) are in another file; put them into the model with onnx\.save",
        ),
        (user_model(opset=11), r"user\.onnx: opset 11; export the model again with opset 13 or newer"),
        (_custom(), r"user\.onnx: last \(Gelu\) is an operation of com\.microsoft, which other engines lack"),
        (user_model(**_node("RandomNormalLike")), r"last \(RandomNormalLike\) draws random numbers"),
        (
            user_model(**_node("Softmax", axis=1)),
            r"output out of the model already ends in Softmax \(last\); set",
        ),
        (user_model(weight=NAN), r"user\.onnx: 1 weights hold NaN or infinity \(weight\)"),
        (user_model(weight=INF), r"user\.onnx: 1 weights hold NaN or infinity \(weight\); train again"),
        (user_model(weight=NAN.astype(np.float16)), r"1 weights hold NaN or infinity \(weight\)"),
        (user_model(weight=INF.astype(bfloat16)), r"1 weights hold NaN or infinity \(weight\)"),
        (_constant(value=numpy_helper.from_array(INF)), r"1 weights hold NaN or infinity \(k\)"),
        (_constant(value_floats=[1.0, float("nan")]), r"1 weights hold NaN or infinity \(k\)"),
        (_constant(value_float=float("nan")), r"1 weights hold NaN or infinity \(k\)"),
        (_branch(np.nan), r"2 weights hold NaN or infinity \(inner, inner\)"),
        (_sequence(), r"^output s is a sequence; let the model give tensors"),
        (
            user_model(**_node("Cast", to=TensorProto.BFLOAT16), kind=TensorProto.BFLOAT16),
            r"^output out is of the dtype bfloat16; let the model cast it to float32",
        ),
        (user_model(kind=75), r"^output logits is of the dtype unknown; let the model cast it to float32"),
        (_no_output(), r"^the model gives no output"),
        (
            user_model(
                extra=[
                    helper.make_node("Constant", [], ["k"], value_floats=[1.0] * 5),
                    helper.make_node("Add", ["logits", "k"], ["out"], name="last"),
                ],
                result="out",
            ),
            r"^its shapes cannot be inferred \(.*op_type:Add.*Incompatible dimensions.*onnx_canonical after onnx_file\]$",
        ),
        (user_model(**_node("NoSuchOperation")), r"user\.onnx: not a valid ONNX model"),
        (
            user_model(weight=np.ones((3, 1), np.float32), out=("N", 1)),
            r"softmax of one value is always 1\.0",
        ),
        (
            user_model(
                result="out",
                extra=[
                    helper.make_node("Constant", [], ["shape"], value_ints=[1, 2]),
                    helper.make_node("Reshape", ["logits", "shape"], ["out"]),
                ],
                out=(1, 2),
            ),
            r"output scores is 1×2 for an input of batch×4×4×3: the batch must be its first dimension",
        ),
    ],
)
def test_refused_in_one_line(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    (tmp_path / "user.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EdgeCnnError, match=message) as caught:
        canonical(load_model(tmp_path / "user.onnx"), SPEC)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_fixed_batch_cannot_become_another(tmp_path: Path) -> None:
    with pytest.raises(
        EdgeCnnError, match=r"its batch is fixed to 1, it cannot be 4; export it with an open batch"
    ):
        to_canonical(user_model((1, 3, 4, 4), out=(1, 2)), tmp_path, batch=4)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "an empty file"), (b"\x08\x08garbage", "not an ONNX model")]
)
def test_file_that_is_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "user.onnx").write_bytes(content)
    with pytest.raises(EdgeCnnError, match=rf"user\.onnx: {message}"):
        canonical(load_model(tmp_path / "user.onnx"), SPEC)


def test_infinity_as_a_mask_or_a_limit_is_no_mistake(tmp_path: Path) -> None:
    """Added, not multiplied: the second class is ruled out."""
    model = user_model(
        extra=[
            helper.make_node("Add", ["logits", "mask"], ["masked"]),
            helper.make_node("Constant", [], ["limit"], value_float=float("inf")),
            helper.make_node("Clip", ["masked", "", "limit"], ["out"]),
        ],
        result="out",
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, -np.inf], np.float32), "mask"))
    converted = to_canonical(model, tmp_path)
    assert run(converted, images(SPEC, 1))["scores"].tolist() == [[1, 0]]


def test_damaged_files_are_model_errors(tmp_path: Path) -> None:
    whole = user_model().SerializeToString()
    path, draw = tmp_path / "user.onnx", random.Random(2)
    messages = []
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 2, 3))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            canonical(load_model(path), SPEC)
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert not [message for message in messages if "\n" in message]


@pytest.mark.parametrize("step", ["convert", "ensures"])
def test_what_onnx_says_of_a_broken_graph_becomes_one_line(step: str) -> None:
    arrow, broken = OnnxToCanonical(SPEC), user_model()
    broken.graph.node.append(broken.graph.node[-1])
    with pytest.raises(
        ModelError, match=r"^(preprocessing and|the canonical model is not valid) .*\)$"
    ) as caught:
        arrow.convert(broken) if step == "convert" else arrow.ensures(user_model(), broken)
    assert "\n" not in str(caught.value)
