"""How far two runs of a model are apart, and when that is too far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.results import Detections
from edgecnn.spec import ModelSpec
from edgecnn.vision.boxes import iou_matrix
from edgecnn.vision.decode import reported
from edgecnn.vision.detection import decode_in_input, each_frame

__all__ = ["LIMITS", "Limits", "Parity", "agreement", "compare"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Limits:
    """What an artifact may differ from its reference.

    Attributes:
        error: Largest difference of an output, in units of the spread of its reference values.
        agreement: Smallest share of inputs with the same decision.
    """

    error: float
    agreement: float


# rounding of float32 moves an output by some 1e-5 of its spread; a wrong preprocessing, layer or
# order moves it by a tenth or more, also where probabilities are nearly flat
LIMITS = {
    "fp32": Limits(error=0.01, agreement=0.95),
    # the largest difference of many values says little of rounding; decisions do
    "fp16": Limits(error=1.0, agreement=0.95),
    "int8": Limits(error=float("inf"), agreement=0.8),
}

# where all reference values are equal the spread is nothing: then this share of their size counts
SPREAD_FLOOR = 1e-3
# IoU of two boxes of one object
SAME_BOX = 0.5


@dataclass(frozen=True)
class Parity:
    """Figures over n inputs; see `edgecnn.manifest.Fidelity` for most of them.

    Attributes:
        error: The largest difference of an output over the spread of its reference, the worst output.
        worst: Name of that output.
    """

    n: int
    max_abs: float
    mean_abs: float
    cosine: float
    agreement: float
    error: float
    worst: str

    def missed(self, precision: str) -> str | None:
        """Why these figures are not good enough for a precision that `LIMITS` knows, or None."""
        limits = LIMITS[precision]
        if not np.isfinite(self.error):
            return f"{self.worst} is not finite"
        if self.error > limits.error:
            return (
                f"{self.worst} differs by {self.error:.2g} of its spread (at most {limits.error:g}; "
                f"max difference {self.max_abs:.3g})"
            )
        if self.agreement < limits.agreement:
            return f"only {self.agreement:.1%} of the decisions agree (at least {limits.agreement:.0%})"
        return None


def compare(reference: Arrays, outputs: Arrays, spec: ModelSpec) -> Parity:
    """Compare outputs with a reference of the same names and shapes, batch first.

    Each output is judged on its own scale: ``error = max|a - b| / max(std(a), 0.001 max|a|)``, so that
    neither a large output nor a nearly flat one hides a wrong result. ``cosine`` is ``a·b / (|a| |b|)``
    over all inputs, the smallest of the outputs, 1 where both are equal. For decisions see `agreement`.

    Args:
        reference: Outputs by name, scores first unless spec.output names them.
        outputs: The same names and shapes.
        spec: output and threshold count.

    Raises:
        InputError: Names or shapes differ, or there is no output.
    """
    if not reference or not all(map(len, reference.values())):
        raise InputError("there is no reference output to compare with")
    if set(outputs) != set(reference):
        raise InputError(f"the outputs are {', '.join(outputs)}; the reference has {', '.join(reference)}")
    for name, expected in reference.items():
        if outputs[name].shape != expected.shape:
            raise InputError(
                f"output {name}: shape {outputs[name].shape}, the reference has {expected.shape}"
            )
    n = len(next(iter(reference.values())))
    a = np.concatenate([v.reshape(n, -1) for v in reference.values()], axis=1).astype(np.float64)
    b = np.concatenate([outputs[k].reshape(n, -1) for k in reference], axis=1).astype(np.float64)
    difference = np.abs(a - b)
    errors = {name: _error(expected, outputs[name]) for name, expected in reference.items()}
    worst = max(errors, key=lambda name: errors[name])
    return Parity(
        n=n,
        max_abs=float(difference.max(initial=0.0)),
        mean_abs=float(difference.mean()) if difference.size else 0.0,
        cosine=min(_cosine(reference[name], outputs[name]) for name in reference),
        agreement=agreement(reference, outputs, spec),
        error=errors[worst],
        worst=worst,
    )


def _error(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    if not np.isfinite(b).all():
        return float("inf")
    difference = np.abs(a - b).max(initial=0.0)
    if difference == 0:
        return 0.0
    spread = max(float(a.std()), SPREAD_FLOOR * float(np.abs(a).max()))
    return float(difference / spread) if spread > 0 else float("inf")


def _cosine(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    a, b = expected.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
    if np.array_equal(a, b):
        return 1.0
    if not np.isfinite(b).all():
        return 0.0
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / norms, -1.0, 1.0)) if norms > 0 else 0.0


def agreement(reference: Arrays, outputs: Arrays, spec: ModelSpec) -> float:
    """Share of the inputs with the same decision.

    The decision of a window is which classes it is reported as; of other inputs the argmax of the scores,
    or one score's side of the threshold. Of a detector, a frame counts by the share of boxes that both find
    there: ``2 m / (a + b)`` with m pairs of one class and an IoU of at least 0.5, or 1 where both find none.
    """
    if spec.task == "detection":
        if not all(np.isfinite(array).all() for array in outputs.values()):
            return 0.0
        found, again = (
            [decode_in_input(frame, spec) for frame in each_frame(each)] for each in (reference, outputs)
        )
        return float(np.mean([_same_boxes(a, b) for a, b in zip(found, again)]))
    name = spec.output or next(iter(reference))
    n = len(reference[name])
    expected, actual = (np.asarray(each[name], np.float32).reshape(n, -1) for each in (reference, outputs))
    if spec.task == "window_detection":
        return float((reported(expected, spec) == reported(actual, spec)).all(axis=1).mean())
    if expected.shape[1] == 1:
        same = (expected >= spec.threshold) == (actual >= spec.threshold)
        return float(same.mean())
    return float((expected.argmax(axis=1) == actual.argmax(axis=1)).mean())


def _same_boxes(a: Detections, b: Detections) -> float:
    if not len(a) and not len(b):
        return 1.0
    overlap = iou_matrix(a.boxes, b.boxes)
    overlap[a.class_ids[:, None] != b.class_ids] = 0
    pairs = 0
    for row in overlap if len(b) else ():
        nearest = int(row.argmax())
        if row[nearest] >= SAME_BOX:
            pairs += 1
            overlap[:, nearest] = 0
    return 2 * pairs / (len(a) + len(b))
