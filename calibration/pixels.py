"""Pixels as the first layer's own 8-bit input: normalisation folded into its weights, no pixel rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.layers import constant, quant_layers
from edgecnn.calibration.ranges import QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PIXELS", "byte_pixels", "fold_pixels", "pixel_params"]

PIXELS = "edgecnn.pixels"
SUFFIX = "pixels"  # of the names of the nodes that make them
MIDDLE = 128  # pixels around zero fill a signed byte
TIE = 1e-3


def pixel_params(*, symmetric: bool) -> QuantParams:
    """The parameters with which `PIXELS` is quantised without any error: its values are whole numbers."""
    return QuantParams(scale=1.0, zero_point=0 if symmetric else MIDDLE, signed=symmetric)


def fold_pixels(model: ir.Model) -> bool:
    """Let the first convolution read ``p - 128`` instead of ``a p + b``; p are pixels, a and b per channel.

    With weights w, ``sum w (a p + b) = sum (w a) (p - 128) + sum w (128 a + b)``: both constants are known,
    so the layer computes the same. Its border was 0 behind the normalisation, which is the pixel -b / a of
    each channel; here it is that pixel rounded to a whole number.

    Args:
        model: Canonical; changed in place.

    Returns:
        Whether there is such a layer: one Conv of one group and two dimensions that reads nothing but
        transposed, cast, scaled and shifted pixels, with a border that a pixel can show. Else the model is
        left as it was.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    chain = _chain(model)
    if chain is None:
        return False
    transpose, factor, offset, conv = chain
    weight, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    w = np.asarray(constant(weight), np.float64)
    channels = w.shape[1]
    a, b = (np.broadcast_to(v.reshape(-1), channels).reshape(1, -1, 1, 1) for v in (factor, offset))
    shift = (w * (MIDDLE * a + b)).sum(axis=(1, 2, 3))
    old = constant(bias)
    values = {
        f"{weight.name}.pixels": w * a,  # type: ignore[union-attr]
        f"{conv.name}.bias.pixels": shift if old is None else old + shift,
    }
    folded, moved = (_initializer(model.graph, name, value) for name, value in values.items())
    pads = conv.attributes.get_ints("pads", (0, 0, 0, 0))
    # what is taken off first is what the border is filled with; halves, as of a mean of 0.5, are rounded up
    border = np.clip(np.round(-b / a + TIE), 0, 255) if any(pads) else np.full_like(a, MIDDLE)
    image = model.graph.inputs[0]
    nodes = [ir.node("Cast", [image], {"to": ir.DataType.FLOAT}, name=f"edgecnn/Cast.{SUFFIX}")]
    if transpose is not None:
        perm = {"perm": transpose.attributes["perm"].as_ints()}
        nodes.append(ir.node("Transpose", nodes[-1].outputs, perm, name=f"edgecnn/Transpose.{SUFFIX}"))

    def then(op: str, name: str, values: npt.NDArray[Any]) -> None:
        operand = _initializer(model.graph, f"{PIXELS}.{name}", values)
        nodes.append(ir.node(op, [nodes[-1].outputs[0], operand], name=f"edgecnn/{op}.{SUFFIX}"))

    then("Sub", "border", border)
    if (border != MIDDLE).any():  # else the layer's own padding is that pixel
        then("Pad", "pads", np.array([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]]))
        conv.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
        then("Add", "centre", border - MIDDLE)
    nodes[-1].outputs[0].name = PIXELS
    model.graph.insert_before(conv, nodes)
    conv.replace_input_with(0, nodes[-1].outputs[0])
    conv.replace_input_with(1, folded)
    if bias is None:
        conv.resize_inputs(3)
    conv.replace_input_with(2, moved)
    RemoveUnusedNodesPass()(model)
    return True


