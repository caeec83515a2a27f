"""Whole heads to detections: each decoder, thresholds, geometry both ways, each way to suppress."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ModelSpec, PriorMap
from edgecnn.errors import EngineError, InputError
from edgecnn.vision import convert_boxes, decode_detections, each_frame, encode_offsets, fit, prior_boxes
from edgecnn.vision.boxes import as_boxes

SIZE = (64, 96)
PRIORS = (PriorMap(stride=32, sizes_wh=((20, 30), (40, 10))), PriorMap(stride=64, sizes_wh=((60, 60),)))
# near one another, of two classes; another place; one of which nothing lies in the input
BOXES = np.array([[10, 10, 30, 30], [11, 10, 31, 30], [50, 40, 80, 60], [200, 10, 220, 30]], np.float32)
SCORES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.55], [0.95, 0.0]], np.float32)


def detector(**fields: Any) -> ModelSpec:
    return ModelSpec(
        **{
            "task": "detection",
            "size_hw": SIZE,
            "decoder": "yolo_anchor_free",
            "labels": ("a", "b"),
            **fields,
        }
    )


def columns(boxes: Any, scores: Any) -> dict[str, npt.NDArray[np.float32]]:
    """What an anchor-free head gives for them."""
    table = np.concatenate([convert_boxes(boxes, "xyxy", "cxcywh"), scores], axis=1)
    return {"head": table.T.astype(np.float32)}


def decoded(spec: ModelSpec, boxes: Any = BOXES, scores: Any = SCORES) -> Any:
    return decode_detections(columns(boxes, scores), spec, as_boxes, SIZE)


def test_best_class_of_each_box_inside_the_frame() -> None:
    found = decoded(detector())
    assert found.boxes.tolist() == BOXES[:3].tolist()
    assert found.labels == ("a", "b", "a")
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.6])


def test_every_class_with_multi_label() -> None:
    found = decoded(detector(multi_label=True))
    assert found.class_ids.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.6, 0.55])


def test_thresholds_of_single_classes_and_the_background() -> None:
    assert decoded(detector(class_thresholds={"b": 0.85})).labels == ("a", "a")
    assert decoded(detector(background=0)).labels == ("b",)


def test_what_lies_outside_suppresses_nothing() -> None:
    """Cut to the frame, the last box would be a line on the border of the one before it."""
    boxes = np.array([[90, 0, 200, 64], [97, 0, 200, 64]])
    found = decoded(detector(), boxes, [[0.6, 0], [0.9, 0]])
    assert found.boxes.tolist() == [[90, 0, 96, 64]]


@pytest.mark.parametrize(
    ("fields", "labels", "scores"),
    [
        ({"nms": "class_agnostic"}, ("a", "a"), [0.9, 0.6]),
        ({"max_detections": 1}, ("a",), [0.9]),
        # the neighbour overlaps by 380 / 420
        (
            {"nms_method": "soft_linear", "nms": "class_agnostic", "threshold": 0.07},
            ("a", "a", "b"),
            [0.9, 0.6, 0.8 * 40 / 420],
        ),
        (
            {"nms_method": "soft_gaussian", "nms": "class_agnostic", "threshold": 0.1},
            ("a", "a", "b"),
            [0.9, 0.6, 0.8 * np.exp(-((380 / 420) ** 2) / 0.5)],
        ),
        ({"nms_method": "soft_gaussian", "nms": "class_agnostic"}, ("a", "a"), [0.9, 0.6]),
        ({"nms_method": "fusion", "nms": "class_agnostic"}, ("a", "a"), [0.85, 0.6]),
        ({"nms_method": "fusion"}, ("a", "b", "a"), [0.9, 0.8, 0.6]),
    ],
)
def test_ways_to_suppress(fields: dict[str, Any], labels: tuple[str, ...], scores: list[float]) -> None:
    found = decoded(detector(**fields))
    assert found.labels == labels
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)


def test_fused_boxes_are_the_mean() -> None:
    found = decoded(detector(nms_method="fusion", nms="class_agnostic"))
    left = (10 * 0.9 + 11 * 0.8) / 1.7
    np.testing.assert_allclose(found.boxes[0], [left, 10, left + 20, 30], rtol=1e-6)


def heads(boxes: npt.NDArray[Any], classes: npt.NDArray[Any]) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Boxes and class scores as each decoder has them; objectness is 1, priors the nearest at hand."""
    centred = convert_boxes(boxes, "xyxy", "cxcywh")
    priors = np.concatenate([prior_boxes(SIZE, each.stride, each.sizes_wh) for each in PRIORS])
    rows = np.arange(len(boxes)) % len(priors)
    locations, scores = np.zeros((len(priors), 4)), np.zeros((len(priors), classes.shape[1]))
    locations[rows], scores[rows] = encode_offsets(boxes, priors[rows], (0.1, 0.2)), classes
    ones = np.ones((len(boxes), 1))
    return {
        "yolo_anchor_free": columns(boxes, classes),
        "yolo_anchor_based": {"head": np.concatenate([centred, ones, classes], axis=1)},
        "ssd": {"scores": scores, "locations": locations},
    }


