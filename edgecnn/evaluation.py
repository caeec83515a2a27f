"""How good a model is on images whose answers are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.auto import open_model
from edgecnn.bundle import Bundle
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.errors import InputError
from edgecnn.inference import Inference
from edgecnn.loading import open_bundle
from edgecnn.metrics import (
    IOU_THRESHOLDS,
    average_precision,
    class_figures,
    confusion_matrix,
    count_detections,
    top_k_accuracy,
    true_ranks,
)
from edgecnn.results import Detections
from edgecnn.runtimes import Runtime
from edgecnn.spec import ModelSpec
from edgecnn.vision.decode import class_scores, decode_windows
from edgecnn.vision.detection import decode_detections, each_frame
from edgecnn.vision.geometry import fit

__all__ = ["Evaluation", "Evaluator", "evaluate", "evaluate_runtime"]

Progress = Callable[[int, int], None]

IMAGES_A_BATCH = 16
KEPT_BYTES = 256_000_000
# average precision wants the tail below the threshold in use; windows of background that score less than
# this come so late in the ranking that they would only cost time
LOWEST_SCORE = 0.02
AT_50, AT_75 = (int(np.abs(IOU_THRESHOLDS - iou).argmin()) for iou in (0.5, 0.75))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one model on one dataset.

    Attributes:
        n: Number of images.
        metrics: ``top1`` and ``top5``; or ``ap50``, ``ap``, ``ap75``, ``recall`` and
            ``false_positives_per_image``. The first one is the main one.
        per_class: One dict a class, in the order of the class ids: ``class_id``, ``label``, ``support``, and
            ``precision``, ``recall``, ``f1``; or, of the classes that the data annotates, ``ap``, ``ap50``
            (None where there is no object), ``recall``, ``false_positives``.
        confusion: int64 (K, K), rows the truth, columns the prediction; None for detection.
        labels: Names of the K classes.
    """

    n: int
    metrics: dict[str, float]
    per_class: tuple[dict[str, Any], ...]
    confusion: npt.NDArray[np.int64] | None
    labels: tuple[str, ...]

    @property
    def primary(self) -> str:
        """Name of the main metric: ``top1`` or ``ap50``."""
        return next(iter(self.metrics))

    @property
    def value(self) -> float:
        """The main metric, in 0..1."""
        return self.metrics[self.primary]

    def to_json(self) -> dict[str, Any]:
        """``{"n", "metrics", "per_class"}``, and of a classifier ``"confusion"``: its counts above 0.

        A matrix of a thousand classes has a million entries, of which few are not 0.
        """
        built: dict[str, Any] = {"n": self.n, "metrics": self.metrics, "per_class": list(self.per_class)}
        if self.confusion is not None:
            built["confusion"] = [
                {"truth": int(i), "prediction": int(j), "count": int(self.confusion[i, j])}
                for i, j in np.argwhere(self.confusion)
            ]
        return built


def evaluate(
    bundle: str | os.PathLike[str] | Bundle,
    data: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    limit: int | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a bundle on labelled images.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships.
        data: A folder with one folder a class, a CSV or COCO JSON; see `edgecnn.datasets.open_dataset`.
        runtime: Name of a runtime, or ``auto``.
        precision: ``fp32``, ``fp16``, ``int8``, or ``auto``; see `open_model`.
        threads: Threads of one inference; None uses the processors this process may use.
        limit: At most this many images, taken evenly over all.
        on_progress: Called with the number of images done and the number of all.

    Raises:
        BundleError: The bundle is missing, altered or unsafe.
        MediaError: The data is missing, empty, or an image cannot be read.
        InputError: The data does not fit the model.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle)
    spec = opened.manifest.spec
    dataset = open_dataset(data, spec)
    if limit is not None:
        dataset = dataset.spread(limit)
    # one engine for all images
    with open_model(
        opened, runtime=runtime, precision=precision, threads=threads, on_stale="wait", dense=True
    ) as model:
        return evaluate_runtime(model, spec, dataset, on_progress=on_progress)


def evaluate_runtime(
    runtime: Runtime, spec: ModelSpec, dataset: Dataset[Any], *, on_progress: Progress | None = None
) -> Evaluation:
    """Evaluate one loaded model; use an `Evaluator` for several on the same data."""
    return Evaluator(spec, dataset)(runtime, on_progress=on_progress)


