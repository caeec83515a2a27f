"""What a runtime costs on top of its engine: ``Runtime.run`` beside a bare ``InferenceSession.run``.

usage: python benchmarks/adapter.py [--calls 2000]

One network of about 1 ms, one thread, the two calls in turn; the figure is the ratio of their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgecnn.runtimes import Artifact, RuntimeOptions, backend

TARGET_MS = 1.0
CHANNELS = 32


def network(layers: int) -> bytes:
    """A stack of 3×3 convolutions on uint8 (batch, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for i in range(layers):
        shape = (CHANNELS, 3 if i == 0 else CHANNELS, 3, 3)
        weights.append(numpy_helper.from_array(rng.normal(0, 0.05, shape).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{layers}"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CHANNELS, 1, 1])],
        weights,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()


def bare_session(model: bytes) -> onnxruntime.InferenceSession:
    """A session with the settings of our runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_ms(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> float:
    """Median time of a bare run."""
    return statistics.median(seconds(lambda: session.run(None, feeds)) for _ in range(50)) * 1e3


def measure(calls: int) -> dict[str, float]:
    """Medians of both, and their ratio."""
    feeds = {"image": np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)}
    layers = 1
    while median_ms(session := bare_session(network(layers)), feeds) < TARGET_MS:
        layers += 1
    runtime = backend("ort")(Artifact("onnx", network(layers), "stack"), RuntimeOptions(threads=1))
    bare, ours = [], []
    for _ in range(calls):
        bare.append(seconds(lambda: session.run(["scores"], feeds)))
        ours.append(seconds(lambda: runtime.run(feeds)))
    bare_ms, ours_ms = statistics.median(bare) * 1e3, statistics.median(ours) * 1e3
    return {
        "layers": layers,
        "calls": calls,
        "bare_p50_ms": round(bare_ms, 4),
        "runtime_p50_ms": round(ours_ms, 4),
        "ratio": round(ours_ms / bare_ms, 4),
        "limit": 1.05,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit 1 when the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    figures = measure(parser.parse_args(arguments).calls)
    print(json.dumps(figures))
    return int(figures["ratio"] > figures["limit"])


if __name__ == "__main__":
    sys.exit(main())
