"""Circular borders and antialiased resizing become slices and products, capitals of an Einsum small letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edgecnn.converters.onnx_rewrites import rewrite
from edgecnn.converters.onnx_shapes import infer
from edgecnn.spec import ModelSpec
from tests.converters.helpers import check_parity, convert, images, run_bytes
from tests.models import Lambda

SPEC = ModelSpec(task="tensors", size_hw=(12, 10), activation="none")


def resize(size_hw: tuple[int, int], mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: functional.interpolate(x, size=size_hw, mode=mode, antialias=True)


@pytest.mark.parametrize(
    "function",
    [
        resize((5, 7), "bilinear"), resize((24, 3), "bilinear"), resize((12, 4), "bilinear"),
        resize((5, 7), "bicubic"), resize((24, 3), "bicubic"), resize((12, 4), "bicubic"),
        lambda x: functional.pad(x, (1, 2, 3, 0), mode="circular"),
        lambda x: functional.pad(x, (10, 0, 0, 12), mode="circular"),
        nn.Conv2d(3, 2, 3, padding=(1, 2), padding_mode="circular"),
    ],
)  # fmt: skip
def test_torch_gives_the_same(function: Callable[[Tensor], Tensor]) -> None:
    converted = convert(nn.Sequential(Lambda(function)), SPEC)
    kinds = {node.op_type for node in onnx.load_from_string(converted.model).graph.node}
    assert not kinds & {"Resize", "Pad", "Shape"}
    check_parity(converted, images(SPEC))


def one_node(op: str, inputs: str, *constants: Any, **attributes: Any) -> onnx.ModelProto:
    """A node on x float32 (1, 1, 1, 6), whose other inputs are constants or, as ``_``, left out."""
    names = inputs.split()
    given = [name for name in names if name != "_"]
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    op, ["x", *(n.replace("_", "") for n in names)], ["y"], name="node", **attributes
                )
            ],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
            [numpy_helper.from_array(np.array(v), name) for name, v in zip(given, constants)],
        ),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )


def rewritten(source: onnx.ModelProto) -> onnx.ModelProto:
    model = ir.from_proto(source)
    rewrite(model, infer(source, [1, 1, 1, 6]))
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    return made


def test_axes_of_a_pad() -> None:
    made = rewritten(one_node("Pad", "pads _ axes", [2, 1], [-1], mode="wrap"))
    assert [(node.name, node.op_type) for node in made.graph.node] == [
        ("node/0", "Slice"), ("node/1", "Slice"), ("node/2", "Concat"),
    ]  # fmt: skip
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)
    assert run_bytes(made.SerializeToString(), {"x": x})["y"].ravel().tolist() == [4, 5, 0, 1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("equation", "spelled"),
    [("NHWC,CD->NHDW", "abcd,de->abec"), ("...hW, hW -> ...hW", "...ab, ab -> ...ab")],
)
def test_letters_of_an_einsum(equation: str, spelled: str) -> None:
    y = np.arange(6, dtype=np.float32).reshape(6, 1) if "D" in equation else np.full((1, 6), 2, np.float32)
    source = one_node("Einsum", "constant", y, equation=equation)
    made = rewritten(source)
    assert [helper.get_node_attr_value(node, "equation") for node in made.graph.node] == [spelled.encode()]
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)
    wanted, found = (run_bytes(m.SerializeToString(), {"x": x})["y"] for m in (source, made))
    np.testing.assert_array_equal(found, wanted)


def test_halves_are_weighed_by_a_triangle() -> None:
    """Of twice the width: 1/8, 3/8, 3/8, 1/8, and at the border what is left of it."""
    attributes = {"antialias": 1, "exclude_outside": 1, "mode": "linear"}
    made = rewritten(one_node("Resize", "_ _ sizes", [1, 1, 1, 3], **attributes))
    assert "Resize" not in {node.op_type for node in made.graph.node}
    x = np.array([7, 0, 0, 8, 0, 0], np.float32).reshape(1, 1, 1, 6)
    assert run_bytes(made.SerializeToString(), {"x": x})["y"].ravel() == pytest.approx([3, 3, 8 / 7])


@pytest.mark.parametrize(
    "source",
    [
        one_node("Pad", "pads", [0, 0, 0, 1, 0, 0, 0, 1], mode="reflect"),
        one_node("Pad", "pads", [0, 0, 0, -1, 0, 0, 0, 1], mode="wrap"),
        one_node("Pad", "pads", [0, 0, 0, 7, 0, 0, 0, 0], mode="wrap"),
        one_node("Resize", "_ _ sizes", [1, 1, 1, 3], mode="linear"),
        one_node("Einsum", "", equation="abcd->abdc"),
        one_node("Resize", "_ scales", np.array([1, 1, 1, 0.4], np.float32), mode="linear", antialias=1, exclude_outside=1),
    ],
    ids=["reflects", "crops", "wraps twice", "not antialiased", "small letters", "scales"],
)  # fmt: skip
def test_other_forms_stay(source: onnx.ModelProto) -> None:
    assert [node.op_type for node in rewritten(source).graph.node] == [source.graph.node[0].op_type]
