"""How far two runs of a model are apart, and when that is too far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.spec import ModelSpec

__all__ = ["MAX_ABS", "MIN_COSINE", "Parity", "compare"]

Arrays = Mapping[str, npt.NDArray[Any]]

# Largest difference that an artifact of a precision may show, relative to max(1, largest reference).
MAX_ABS = {"fp32": 1e-3}
MIN_COSINE = {"fp32": 0.9999}


@dataclass(frozen=True)
class Parity:
    """Figures over n inputs; see `edgecnn.manifest.Fidelity` for their meaning.

    Attributes:
        relative: ``max_abs`` over max(1, largest absolute reference value).
    """

    n: int
    max_abs: float
    mean_abs: float
    cosine: float
    agreement: float
    relative: float

    def missed(self, precision: str) -> str | None:
        """Why these figures are not good enough for a precision, or None."""
        if not np.isfinite(self.max_abs):
            return "an output is not finite"
        if self.relative > MAX_ABS[precision]:
            return f"max |difference| {self.max_abs:.3g} is above {MAX_ABS[precision]:g} of the largest value"
        if self.cosine < MIN_COSINE[precision]:
            return f"cosine {self.cosine:.6f} is below {MIN_COSINE[precision]:g}"
        return None


def compare(reference: Arrays, outputs: Arrays, spec: ModelSpec) -> Parity:
    """Compare outputs with a reference of the same names and shapes, batch first.

    ``cosine`` is the smallest over the inputs of ``a·b / (|a| |b|)`` on all outputs of one input,
    1 where both are zero. The decision of an input is its argmax, or with one score its side of the
    threshold.

    Raises:
        InputError: Names or shapes differ.
    """
    for name, expected in reference.items():
        if name not in outputs:
            raise InputError(f"output {name} is missing; there are {', '.join(outputs) or 'none'}")
        if outputs[name].shape != expected.shape:
            raise InputError(
                f"output {name}: shape {outputs[name].shape}, the reference has {expected.shape}"
            )
    n = len(next(iter(reference.values())))
    a = np.concatenate([v.reshape(n, -1) for v in reference.values()], axis=1).astype(np.float64)
    b = np.concatenate([outputs[k].reshape(n, -1) for k in reference], axis=1).astype(np.float64)
    difference = np.abs(a - b)
    max_abs = float(difference.max(initial=0.0))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    equal = np.all(a == b, axis=1)
    cosines = np.where(equal, 1.0, np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1.0))
    return Parity(
        n=n,
        max_abs=max_abs,
        mean_abs=float(difference.mean()) if difference.size else 0.0,
        cosine=float(np.clip(cosines, -1.0, 1.0).min()),
        agreement=_agreement(reference, outputs, spec),
        relative=max_abs / max(1.0, float(np.abs(a).max(initial=0.0))),
    )


def _agreement(reference: Arrays, outputs: Arrays, spec: ModelSpec) -> float:
    name = spec.output or next(iter(reference))
    expected, actual = reference[name], outputs[name]
    n = len(expected)
    expected, actual = expected.reshape(n, -1), actual.reshape(n, -1)
    if expected.shape[1] == 1:
        same = (expected >= spec.threshold) == (actual >= spec.threshold)
        return float(same.mean())
    return float((expected.argmax(axis=1) == actual.argmax(axis=1)).mean())
