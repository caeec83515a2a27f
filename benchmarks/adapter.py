"""What a runtime costs on top of its engine: ``Runtime.run`` beside a bare session or request.

usage: python benchmarks/adapter.py [--calls 2000]

Networks of at least 0.4 and 1.2 ms, one thread, the two calls in turn; the figure is the ratio of their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from tables import table

from edgecnn.runtimes import Artifact, RuntimeOptions, backend

CHANNELS = 32
# how long a network takes at least, and the goal for it
GOALS = ((0.4, 1.05), (1.2, 1.02))

Image = npt.NDArray[np.uint8]
Call = Callable[[Image], object]


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


def bare_ort(model: bytes) -> Call:
    """A session with the settings of our runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["scores"], {"image": image})


def bare_openvino(model: bytes) -> Call:
    """A request with the settings of our runtime, that neither copies what it is given nor what it gives."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", settings | {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    return lambda image: request.infer([image], share_inputs=True, share_outputs=True)


ENGINES: dict[str, Callable[[bytes], Call]] = {"ort": bare_ort, "openvino": bare_openvino}


def seconds(call: Call, image: Image) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call(image)
    return time.perf_counter() - start


def median_ms(call: Call, image: Image) -> float:
    """Median time of a call."""
    return statistics.median(seconds(call, image) for _ in range(50)) * 1e3


def measure(calls: int) -> list[dict[str, Any]]:
    """Of each engine and goal the medians of both, and their ratio."""
    return [_compared(engine, *goal, calls) for engine in ENGINES for goal in GOALS]


def _compared(engine: str, least_ms: float, limit: float, calls: int) -> dict[str, Any]:
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    layers = 1
    while median_ms(bare := ENGINES[engine](network(layers)), image) < least_ms:
        layers += 1
    runtime = backend(engine)(Artifact("onnx", network(layers), "stack"), RuntimeOptions(threads=1))
    bare_s, ours_s = [], []
    for _ in range(calls):
        bare_s.append(seconds(bare, image))
        ours_s.append(seconds(lambda image: runtime.run({"image": image}), image))
    bare_ms, ours_ms = statistics.median(bare_s) * 1e3, statistics.median(ours_s) * 1e3
    return {
        "engine": engine,
        "layers": layers,
        "calls": calls,
        "bare_p50_ms": round(bare_ms, 4),
        "runtime_p50_ms": round(ours_ms, 4),
        "ratio": round(ours_ms / bare_ms, 4),
        "limit": limit,
    }


def section() -> tuple[str, bool]:
    """Its part of the page, and whether a goal is missed."""
    found = measure(2000)
    rows = [
        (
            each["engine"],
            f"{each['bare_p50_ms']:.3f}",
            f"{each['runtime_p50_ms']:.3f}",
            f"{each['ratio']:.3f}×",
            f"{each['limit']}×",
        )
        for each in found
    ]
    misses = [each for each in found if each["ratio"] > each["limit"]]
    lines = [
        "## What a runtime adds to its engine",
        "",
        f"`Runtime.run` beside a bare session or request of the same network, one thread, {found[0]['calls']} calls of each",
        "in turns, medians. The request of OpenVINO copies neither what it is given nor what it gives.",
        "",
        table(["engine", "bare ms", "runtime ms", "ratio", "goal"], rows),
        "",
        *(
            f"- Goal missed: {each['engine']}, {each['bare_p50_ms']:.2f} ms: {each['ratio']:.3f}×."
            for each in misses
        ),
    ]
    return "\n".join([*lines, ""]), bool(misses)


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    found = measure(parser.parse_args(arguments).calls)
    for figures in found:
        print(json.dumps(figures))
    return int(any(figures["ratio"] > figures["limit"] for figures in found))


if __name__ == "__main__":
    sys.exit(main())
