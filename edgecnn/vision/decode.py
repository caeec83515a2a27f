"""Model outputs to results. Scores arrive activated: the graph holds softmax or sigmoid."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import EngineError, InputError
from edgecnn.results import Classification, Detections
from edgecnn.spec import ModelSpec, WindowGeometry
from edgecnn.vision.boxes import as_boxes, clip_boxes, scale_boxes, size_mask
from edgecnn.vision.suppression import nms
from edgecnn.vision.voting import vote

__all__ = ["class_scores", "decode_windows", "top_k"]


def class_scores(outputs: Mapping[str, npt.NDArray[Any]], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Pick the scores among a model's outputs.

    Args:
        outputs: Arrays by name, in the model's order.
        spec: output (None: the first), labels and background count.

    Returns:
        float32 (N, K); K is 1 for an output (N,).

    Raises:
        InputError: No such output, not one score per class, or not as many as there are labels.
        EngineError: A score is not a finite number.
    """
    name = spec.output if spec.output is not None else next(iter(outputs), "")
    if name not in outputs:
        raise InputError(f"output {name!r} is not among the model's: {', '.join(outputs) or 'it has none'}")
    array = np.asarray(outputs[name])
    classes = [size for size in array.shape[1:] if size != 1]
    if array.ndim == 0 or len(classes) > 1:
        raise InputError(
            f"output {name!r} has shape {array.shape}: scores are (N,), (N, 1) or (N, K); "
            "choose another with spec.output"
        )
    count = classes[0] if classes else 1
    if spec.labels and count != len(spec.labels):
        raise InputError(f"output {name!r} has {count} classes but the spec has {len(spec.labels)} labels")
    if spec.background is not None and spec.background >= count:
        raise InputError(f"background is class {spec.background} but output {name!r} has {count} classes")
    scores = array.reshape(len(array), count).astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        raise EngineError(f"output {name!r} is not finite; see edgecnn verify, or use a higher precision")
    return scores


def top_k(scores: npt.NDArray[Any], spec: ModelSpec) -> Classification:
    """Rank the classes of one frame; equal scores stay in the order of their class ids.

    Args:
        scores: (K,), any sign.
        spec: top_k and labels count.
    """
    scores = np.asarray(scores, np.float32)
    if scores.ndim != 1:
        raise InputError(f"scores of one frame are (K,), not {scores.shape}")
    count = min(spec.top_k, len(scores))
    falling = -scores
    candidates = np.arange(len(scores))
    if count < len(scores):  # to sort a thousand classes takes longer than all else
        candidates = np.flatnonzero(~(falling > np.partition(falling, count - 1)[count - 1]))
    best = candidates[np.argsort(falling[candidates], kind="stable")][:count].astype(np.int64)
    return Classification(best, scores[best], tuple(spec.label(int(i)) for i in best))


def decode_windows(
    scores: npt.ArrayLike, boxes_xyxy: npt.ArrayLike, spec: ModelSpec, frame_hw: tuple[int, int]
) -> Detections:
    """Scored windows to detections: thresholds, box size, frame border, suppression, voting.

    A window shows its best class only (nothing where that is the background), or with
    ``spec.multi_label`` each of its classes that reaches its threshold. With ``window.box_voting`` every
    window then has a say, by its score for the class, in where the detections are; those that come to
    overlap are suppressed. Scores stay those of the best window.

    Args:
        scores: (N, K) probabilities.
        boxes_xyxy: (N, 4), the windows in source pixels.
        spec: multi_label, background, thresholds, window.box_scale, window.box_voting, nms and limits count.
        frame_hw: Height and width of the frame.

    Returns:
        Boxes inside the frame, none empty, best first; ``timing_ms`` has ``nms``, voting included.

    Raises:
        InputError: Scores and boxes disagree in number.
    """
    scores = np.asarray(scores, np.float32)
    boxes = as_boxes(boxes_xyxy, "boxes_xyxy")
    if scores.ndim != 2 or len(scores) != len(boxes):
        raise InputError(f"scores of shape {scores.shape} for {len(boxes)} windows, they are (N, K)")
    geometry = spec.window or WindowGeometry()
    if geometry.box_scale != 1:
        boxes = scale_boxes(boxes, geometry.box_scale)
    boxes = clip_boxes(boxes, frame_hw).astype(np.float32)
    rows, class_ids = detected(scores, spec)
    there = size_mask(boxes[rows])
    rows, class_ids = rows[there], class_ids[there]
    start = time.perf_counter()
    keep = survivors(boxes[rows], scores[rows, class_ids], class_ids, spec)
    rows, class_ids = rows[keep], class_ids[keep]
    found, values = boxes[rows], scores[rows, class_ids]
    if geometry.box_voting:
        for class_id in np.unique(class_ids):
            own = class_ids == class_id
            found[own] = vote(boxes, scores[:, class_id], rows[own])
        keep = survivors(found, values, class_ids, spec)
        found, values, class_ids = found[keep], values[keep], class_ids[keep]
    timing_ms = {"nms": (time.perf_counter() - start) * 1e3}
    labels = tuple(spec.label(int(i)) for i in class_ids)
    return Detections(found, values, class_ids, labels, timing_ms)


def survivors(
    boxes_xyxy: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    class_ids: npt.NDArray[np.int64],
    spec: ModelSpec,
) -> npt.NDArray[np.int64]:
    """Indices of the boxes that are left, best first, as the spec asks."""
    groups = class_ids if spec.nms == "per_class" else None
    return nms(boxes_xyxy, values, groups, spec.nms_iou, spec.max_detections)


def detected(
    scores: npt.NDArray[np.float32], spec: ModelSpec
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and classes that `reported` marks, row by row.

    Of thousands of rows a few reach a threshold at all: the others are passed over by their best score.
    """
    lowest = np.float32(min([spec.threshold, *spec.class_thresholds.values()]))
    able = np.flatnonzero(scores.max(axis=1) >= lowest)
    rows, class_ids = np.nonzero(reported(scores[able], spec))
    return able[rows], class_ids


def reported(scores: npt.NDArray[np.float32], spec: ModelSpec) -> npt.NDArray[np.bool_]:
    """Which classes of which windows are detections before suppression: (N, K), as the scores."""
    count = scores.shape[1]
    # in float32, as the scores: 0.7 in float64 is above the float32 that stands for it
    thresholds = np.array([spec.threshold_of(i) for i in range(count)], np.float32)
    passed = scores >= thresholds
    if spec.background is not None and spec.background < count:
        passed[:, spec.background] = False
    if not spec.multi_label and count > 1:
        passed &= np.arange(count) == scores.argmax(axis=1)[:, None]
    return np.asarray(passed, np.bool_)
