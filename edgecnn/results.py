"""What a predictor returns: small frozen values in source pixels, best first."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MissingDependency

__all__ = ["Classification", "Detections", "Result", "Tensors"]

Index = int | slice | Sequence[int] | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]


def _labels(labels: Sequence[str], count: int) -> tuple[str, ...]:
    if len(labels) != count:
        raise InputError(f"{len(labels)} labels for {count} results")
    return tuple(labels)


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one frame.

    Attributes:
        boxes: float32 (n, 4), x1 y1 x2 y2 in source pixels, inside the frame; x right, y down,
            the pixel (0, 0) covers 0..1 on both axes.
        scores: float32 (n,), in 0..1, highest first.
        class_ids: int64 (n,), 0-based.
        labels: n names, one a box.
        timing_ms: Milliseconds a stage took, where it was measured.

    Raises:
        InputError: The lengths disagree.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    timing_ms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        scores = np.asarray(self.scores, np.float32).reshape(-1)
        class_ids = np.asarray(self.class_ids, np.int64).reshape(-1)
        if not len(boxes) == len(scores) == len(class_ids):
            raise InputError(f"{len(boxes)} boxes, {len(scores)} scores and {len(class_ids)} class ids")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "class_ids", class_ids)
        object.__setattr__(self, "labels", _labels(self.labels, len(boxes)))

    @classmethod
    def empty(cls) -> Detections:
        """No boxes at all."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), ())

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float32], float, int, str]]:
        """Box, score, class id and label of one box after the other."""
        return zip(self.boxes, self.scores.tolist(), self.class_ids.tolist(), self.labels)

    def __getitem__(self, index: Index) -> Detections:
        """The boxes at a number, slice, list of numbers or boolean mask, as a new object."""
        chosen = np.atleast_1d(np.arange(len(self))[index])
        labels = tuple(self.labels[i] for i in chosen)
        return Detections(
            self.boxes[chosen], self.scores[chosen], self.class_ids[chosen], labels, dict(self.timing_ms)
        )

    def to_json(self) -> dict[str, Any]:
        """``{"detections": [{"box", "score", "class_id", "label"}…]}``, ready for json.dumps."""
        return {
            "detections": [
                {
                    "box": [round(float(v), 2) for v in box],
                    "score": round(score, 5),
                    "class_id": class_id,
                    "label": label,
                }
                for box, score, class_id, label in self
            ]
        }

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO result records: bbox is x, y, width, height and category_id the class id."""
        return [
            {
                "image_id": image_id,
                "category_id": class_id,
                "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
                "score": score,
            }
            for b, score, class_id, _ in self
        ]

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` of the same boxes.

        Raises:
            MissingDependency: The package supervision cannot be imported; says why.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError as error:
            raise MissingDependency(
                f"supervision could not be imported ({error}); try: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.copy(),
            data={"class_name": np.array(self.labels, dtype=str)},
        )


@dataclass(frozen=True, eq=False)
class Classification:
    """Classes of one frame, best first.

    Attributes:
        class_ids: int64 (k,), 0-based.
        scores: float32 (k,).
        labels: k names.
        timing_ms: Milliseconds a stage took, where it was measured.
    """

    class_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    timing_ms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, np.float32).reshape(-1)
        class_ids = np.asarray(self.class_ids, np.int64).reshape(-1)
        if len(scores) != len(class_ids):
            raise InputError(f"{len(scores)} scores and {len(class_ids)} class ids")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "class_ids", class_ids)
        object.__setattr__(self, "labels", _labels(self.labels, len(scores)))

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[int, float, str]]:
        """Class id, score and label of one class after the other."""
        return zip(self.class_ids.tolist(), self.scores.tolist(), self.labels)

    def to_json(self) -> dict[str, Any]:
        """``{"classes": [{"class_id", "score", "label"}…]}``, ready for json.dumps."""
        return {
            "classes": [
                {"class_id": class_id, "score": round(score, 5), "label": label}
                for class_id, score, label in self
            ]
        }


@dataclass(frozen=True, eq=False)
class Tensors:
    """Outputs of a model that has no decoder, by name, for one frame (no batch axis).

    Attributes:
        arrays: The outputs in the model's order.
        timing_ms: Milliseconds a stage took, where it was measured.
    """

    arrays: dict[str, npt.NDArray[Any]]
    timing_ms: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]

    def to_json(self) -> dict[str, Any]:
        """Shapes and dtypes only: the values belong in an array file."""
        return {
            "tensors": {
                name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in self.arrays.items()
            }
        }


Result = Detections | Classification | Tensors
