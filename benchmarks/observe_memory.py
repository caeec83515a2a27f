"""Peak memory of observing every float tensor inside MobileNetV2 at 224 px.

usage: python benchmarks/observe_memory.py [--images 1000] [--folder DIR]

Prints one JSON object: ``rss_mb`` is the largest resident set of the process that observes, engine and
numpy included; the network (random weights) is converted in another one. Without a folder the frames are
made up.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn import ModelSpec
from edgecnn.calibration import draw_samples, generate_frames, observe

LIMIT_MB = 1000
BATCH = 8
SPEC = ModelSpec(
    task="classification", size_hw=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def canonical_model() -> tuple[bytes, list[str]]:
    """The network as ONNX, and the names of the float32 tensors that its layers make."""
    import onnx
    import torchvision

    from edgecnn.converters.load import load_model
    from edgecnn.converters.onnx_canonical import canonical

    model = canonical(load_model(torchvision.models.mobilenet_v2()), SPEC).model
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    floats = {
        v.name
        for v in (*graph.value_info, *graph.output)
        if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return model, [name for node in graph.node for name in node.output if name in floats]


def batches(count: int, folder: Path | None) -> Iterator[npt.NDArray[np.uint8]]:
    """The samples, a few at a time."""
    if folder:
        images = draw_samples(folder, SPEC, count).images
        yield from (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return
    frames = generate_frames(count)
    for start in range(0, count, BATCH):
        yield draw_samples(frames, SPEC, min(BATCH, count - start)).images


def measure(count: int = 1000, folder: Path | None = None) -> dict[str, Any]:
    """Observe in this process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        model, tensors = pool.apply(canonical_model)
    start = time.perf_counter()
    seen = observe(model, tensors, batches(count, folder))
    return {
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "images": count,
        "tensors": len(seen),
        "values": sum(observation.n for observation in seen.values()),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    row = measure(options.images, options.folder)
    print(json.dumps(row))
    return int(row["rss_mb"] > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