@given(
    st.sampled_from(["stretch", "letterbox", "center_crop"]),
    st.tuples(st.integers(20, 300), st.integers(20, 300)),
    st.integers(0, 2**32 - 1),
)
def test_boxes_in_the_frame_come_back_from_the_input(resize: Any, frame_hw: Any, seed: int) -> None:
    """Encoded as each head has them, in the geometry that `fit` laid the frame into."""
    rng, (height, width) = np.random.default_rng(seed), frame_hw
    boxes = np.sort(rng.uniform(0, 1, (4, 2, 2)), axis=1).reshape(4, 4) * np.tile((width - 3, height - 3), 2)
    boxes[:, 2:] += 2
    classes = rng.uniform(0.5, 1, (4, 2))
    spec = detector(resize=resize, nms_iou=1.0)
    _, transform = fit(np.zeros((*frame_hw, 3), np.uint8), spec)
    order = np.argsort(-classes.max(axis=1))
    for decoder, outputs in heads(transform.to_input(boxes), classes).items():
        spec = spec.replace(decoder=decoder, priors=PRIORS if decoder == "ssd" else ())
        found = decode_detections(outputs, spec, transform.to_source, transform.source_hw)
        np.testing.assert_allclose(found.boxes, boxes[order], atol=0.01)
        np.testing.assert_array_equal(found.class_ids, classes.argmax(axis=1)[order])


def test_frames_of_a_batch() -> None:
    frames = list(each_frame({"a": np.arange(4).reshape(2, 2), "b": np.arange(2)}))
    assert [(frame["a"].tolist(), int(frame["b"])) for frame in frames] == [([0, 1], 0), ([2, 3], 1)]


@pytest.mark.parametrize(
    ("spec", "outputs", "message"),
    [
        (detector(), {}, "output '' is not among the model's: it has none"),
        (detector(output="x"), {"a": np.zeros((6, 1))}, "output 'x' is not among the model's: a"),
        (detector(), {"a": np.zeros((7, 1))}, "output 'a' has 3 classes but the spec has 2 labels"),
        (detector(), {"a": np.zeros((4, 1))}, r"output 'a': columns are \(4 \+ classes, n\), not \(4, 1\)"),
        (
            detector(labels=(), background=3),
            {"a": np.zeros((6, 1))},
            "background is class 3 but output 'a' has 2 classes",
        ),
        (
            detector(decoder="ssd", priors=PRIORS),
            {"a": np.zeros((6, 1))},
            "decoder 'ssd' reads class scores and locations; the model gives a",
        ),
        (
            detector(decoder="ssd", priors=PRIORS),
            {"a": np.zeros((5, 2)), "b": np.zeros((5, 4))},
            r"output 'a': 5 locations and class scores of shape \(5, 2\) for 14 priors",
        ),
    ],
)
def test_outputs_of_another_head_are_refused(spec: ModelSpec, outputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_detections(outputs, spec, as_boxes, SIZE)


def test_outputs_that_are_not_numbers_are_an_engine_error() -> None:
    outputs = {"scores": np.zeros((14, 2)), "locations": np.full((14, 4), np.nan)}
    with pytest.raises(EngineError, match="output 'scores' is not finite"):
        decode_detections(outputs, detector(decoder="ssd", priors=PRIORS), as_boxes, SIZE)
