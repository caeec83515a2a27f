"""Ranges are chosen by what they do to the output, in networks where the best one is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecnn.calibration import RECIPES, Observation, observe, quant_params, value_range
from edgecnn.calibration.selection import IMAGES_MAX, select_ranges
from edgecnn.errors import InputError

Images = npt.NDArray[np.uint8]

# small values, and a large one so rare that a percentile leaves it out; it is in the first image
RARE = np.random.default_rng(0).integers(0, 16, (64, 16, 17, 1)).astype(np.uint8)
RARE[0, 0, 0] = 255


def network(
    *nodes: tuple[str, Sequence[str], str],
    batch: int | str = "n",
    outputs: Sequence[str] = ("out",),
    **constants: npt.ArrayLike,
) -> ir.Model:
    """uint8 (n, 16, 17, 1) → ``x`` in float; nodes are (operation, inputs, output)."""
    made = [
        helper.make_node("Cast", ["image"], ["x"], name="x", to=TensorProto.FLOAT),
        *(helper.make_node(op, inputs, [output], name=output) for op, inputs, output in nodes),
    ]
    graph = helper.make_graph(
        made,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 16, 17, 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(proto)


def seen(model: ir.Model, tensors: Sequence[str], images: Images) -> dict[str, Observation]:
    return observe(ir.to_proto(model).SerializeToString(), tensors, [images], threads=1)


# squares from 0 to 225 and one of 65025; the output has all of it, nothing above 256, or only zeros
SQUARES = network(("Mul", ["x", "x"], "square"), ("Mul", ["square", "one"], "out"), one=1)
SMALL_SQUARES = network(("Mul", ["x", "x"], "square"), ("Min", ["square", "most"], "out"), most=256)
NO_SQUARES = network(("Mul", ["x", "x"], "square"), ("Mul", ["square", "zero"], "out"), zero=0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("model", "lowest", "highest"),
    [(SQUARES, 65025, 65025), (SMALL_SQUARES, 220, 300), (NO_SQUARES, 65025, 65025)],
)
def test_rare_values_are_kept_where_they_matter(
    model: ir.Model, lowest: float, highest: float, symmetric: bool
) -> None:
    observations = seen(model, ["square"], RARE)
    clipped = value_range(observations["square"], RECIPES["percentile"], symmetric=symmetric)
    chosen = select_ranges(model, ["square"], observations, RARE, symmetric=symmetric, threads=1)["square"]
    assert clipped[1] < 300
    assert lowest <= chosen.high <= highest
    assert (chosen.low, chosen.params.zero_point) == (-chosen.high if symmetric else 0, 0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("tensor", ["square", "out"])
def test_the_error_is_that_of_quantising_the_tensor_on_some_of_the_images(
    tensor: str, symmetric: bool
) -> None:
    chosen = select_ranges(
        SQUARES, [tensor], seen(SQUARES, [tensor], RARE), RARE, symmetric=symmetric, threads=1
    )[tensor]
    wanted = RARE[np.linspace(0, 63, IMAGES_MAX).round().astype(int)].astype(np.float64) ** 2
    given = np.clip(
        np.rint(wanted / chosen.params.scale), -128 if symmetric else 0, 127 if symmetric else 255
    )
    error = np.sqrt(((given * chosen.params.scale - wanted) ** 2).sum() / (wanted**2).sum())
    assert chosen.error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_named_recipe_is_followed(method: str, symmetric: bool) -> None:
    observations = seen(SQUARES, ["x", "out"], RARE)
    chosen = select_ranges(SQUARES, ["x", "out"], observations, RARE[:0], method=method, symmetric=symmetric)
    for name, each in chosen.items():
        bounds = value_range(observations[name], RECIPES[method], symmetric=symmetric)
        assert (each.low, each.high, each.method, each.error) == (*bounds, method, None)
        assert each.params == quant_params(*bounds, symmetric=symmetric)
        assert each.params.signed == symmetric
        assert not (symmetric and each.params.zero_point)


def test_tensors_between_which_values_only_pass_share_a_range() -> None:
    model = network(
        ("Mul", ["x", "two"], "double"),
        ("Concat", ["x", "double"], "both"),
        ("Mul", ["both", "two"], "out"),
        two=2,
    )
    next(node for node in model.graph if node.op_type == "Concat").attributes["axis"] = ir.AttrInt64(
        "axis", 3
    )
    tensors = ["out", "double", "x", "both"]
    told: list[tuple[int, int]] = []
    chosen = select_ranges(
        model,
        tensors,
        seen(model, tensors, RARE),
        RARE,
        symmetric=False,
        threads=1,
        on_progress=lambda *figures: told.append(figures),
    )
    assert list(chosen) == tensors
    assert chosen["x"] == chosen["double"] == chosen["both"] != chosen["out"]
    assert told == [(1, 2), (2, 2)]
    least = select_ranges(model, tensors, seen(model, tensors, RARE), RARE, method="minmax", symmetric=False)
    assert (least["x"].low, least["x"].high) == (0, 510)


@pytest.mark.parametrize(
    ("layers", "constants", "low", "high"),
    [
        ([("HardSwish", ["shifted"], "out")], {}, -3, 155),
        ([("Relu", ["shifted"], "out")], {}, 0, 155),
        ([("Clip", ["shifted", "least", "most"], "out")], {"least": -5, "most": 40}, -5, 40),
        ([("Clip", ["shifted", "", "most"], "out")], {"most": 40}, -100, 40),
        ([("HardSwish", ["shifted"], "a"), ("Mul", ["a", "shifted"], "out")], {}, -100, 155),
        (
            [("HardSwish", ["shifted"], "a"), ("Relu", ["shifted"], "b"), ("Add", ["a", "b"], "out")],
            {},
            -3,
            155,
        ),
    ],
)
def test_nothing_is_spent_on_what_the_next_layer_does_not_tell_apart(
    layers: list[tuple[str, Sequence[str], str]], constants: dict[str, float], low: float, high: float
) -> None:
    model = network(("Sub", ["x", "shift"], "shifted"), *layers, shift=100, **constants)
    observations = seen(model, ["shifted"], RARE)
    chosen = select_ranges(model, ["shifted"], observations, RARE, method="minmax", symmetric=False)[
        "shifted"
    ]
    assert (chosen.low, chosen.high) == (low, high)


def test_a_symmetric_range_has_no_bound_for_what_is_not_told_apart() -> None:
    model = network(("Sub", ["x", "shift"], "shifted"), ("HardSwish", ["shifted"], "out"), shift=253)
    observations = seen(model, ["shifted"], RARE)
    chosen = select_ranges(model, ["shifted"], observations, RARE, method="minmax", symmetric=True)["shifted"]
    assert (chosen.low, chosen.high) == (-3, 3)


def test_an_output_keeps_its_values() -> None:
    model = network(
        ("Sub", ["x", "shift"], "shifted"),
        ("Relu", ["shifted"], "out"),
        outputs=["out", "shifted"],
        shift=100,
    )
    observations = seen(model, ["shifted"], RARE)
    chosen = select_ranges(model, ["shifted"], observations, RARE, symmetric=False, threads=1)["shifted"]
    assert chosen.low < -90


def test_the_error_is_measured_in_front_of_a_softmax() -> None:
    sure = network(("Mul", ["x", "x"], "square"), ("Softmax", ["square"], "out"))
    plain = network(("Mul", ["x", "x"], "square"), ("Mul", ["square", "one"], "out"), one=1)
    errors = [
        select_ranges(model, ["square"], seen(model, ["square"], RARE), RARE, symmetric=False, threads=1)[
            "square"
        ].error
        for model in (sure, plain)
    ]
    assert errors[0] == pytest.approx(errors[1])


def test_a_fixed_batch() -> None:
    model = network(("Mul", ["x", "x"], "out"), batch=3)
    observations = seen(model, ["out"], RARE)
    chosen = select_ranges(model, ["out"], observations, RARE, symmetric=False, threads=1)["out"]
    assert chosen.error is not None
    with pytest.raises(InputError, match="fewer samples than the 3 that the model runs at once"):
        select_ranges(model, ["out"], observations, RARE[:2], symmetric=False)


def test_an_unknown_recipe() -> None:
    with pytest.raises(InputError, match="method: 'best' is none of auto, minmax"):
        select_ranges(SQUARES, [], {}, RARE, method="best", symmetric=False)


def test_the_model_is_left_as_it_was() -> None:
    before = ir.to_proto(SQUARES).SerializeToString()
    select_ranges(SQUARES, ["out"], seen(SQUARES, ["out"], RARE), RARE, symmetric=True, threads=1)
    assert ir.to_proto(SQUARES).SerializeToString() == before
