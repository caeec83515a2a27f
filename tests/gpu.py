"""What of TensorRT the tests can run on this machine, and small models for it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecnn.cuda_api import compute_capability
from edgecnn.errors import Unavailable
from tests.paths import leave_out

NOT_RUN = "execute_async_v3, CUDA graphs and parity on the device were not run"


def gpu() -> str:
    """Compute capability of this machine's GPU; of the kind ``gpu``."""
    try:
        return compute_capability()
    except Unavailable as error:
        leave_out("gpu", f"no NVIDIA GPU here: {NOT_RUN} ({error})")


def without_gpu() -> None:
    """Skip what only shows where there is no GPU."""
    try:
        capability = compute_capability()
    except Unavailable:
        return
    pytest.skip(f"there is a GPU here, of compute capability {capability}")


def small_model() -> bytes:
    """uint8 ``image`` (batch, 2, 2, 1) → ``sum`` (batch, 1) of its pixels and ``twice`` (batch, 4)."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["flat", "flat"], ["twice"]),
    ]
    outputs = [
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 1]),
        helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["batch", 4]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "small", [image], outputs, [axis])
    return _bytes(graph)


def halving_model() -> bytes:
    """float32 ``values`` (batch, 4) → ``half`` (batch, 4) of them."""
    nodes = [helper.make_node("Mul", ["values", "factor"], ["half"])]
    values, half = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("values", "half")
    )
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [1], [0.5])
    return _bytes(helper.make_graph(nodes, "halving", [values], [half], [factor]))


def long_model(layers: int) -> bytes:
    """A chain of convolutions of different sizes, each of which TensorRT has to look at."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for i in range(layers):
        shape = (i + 2, i + 1, 3, 3)
        weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Tanh", [f"y{i}"], [f"x{i + 1}"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])
    out = helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, ["batch", layers + 1, 8, 8])
    return _bytes(helper.make_graph(nodes, "long", [image], [out], weights))


def _bytes(graph: object) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())
