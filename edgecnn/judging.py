"""What an accuracy budget is held against: a metric on labelled data, or agreement with the float model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.calibration import Samples, draw_samples
from edgecnn.calibration.data import FrameSource
from edgecnn.calibration.search import within
from edgecnn.datasets import open_dataset
from edgecnn.errors import InputError
from edgecnn.evaluation import Evaluator
from edgecnn.parity import agreement
from edgecnn.runtimes import Outputs, Runtime
from edgecnn.spec import ModelSpec
from edgecnn.vision.decode import class_scores

__all__ = ["Judge", "judge_for", "outputs_of", "pool", "telling_rows"]

BATCH = 16
# windows or frames that decisions are compared on where there are no labels
SAMPLES_MAX = 1000
# objects are rare among windows: of so many drawn, one is kept
WINDOWS_A_SAMPLE = 8
LABELLED_SUFFIXES = (".csv", ".json")

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Judge:
    """Gives a model of one spec its mark.

    Attributes:
        metric: ``top1``, ``ap50`` or ``agreement``.
        source: The data, in words.
        n: Number of images.
        measure: Marks a loaded model: 0..1, more is better.
        fp32: The mark of the float model.
    """

    metric: str
    source: str
    n: int
    measure: Callable[[Runtime], float]
    fp32: float

    def missed(self, mark: float, max_drop: float | None) -> str:
        """How a mark misses a budget, or nothing."""
        drop = self.fp32 - mark
        if max_drop is None or within(drop, max_drop):
            return ""
        return (
            f"{self.metric} drops by {drop:.4f} ({self.fp32:.4f} to {mark:.4f}), the budget is {max_drop:g}"
        )


def judge_for(
    evaluation: FrameSource | None,
    spec: ModelSpec,
    float_model: Runtime,
    samples: Samples,
    *,
    on_progress: OnProgress | None = None,
) -> Judge:
    """The judge for a kind of evaluation data.

    Args:
        evaluation: A labelled dataset (a folder with a folder a class, CSV, COCO JSON), or anything that
            samples can be drawn from, whose decisions are compared with those of the float model; None
            compares on the calibration samples.
        spec: Of the converted model.
        float_model: The model that all others are compared with.
        samples: The calibration samples.
        on_progress: Called with images done and all while the float model is measured.

    Raises:
        InputError: The data does not fit the model.
        MediaError: It is missing, or an image cannot be read.
    """
    if isinstance(evaluation, (str, os.PathLike)) and _is_labelled(Path(evaluation), spec):
        dataset = open_dataset(evaluation, spec)
        evaluator = Evaluator(spec, dataset)
        mark = evaluator(float_model, on_progress=on_progress)
        return Judge(mark.primary, dataset.name, mark.n, lambda model: evaluator(model).value, mark.value)
    if spec.task == "tensors":
        raise InputError(
            "outputs of the task 'tensors' are not decisions that can be compared; convert it to fp32 alone"
        )
    if evaluation is not None:
        samples = draw_samples(evaluation, spec, SAMPLES_MAX * pool(spec), seed=1)
        rows = telling_rows(outputs_of(float_model, samples.images), spec, SAMPLES_MAX)
        samples = replace(samples, images=samples.images[rows])
    reference = outputs_of(float_model, samples.images)
    return Judge(
        "agreement",
        samples.source,
        len(samples),
        lambda model: agreement(reference, outputs_of(model, samples.images), spec),
        1.0,
    )


def pool(spec: ModelSpec) -> int:
    """How many samples to draw for each that is kept by `telling_rows`."""
    return WINDOWS_A_SAMPLE if spec.task == "window_detection" else 1


def outputs_of(model: Runtime, images: npt.NDArray[np.uint8]) -> Outputs:
    """The outputs for images of any number, uint8 (n, h, w, c), in batches that the model takes."""
    name, batch = model.inputs[0].name, model.inputs[0].shape[0]
    step = batch if isinstance(batch, int) else BATCH
    parts = []
    for start in range(0, len(images), step):
        part = images[start : start + step]
        missing = step - len(part) if isinstance(batch, int) else 0
        # a batch that is not full is filled up with its last image
        fed = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        parts.append({key: value[: len(part)] for key, value in model.run({name: fed}).items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def telling_rows(outputs: Outputs, spec: ModelSpec, count: int) -> npt.NDArray[np.int64]:
    """Which windows to look at of many: in turns the best scored ones and others, evenly over all.

    Nearly all windows of a frame show nothing. A model that finds nothing would agree with the float model
    on them, and ranges that clip what an object looks like would seem harmless.

    Args:
        outputs: Of the float model for all windows.
        spec: Its spec; of other tasks than window detection all rows tell something.
        count: How many rows; all where there are no more.
    """
    scores = class_scores(outputs, spec) if spec.task == "window_detection" else np.empty((0, 0))
    n = len(next(iter(outputs.values())))
    if n <= count or not len(scores):
        every: npt.NDArray[np.int64] = np.linspace(0, n - 1, min(n, count)).round().astype(np.int64)
        return every
    if spec.background is not None:
        scores = np.delete(scores, spec.background, axis=1)
    order = np.argsort(-scores.max(axis=1), kind="stable")
    best, rest = order[: count // 2], np.sort(order[count // 2 :])
    others = rest[np.linspace(0, len(rest) - 1, count - len(best)).round().astype(np.int64)]
    rows = np.empty(count, np.int64)
    rows[1::2], rows[::2] = best, others
    return rows


def _is_labelled(path: Path, spec: ModelSpec) -> bool:
    if path.is_dir():
        return spec.task == "classification" and any(
            child.is_dir() and not child.name.startswith(".") for child in path.iterdir()
        )
    return path.suffix.lower() in LABELLED_SUFFIXES
