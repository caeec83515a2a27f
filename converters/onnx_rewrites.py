"""Operations that some engine lacks or computes wrongly, in terms of those that all have."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.manifest import TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["rewrite"]

Shapes = Mapping[str, TensorInfo]

END = 2**63 - 1
UNKNOWN = TensorInfo(name="", dtype="unknown", shape=())


def rewrite(model: ir.Model, shapes: Shapes) -> None:
    """Replace a Pad that wraps around, a Resize with antialiasing and an Einsum of capitals by the same.

    OpenVINO has no such Pad; TensorRT refuses the antialiasing and OpenVINO leaves it out without a word;
    TensorRT knows no capitals.

    Args:
        model: Changed in place. Nodes stay whose sizes, or pads, are not known, and rarer forms of Resize.
        shapes: Of its values, by name.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph, rewritten = model.graph, False
    for node in list(graph):
        formula = FORMULAS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        tape = ir.tape.Tape(graph)
        made = formula(node, tape, shapes) if formula else None
        if made is not None:
            for position, step in enumerate(tape.nodes):
                step.name = f"{node.name}/{position}"
            ir.convenience.replace_nodes_and_values(graph, node, [node], tape.nodes, node.outputs, [made])
            rewritten = True
    if rewritten:
        RemoveUnusedNodesPass()(model)


def _wrapped(node: ir.Node, tape: ir.tape.Tape, shapes: Shapes) -> ir.Value | None:
    """``concat(x[-before:], x, x[:after])`` along each axis."""
    value, sizes = node.inputs[0], _info(node.inputs[0], shapes).shape
    pads, axes = _integers(node, 1), _integers(node, 3) or list(range(len(sizes)))
    borders = [(axis, *pair) for axis, *pair in zip(axes, pads, pads[len(axes) :]) if any(pair)]
    known = all(_fits(sizes[axis], before, after) for axis, before, after in borders)
    if node.attributes.get_string("mode", "constant") != "wrap" or not borders or not known:
        return None

    def part(start: int, stop: int, axis: int) -> ir.Value:
        bounds = [_constant(np.array([each]), node, tape) for each in (start, stop, axis)]
        return tape.op("Slice", [value, *bounds])

    for axis, before, after in borders:
        first = [part(-before, END, axis)] if before else []
        last = [part(0, after, axis)] if after else []
        value = tape.op("Concat", [*first, value, *last], {"axis": axis})
    return value


def _fits(size: Any, before: int, after: int) -> bool:
    return isinstance(size, int) and min(before, after) >= 0 and max(before, after) <= size


def _resized(node: ir.Node, tape: ir.tape.Tape, shapes: Shapes) -> ir.Value | None:
    """A product with a constant matrix for the columns, and one for the rows.

    The matrices come first in the products, where INT8 does not take them for layers.
    """
    given, wanted = (_info(value, shapes) for value in (node.inputs[0], node.outputs[0]))
    of = node.attributes
    mode = of.get_string("mode", "nearest")
    usual = (
        of.get_int("antialias", 0) == of.get_int("exclude_outside", 0) == 1
        and of.get_string("coordinate_transformation_mode", "half_pixel") == "half_pixel"
        and mode in ("linear", "cubic")
        and given.dtype == "float32"
    )
    sizes = [*given.shape[2:], *wanted.shape[2:]]
    # with scales, a size is rounded down and no longer tells the step
    known = len(sizes) == 4 and all(isinstance(size, int) for size in sizes) and len(node.inputs) == 4
    if not usual or not known or node.inputs[2] is not None:
        return None
    a = of.get_float("cubic_coeff_a", -0.75) if mode == "cubic" else None
    value = node.inputs[0]
    for axis in (3, 2):
        matrix = _resampling(given.shape[axis], wanted.shape[axis], a)
        turned = tape.op("Transpose", [value], {"perm": [0, 1, 3, 2]})
        value = tape.op("MatMul", [_constant(matrix, node, tape), turned])
    return value


def _resampling(before: Any, after: Any, a: float | None) -> npt.NDArray[np.float32]:
    """The matrix (after, before) that resizes: around each new centre a kernel as wide as the step.

    The kernel is a triangle, or with ``a`` the cubic convolution of Keys (1981).
    """
    step = before / after
    centres = (np.arange(after) + 0.5) * step
    x = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(step, 1)
    if a is None:
        weights = np.maximum(1 - x, 0)
    else:
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights, np.float32)


def _spelled(node: ir.Node, tape: ir.tape.Tape, shapes: Shapes) -> ir.Value | None:
    """The same sum over small letters, from a on."""
    equation = node.attributes.get_string("equation", "")
    letters = dict.fromkeys(filter(str.isalpha, equation))
    if equation == equation.lower() or len(letters) > len(ascii_lowercase):
        return None
    small = str.maketrans("".join(letters), ascii_lowercase[: len(letters)])
    return tape.op("Einsum", node.inputs, {"equation": equation.translate(small)})


def _info(value: ir.Value | None, shapes: Shapes) -> TensorInfo:
    return UNKNOWN if value is None else shapes.get(str(value.name), UNKNOWN)


def _integers(node: ir.Node, position: int) -> list[int]:
    """A constant input of a node; nothing where it has none there."""
    import onnx_ir as ir

    value = node.inputs[position] if position < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return [] if tensor is None else [int(each) for each in tensor.numpy()]


def _constant(array: npt.NDArray[Any], node: ir.Node, tape: ir.tape.Tape) -> ir.Value:
    import onnx_ir as ir

    return tape.initializer(ir.tensor(array), f"{node.outputs[0].name}.{len(tape.initializers)}")


FORMULAS = {"Einsum": _spelled, "Pad": _wrapped, "Resize": _resized}
