"""edgecnn: take a trained PyTorch vision model to a small, proven package and run it anywhere.

::

    import edgecnn

    edgecnn.convert(model, spec=spec, out="net.edge")
    detector = edgecnn.load("face")
    result = detector(frame)  # frame: uint8 (H, W, 3) BGR

Importing the package loads neither torch nor an inference engine; names are fetched on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecnn import vision
    from edgecnn.auto import open_model
    from edgecnn.benchmarking import Benchmark, benchmark
    from edgecnn.bundle import Bundle
    from edgecnn.conversion import convert
    from edgecnn.errors import EdgeCnnError
    from edgecnn.evaluation import Evaluation, evaluate
    from edgecnn.predictor import Predictor, load
    from edgecnn.pruning import Pruned, prune, prune_to_latency
    from edgecnn.quantization import quantize
    from edgecnn.results import Classification, Detections, Tensors
    from edgecnn.spec import ModelSpec, PriorMap, WindowGeometry
    from edgecnn.tuning import Tuning, tune
    from edgecnn.verification import verify

__all__ = [
    "Benchmark",
    "Bundle",
    "Classification",
    "Detections",
    "EdgeCnnError",
    "Evaluation",
    "ModelSpec",
    "Predictor",
    "PriorMap",
    "Pruned",
    "Tensors",
    "Tuning",
    "WindowGeometry",
    "__version__",
    "benchmark",
    "convert",
    "evaluate",
    "load",
    "open_model",
    "prune",
    "prune_to_latency",
    "quantize",
    "tune",
    "verify",
    "vision",
]

__version__ = "0.1.0"

# where each public name lives; modules are not named after a public function, or they would hide it
_HOMES = {
    "Benchmark": "benchmarking",
    "Bundle": "bundle",
    "Classification": "results",
    "Detections": "results",
    "EdgeCnnError": "errors",
    "Evaluation": "evaluation",
    "ModelSpec": "spec",
    "Predictor": "predictor",
    "PriorMap": "places",
    "Pruned": "pruning",
    "Tensors": "results",
    "Tuning": "tuning",
    "WindowGeometry": "places",
    "benchmark": "benchmarking",
    "convert": "conversion",
    "evaluate": "evaluation",
    "load": "predictor",
    "open_model": "auto",
    "prune": "pruning",
    "prune_to_latency": "pruning",
    "quantize": "quantization",
    "tune": "tuning",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name == "vision":
        return importlib.import_module("edgecnn.vision")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edgecnn.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
