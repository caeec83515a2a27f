"""Outputs of a detector to detections in the frame: head, thresholds, geometry, suppression."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgecnn.errors import EngineError, InputError
from edgecnn.results import Detections
from edgecnn.spec import ModelSpec, PriorMap
from edgecnn.vision.boxes import Boxes, as_boxes, clip_boxes, size_mask
from edgecnn.vision.decode import detected, survivors
from edgecnn.vision.fusion import fuse_boxes
from edgecnn.vision.soft_suppression import SoftMethod, soft_nms
from edgecnn.vision.ssd import decode_ssd, prior_boxes
from edgecnn.vision.yolo import decode_fastestdet, decode_yolo_columns, decode_yolo_rows

__all__ = ["ToSource", "batch_scores", "decode_detections", "decode_in_input", "each_frame", "read_head"]

Arrays = Mapping[str, npt.NDArray[Any]]
Head = tuple[Boxes, npt.NDArray[np.float32]]
ToSource = Callable[[npt.ArrayLike], Boxes]


def decode_detections(
    outputs: Arrays, spec: ModelSpec, to_source: ToSource, frame_hw: tuple[int, int]
) -> Detections:
    """Outputs of one frame to detections.

    A box is of its best class only (nothing where that is the background), or with ``spec.multi_label`` of
    each class that reaches its threshold. Boxes go back to the frame, are cut at its border, and those of
    which nothing is left are dropped before they suppress one another.

    Args:
        outputs: Arrays by name, without the batch axis, in the model's order.
        spec: decoder, output, priors, multi_label, background, thresholds, nms and limits count.
        to_source: Boxes (n, 4) in input pixels to source pixels, such as `FrameTransform.to_source`.
        frame_hw: Height and width of the frame.

    Returns:
        Boxes inside the frame, none empty, best first; ``timing_ms`` has ``nms``.

    Raises:
        InputError: The outputs are not those of the decoder.
        EngineError: An output is not finite.
    """
    boxes, scores = read_head(outputs, spec)
    rows, class_ids = detected(scores, spec)
    found = clip_boxes(to_source(boxes[rows]), frame_hw).astype(np.float32)
    there = size_mask(found)
    values, class_ids = scores[rows, class_ids][there], class_ids[there]
    start = time.perf_counter()
    found, values, class_ids = _suppressed(found[there], values, class_ids, spec)
    timing_ms = {"nms": (time.perf_counter() - start) * 1e3}
    return Detections(found, values, class_ids, tuple(spec.label(int(i)) for i in class_ids), timing_ms)


def decode_in_input(outputs: Arrays, spec: ModelSpec) -> Detections:
    """As `decode_detections`, of a frame that is the model's input itself."""
    return decode_detections(outputs, spec, as_boxes, spec.size_hw)


def each_frame(outputs: Arrays) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The outputs of a batch, frame by frame, without the batch axis."""
    for frame in zip(*outputs.values()):
        yield dict(zip(outputs, frame))


def read_head(outputs: Arrays, spec: ModelSpec) -> Head:
    """Boxes and class scores as the spec's decoder reads them.

    Args:
        outputs: As `decode_detections`.
        spec: decoder, output, priors, size_hw, labels and background count.

    Returns:
        boxes_xyxy (n, 4) in input pixels, not clipped, and float32 scores (n, K).

    Raises:
        InputError: The outputs are not those of the decoder, or not as many classes as labels.
        EngineError: An output is not finite.
    """
    name = spec.output if spec.output is not None else next(iter(outputs), "")
    if name not in outputs:
        raise InputError(f"output {name!r} is not among the model's: {', '.join(outputs) or 'it has none'}")
    others = [array for key, array in outputs.items() if key != name] if spec.decoder == "ssd" else []
    if spec.decoder == "ssd" and len(others) != 1:
        raise InputError(
            f"decoder 'ssd' reads class scores and locations; the model gives {', '.join(outputs)}"
        )
    if not all(np.isfinite(array).all() for array in (outputs[name], *others)):
        raise EngineError(f"output {name!r} is not finite; see edgecnn verify, or use a higher precision")
    try:
        boxes, scores = _decoded(outputs[name], others, spec)
    except InputError as error:
        raise InputError(f"output {name!r}: {error}") from error
    count = scores.shape[1]
    if spec.labels and count != len(spec.labels):
        raise InputError(f"output {name!r} has {count} classes but the spec has {len(spec.labels)} labels")
    if spec.background is not None and spec.background >= count:
        raise InputError(f"background is class {spec.background} but output {name!r} has {count} classes")
    return boxes, scores.astype(np.float32, copy=False)


def batch_scores(outputs: Arrays, spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Class scores (N, n, K) of a batch; errors as `read_head`."""
    return np.stack([read_head(frame, spec)[1] for frame in each_frame(outputs)])


def _decoded(
    head: npt.NDArray[Any], others: list[npt.NDArray[Any]], spec: ModelSpec
) -> tuple[Boxes, npt.NDArray[np.floating[Any]]]:
    if spec.decoder == "yolo_anchor_free":
        return decode_yolo_columns(head)
    if spec.decoder == "yolo_anchor_based":
        return decode_yolo_rows(head)
    if spec.decoder == "fastestdet":
        return decode_fastestdet(head, spec.size_hw)
    return decode_ssd(others[0], head, _priors(spec.size_hw, spec.priors))


@lru_cache(maxsize=8)
def _priors(size_hw: tuple[int, int], maps: tuple[PriorMap, ...]) -> npt.NDArray[np.float32]:
    return np.concatenate([prior_boxes(size_hw, each.stride, each.sizes_wh) for each in maps])


def _suppressed(
    boxes: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    class_ids: npt.NDArray[np.int64],
    spec: ModelSpec,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Boxes, scores and class ids that are left, best first, by the method that the spec asks for."""
    if spec.nms_method == "hard":
        keep = survivors(boxes, values, class_ids, spec)
        return boxes[keep], values[keep], class_ids[keep]
    groups = class_ids if spec.nms == "per_class" else None
    if spec.nms_method == "fusion":
        keep, fused, means = fuse_boxes(
            boxes, values, groups, iou=spec.nms_iou, max_detections=spec.max_detections
        )
        return fused, means, class_ids[keep]
    keep, lowered = soft_nms(
        boxes,
        values,
        groups,
        method=cast(SoftMethod, spec.nms_method.removeprefix("soft_")),
        iou=spec.nms_iou,
        threshold=[spec.threshold_of(int(i)) for i in class_ids],
        max_detections=spec.max_detections,
    )
    return boxes[keep], lowered, class_ids[keep]
