"""A tiny graph whose inner tensors are known by hand."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def tiny_model(batch: int | str = "batch", divisor: float = 2.0) -> bytes:
    """uint8 (n, 1, 2, 1) → ``float`` = x, ``shifted`` = x - 3, ``relu``, ``scores`` = relu / divisor.

    ``places`` is the argmax of the scores, an int64.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "three"], ["shifted"], name="shift"),
        helper.make_node("Relu", ["shifted"], ["relu"], name="rectify"),
        helper.make_node("Div", ["relu", "divisor"], ["scores"], name="halve"),
        helper.make_node("ArgMax", ["scores"], ["places"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 1, 2, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 1, 2, 1])],
        [
            numpy_helper.from_array(np.float32(3), "three"),
            numpy_helper.from_array(np.float32(divisor), "divisor"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())
