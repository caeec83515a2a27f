"""Networks written node by node, in which each tensor has a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

Images = npt.NDArray[np.uint8]


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """One operation; inputs are separated by blanks, and it has the name of its output."""
    return helper.make_node(op, inputs.split(), output.split(), name=output.split()[0], **attributes)


def graph(
    *nodes: NodeProto,
    image: tuple[int, ...] = (8, 8, 3),
    batch: int | str = "batch",
    opset: int = 18,
    outputs: Sequence[str] = ("out",),
    **constants: npt.ArrayLike,
) -> ir.Model:
    """uint8 (n, h, w, c) → ``x`` float32 (n, c, h, w) → nodes; constants are float32, or int64 as they are."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    made = helper.make_graph(
        [
            node("Cast", "image", "float", to=TensorProto.FLOAT),
            node("Transpose", "float", "x", perm=(0, 3, 1, 2)),
            *nodes,
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *image])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(array.astype(np.int64 if array.dtype.kind == "i" else np.float32), name)
            for name, array in arrays.items()
        ],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Weights of which a layer makes values about as large as those it reads."""
    values = np.random.default_rng(seed).normal(0, 1, shape)
    return (values / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)


def pixels(*shape: int, seed: int = 0) -> Images:
    """Random images, the first of them black and the second white."""
    images = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    images[0], images[1] = 0, 255
    return images


def content(model: ir.Model) -> bytes:
    """The model as ONNX."""
    return bytes(ir.to_proto(model).SerializeToString())