class Evaluator:
    """Evaluates models of one spec on one dataset, reading the images once as far as memory allows.

    Of what the first evaluation reads it keeps up to 256 MB: for classification the fitted inputs,
    for detection the frames.
    """

    def __init__(self, spec: ModelSpec, dataset: Dataset[Any]) -> None:
        """Take a spec and a dataset that `open_dataset` opened for it.

        Raises:
            InputError: There is no object that a detector could find.
        """
        if spec.finds_boxes and all(truth.ignored.all() for truth in dataset.truths):
            raise InputError(f"{dataset.name}: its {len(dataset)} images hold no object to find")
        self.spec = spec
        self.dataset = dataset
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}
        self._room = KEPT_BYTES

    def __call__(self, runtime: Runtime, *, on_progress: Progress | None = None) -> Evaluation:
        """Evaluate one loaded model.

        Args:
            runtime: The model.
            on_progress: Called with the number of images done and the number of all.

        Raises:
            MediaError: An image cannot be read.
            InputError: The model's outputs, the spec and the dataset do not fit together.
            EngineError: A score is not finite, or the engine failed.
        """
        inference = Inference(runtime, self.spec)
        report = on_progress or (lambda done, total: None)
        if self.spec.finds_boxes:
            return self._detection(inference, report)
        return self._classification(inference, report)

    def _classification(self, inference: Inference, report: Progress) -> Evaluation:
        class_ids = self.dataset.truths
        size = inference.batch(IMAGES_A_BATCH)
        ranks, predicted, classes = [], [], 0
        images = self._images(lambda frame: fit(frame, self.spec)[0])
        for start in range(0, len(self.dataset), size):
            stop = min(start + size, len(self.dataset))
            batch = np.stack([next(images) for _ in range(start, stop)])
            scores = class_scores(inference.infer(batch), self.spec)
            if not classes:
                classes = scores.shape[1]
                self._check_classes(classes)
            ranks.append(true_ranks(scores, np.array(class_ids[start:stop])))
            predicted.append(scores.argmax(axis=1))
            report(stop, len(self.dataset))
        rank = np.concatenate(ranks)
        confusion = confusion_matrix(np.array(class_ids), np.concatenate(predicted), classes)
        figures = class_figures(confusion)
        columns = {name: getattr(figures, name).tolist() for name in ("support", "precision", "recall", "f1")}
        labels = self.dataset.labels or tuple(self.spec.label(i) for i in range(classes))
        metrics = {f"top{k}": top_k_accuracy(rank, k) for k in (1, 5)}
        rows = _rows(range(classes), labels, columns)
        return Evaluation(len(self.dataset), metrics, rows, confusion, labels)

    def _check_classes(self, classes: int) -> None:
        name, truths, labels = self.dataset.name, self.dataset.truths, self.dataset.labels
        if classes == 1:
            raise InputError("the model gives one score an image: accuracy needs a score for each class")
        if labels and len(labels) != classes:
            raise InputError(
                f"{name}: {len(labels)} folders, but the model has {classes} classes and no labels; "
                "name the folders by class id"
            )
        if max(truths) >= classes:
            file = self.dataset.files[truths.index(max(truths))]
            raise InputError(f"{name}: {file} is of class {max(truths)}, but the model has {classes} classes")

    def _detection(self, inference: Inference, report: Progress) -> Evaluation:
        spec, truths, total = self.spec, self.dataset.truths, len(self.dataset)
        low = spec.replace(threshold=min(spec.threshold, LOWEST_SCORE), class_thresholds={})
        ranked, reported = [], []
        for i, frame in enumerate(self._images(lambda frame: frame)):
            try:
                decode = _decoder(inference, frame)
            except InputError as error:
                raise type(error)(f"{self.dataset.files[i]}: {error}") from error
            ranked.append(decode(low))
            reported.append(decode(spec))
            report(i + 1, total)
        judged = self.dataset.annotated
        ap = average_precision(ranked, truths, len(spec.labels))
        counts = count_detections(reported, truths, len(spec.labels))
        there = counts.objects > 0
        metrics = {
            "ap50": float(ap[AT_50, there].mean()),
            "ap": float(ap[:, there].mean()),
            "ap75": float(ap[AT_75, there].mean()),
            "recall": float(counts.found.sum() / counts.objects.sum()),
            "false_positives_per_image": float(counts.false_positives[list(judged)].sum() / total),
        }
        columns = {
            "support": counts.objects.tolist(),
            "ap": [_figure(value) for value in ap.mean(axis=0)],
            "ap50": [_figure(value) for value in ap[AT_50]],
            "recall": (counts.found / np.maximum(counts.objects, 1)).tolist(),
            "false_positives": counts.false_positives.tolist(),
        }
        return Evaluation(total, metrics, _rows(judged, spec.labels, columns), None, spec.labels)

    def _images(
        self, prepare: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """What the model is given of each image, kept from an earlier evaluation or read now."""
        for i in range(len(self.dataset)):
            image = self._kept.get(i)
            if image is None:
                image = prepare(self.dataset.frame(i))
                if image.nbytes <= self._room:
                    self._room -= image.nbytes
                    self._kept[i] = image
            yield image


def _decoder(inference: Inference, frame: npt.NDArray[np.uint8]) -> Callable[[ModelSpec], Detections]:
    """Run a frame, and give what tells its detections by the thresholds of a spec."""
    if inference.spec.task == "detection":
        image, transform = fit(frame, inference.spec)
        (outputs,) = each_frame(inference.infer(image[None]))
        return lambda spec: decode_detections(outputs, spec, transform.to_source, transform.source_hw)
    windows, size_hw = inference.score_windows(frame), (frame.shape[0], frame.shape[1])
    return lambda spec: decode_windows(windows.scores, windows.boxes_xyxy, spec, size_hw)


def _rows(
    class_ids: Iterable[int], labels: Sequence[str], columns: dict[str, list[Any]]
) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"class_id": i, "label": labels[i], **{name: column[i] for name, column in columns.items()}}
        for i in class_ids
    )


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
