"""Running canonical models in these tests, on ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional

from edgecnn.converters import Canonical, canonical, load_model
from edgecnn.spec import ModelSpec

Arrays = dict[str, npt.NDArray[Any]]

# of (n, k), not negative; without the number that is nearly 0 they are not finite for zeros
GUARDED: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": functional.normalize,
    "under the root": lambda x: x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-12),
    "behind the norm": lambda x: x / (1e-8 + x.norm(dim=1, keepdim=True)),
    "maximum": lambda x: x / torch.maximum(x.amax(1, keepdim=True), torch.tensor(1e-9)),
    "a tensor": lambda x: x / (x.sum(1, keepdim=True) + torch.tensor(1e-9)),
    "subtracted": lambda x: x / (-x.sum(1, keepdim=True) - 1e-10),
    "logarithm": lambda x: torch.log(x.clamp(min=1e-9)).clamp(min=-5),
}


def convert(model: Any, spec: ModelSpec, **options: Any) -> Canonical:
    """Load and convert."""
    return canonical(load_model(model), spec, **options)


def images(spec: ModelSpec, count: int = 2, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Noise of the size that a spec gives."""
    return np.random.default_rng(seed).integers(0, 256, (count, *spec.input_shape), np.uint8)


def run_bytes(model: bytes, feeds: Arrays) -> Arrays:
    """Outputs of ONNX bytes by name."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def run(converted: Canonical, batch: npt.NDArray[np.uint8]) -> Arrays:
    """Outputs of a canonical model for uint8 (n, h, w, c)."""
    return run_bytes(converted.model, {"image": batch})


def check_parity(converted: Canonical, batch: npt.NDArray[np.uint8], atol: float = 1e-5) -> Arrays:
    """ONNX Runtime and torch give the same on a batch, output for output."""
    found = run(converted, batch)
    with torch.inference_mode():
        expected = converted.reference(torch.from_numpy(batch))
    assert list(found) == [info.name for info in converted.outputs]
    for value, wanted in zip(found.values(), expected):
        np.testing.assert_allclose(value, wanted.numpy(), atol=atol, rtol=1e-4)
    return found