def byte_pixels(model: ir.Model) -> ir.Value | None:
    """Make a uint8 value that is ``PIXELS + 128``, for engines that take bytes with a zero point.

    What `fold_pixels` put there in float is left to those that read it.

    Returns:
        The pixels in the layer's layout, with its border; None where there is no folded layer.
    """
    import onnx_ir as ir

    end = next((v for node in model.graph for v in node.outputs if v.name == PIXELS), None)
    if end is None:
        return None
    nodes = {node.op_type: node for node in model.graph if str(node.name).endswith(f".{SUFFIX}")}
    layout, made = model.graph.inputs[0], []
    if "Transpose" in nodes:
        perm = {"perm": nodes["Transpose"].attributes["perm"].as_ints()}
        made.append(ir.node("Transpose", [layout], perm))
        layout = made[0].outputs[0]
    pad = nodes.get("Pad")
    if pad is not None:
        made += _padded(model.graph, layout, pad, border=constant(nodes["Sub"].inputs[1]))
    model.graph.insert_before(nodes["Cast"], made)
    return made[-1].outputs[0] if made else layout


def _padded(
    graph: ir.Graph, layout: ir.Value, pad: ir.Node, border: npt.NDArray[Any] | None
) -> list[ir.Node]:
    """Nodes that put the border's level of each channel around bytes; the last one gives the result."""
    import onnx_ir as ir

    levels = np.asarray(border, np.uint8).reshape(-1)

    def padded(value: ir.Value, level: np.uint8, name: str) -> ir.Node:
        return ir.node("Pad", [value, pad.inputs[1], _initializer(graph, name, np.asarray(level))])

    if (levels == levels[0]).all():
        return [padded(layout, levels[0], f"{PIXELS}.level")]
    each = _initializer(graph, f"{PIXELS}.split", np.ones(len(levels), np.int64))
    split = ir.node("Split", [layout, each], {"axis": 1}, num_outputs=len(levels))
    pads = [
        padded(value, level, f"{PIXELS}.level.{i}")
        for i, (value, level) in enumerate(zip(split.outputs, levels))
    ]
    return [split, *pads, ir.node("Concat", [node.outputs[0] for node in pads], {"axis": 1})]


def _chain(
    model: ir.Model,
) -> tuple[ir.Node | None, npt.NDArray[Any], npt.NDArray[Any], ir.Node] | None:
    """What changes the pixels' layout, what they are multiplied by, what is added, and the layer."""
    import onnx_ir as ir

    value = model.graph.inputs[0]
    transpose: ir.Node | None = None
    factor, offset = np.ones(1), np.zeros(1)
    while len(uses := list(value.uses())) == 1:
        node, position = uses[0].node, uses[0].idx
        if node.op_type == "Conv":
            layers = {layer.name: layer for layer in quant_layers(model)}
            layer = layers.get(str(node.name))
            fits = layer is not None and layer.geometry is not None and layer.group == 1 and position == 0
            folds = fits and value.dtype != ir.DataType.UINT8 and (factor != 0).all()
            if folds and any(node.attributes.get_ints("pads", (0,))):
                border = -offset / factor  # what no pixel shows cannot be put around them
                folds = bool(((border > -0.5) & (border < 255.5)).all())
            return (transpose, factor, offset, node) if folds else None
        operand = _per_channel(node.inputs[1 - position]) if node.op_type in ("Mul", "Add") else None
        if node.op_type == "Transpose" and transpose is None and factor.ndim == offset.ndim == 1:
            transpose = node
        elif node.op_type == "Mul" and operand is not None:
            factor, offset = factor * operand, offset * operand
        elif node.op_type == "Add" and operand is not None:
            offset = offset + operand
        elif node.op_type != "Cast":
            return None
        value = node.outputs[0]
    return None


def _per_channel(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """A constant of one number a channel, (1, C, 1, 1)."""
    values = constant(value)
    return values if values is not None and values.ndim == 4 and values.size == values.shape[1] else None


def _initializer(graph: ir.Graph, name: str, values: npt.NDArray[Any]) -> ir.Value:
    """A constant; floats become float32, whole numbers keep their type."""
    import onnx_ir as ir

    array = values.astype(np.float32) if values.dtype.kind == "f" else values
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
