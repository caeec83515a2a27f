"""Average precision: by hand, and against pycocotools on boxes that are made to tie."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgecnn import Detections
from edgecnn.metrics import IOU_THRESHOLDS, Objects, average_precision, count_detections, match

UNIT = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def detections(boxes: Any, scores: Any, class_ids: Any = None) -> Detections:
    """Detections of one image, brought into their order."""
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    ids = np.zeros(len(order), np.int64) if class_ids is None else np.asarray(class_ids)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes[order], np.asarray(scores)[order], ids[order], tuple("x" for _ in order))


def objects(boxes: Any, ignored: Any = None, class_ids: Any = None) -> Objects:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    ids = np.zeros(len(boxes), np.int64) if class_ids is None else np.asarray(class_ids, np.int64)
    return Objects(boxes, ids, np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool))


@pytest.mark.parametrize(
    ("boxes", "truths", "ignored", "outcome"),
    [
        pytest.param([UNIT], [UNIT], [0], [1], id="found"),
        pytest.param([HALF], [UNIT], [0], [1], id="at the threshold"),
        pytest.param([FAR], [UNIT], [0], [0], id="elsewhere"),
        pytest.param([UNIT, UNIT], [UNIT], [0], [1, 0], id="found twice"),
        pytest.param([UNIT, UNIT], [UNIT], [1], [-1, -1], id="in a crowd"),
        pytest.param([UNIT, UNIT], [UNIT, UNIT], [1, 0], [1, -1], id="object before crowd"),
        pytest.param([UNIT], [[-100, -100, 100, 100]], [1], [-1], id="small in a large crowd"),
        pytest.param([HALF], [[0, 0, 10, 2.5]], [1], [-1], id="half in a crowd"),
        pytest.param([UNIT], [], [], [0], id="nothing there"),
        pytest.param([UNIT], [[0, 0, 0, 0]], [0], [0], id="empty object"),
    ],
)
def test_match(boxes: Any, truths: Any, ignored: Any, outcome: list[int]) -> None:
    truth = objects(truths, ignored)
    found = match(np.array(boxes, float), truth.boxes_xyxy, truth.ignored, np.array([0.5]))
    assert found.tolist() == [outcome]


def test_average_precision_by_hand() -> None:
    """Right, wrong, right of two objects: precision 1 up to recall 0.5 (51 points), then 2/3 (50)."""
    other = [100.0, 100.0, 110.0, 110.0]
    found, truths = [detections([UNIT, FAR, other], [0.9, 0.8, 0.7])], [objects([UNIT, other])]
    ap = average_precision(found, truths, 1)
    np.testing.assert_allclose(ap[:, 0], np.full(10, (51 + 50 * 2 / 3) / 101))


def test_class_without_objects_has_no_figure() -> None:
    ap = average_precision([detections([UNIT], [0.5], [1])], [objects([UNIT])], 3)
    assert ap[:, 0].tolist() == [0.0] * 10
    assert np.isnan(ap[:, 1:]).all()


def test_counts() -> None:
    found = [
        detections([UNIT, FAR, UNIT], [0.9, 0.8, 0.7], [0, 0, 1]),
        detections([], []),
        detections([UNIT, FAR], [0.6, 0.5], [1, 1]),
    ]
    truths = [objects([UNIT]), objects([UNIT]), objects([UNIT, FAR], [0, 1], [1, 1])]
    counts = count_detections(found, truths, 2)
    assert counts.objects.tolist() == [2, 1]
    assert counts.found.tolist() == [1, 1]
    assert counts.false_positives.tolist() == [1, 1]


def test_overlap_is_not_rounded_below_its_threshold() -> None:
    """An overlap of 13/20 is 0.65, which float32 would put below."""
    ap = average_precision([detections([[0, 0, 13, 1]], [0.9])], [objects([[0, 0, 20, 1]])], 1)
    assert ap[:, 0].tolist() == [float(iou <= 0.65 + 1e-9) for iou in IOU_THRESHOLDS]


def pycocotools_figures(
    found: list[Detections], truths: list[Objects], classes: int
) -> npt.NDArray[np.float64]:
    """(10, classes) of the reference; NaN where it has none."""
    annotations = [
        {
            "id": 0,
            "image_id": i,
            "category_id": int(class_id),
            "bbox": [*box[:2], *(box[2:] - box[:2])],
            "area": float(np.prod(box[2:] - box[:2])),
            "iscrowd": int(ignored),
        }
        for i, truth in enumerate(truths)
        for box, class_id, ignored in zip(truth.boxes_xyxy, truth.class_ids, truth.ignored)
    ]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": i} for i in range(classes)],
        }
        coco.createIndex()
        results = [row for i, each in enumerate(found) for row in each.to_coco(i)]
        judged = COCO()
        if results:
            judged = coco.loadRes(results)
        else:
            judged.dataset = {**coco.dataset, "annotations": []}
            judged.createIndex()
        run = COCOeval(coco, judged, "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]
    return np.asarray(np.where((precision > -1).all(axis=1), precision.mean(axis=1), np.nan))


def random_case(seed: int) -> tuple[list[Detections], list[Objects], int]:
    """Few places, sizes and scores, so that overlaps tie, sit on thresholds and scores repeat."""
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    crowds, levels = rng.choice([0.0, 0.3, 1.0]), int(rng.choice([2, 5, 1000]))

    def boxes(count: int) -> npt.NDArray[np.float64]:
        corner, size = rng.integers(0, 12, (count, 2)), rng.integers(1, 21, (count, 2))
        return np.concatenate([corner, corner + size], axis=1).astype(np.float64)

    found, truths = [], []
    for _ in range(images):
        there, seen = int(rng.integers(0, 8)), int(rng.integers(0, 30)) * int(rng.integers(0, 2))
        truth = objects(boxes(there), rng.random(there) < crowds, rng.integers(0, classes, there))
        near = truth.boxes_xyxy[rng.integers(0, there, seen)] if there else boxes(seen)
        guesses = np.where(rng.random((seen, 1)) < 0.6, near + rng.integers(-1, 2, (seen, 4)), boxes(seen))
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = rng.integers(1, levels + 1, seen) / levels
        found.append(detections(guesses, scores, rng.integers(0, classes, seen)))
        truths.append(truth)
    return found, truths, classes


def many_detections() -> tuple[list[Detections], list[Objects], int]:
    """More than count in one image; the object is found by the last that counts, or the one after."""
    boxes = np.array([FAR] * 99 + [UNIT] + [FAR] * 50, np.float64)
    late = np.array([FAR] * 100 + [UNIT] + [FAR] * 49, np.float64)
    scores = np.linspace(1, 0.1, 150)
    return [detections(boxes, scores), detections(late, scores)], [objects([UNIT]), objects([UNIT])], 1


@pytest.mark.parametrize("seed", range(150))
def test_equals_pycocotools(seed: int) -> None:
    found, truths, classes = random_case(seed)
    ours = average_precision(found, truths, classes)
    np.testing.assert_allclose(ours, pycocotools_figures(found, truths, classes), atol=1e-9)


def test_random_cases_reach_what_matters() -> None:
    cases = [random_case(seed) for seed in range(150)]
    values = np.concatenate([average_precision(*case).ravel() for case in cases])
    assert np.isnan(values).any()
    assert ((values > 0) & (values < 1)).sum() > 500
    assert any(truth.ignored.any() for _, truths, _ in cases for truth in truths)


def test_equals_pycocotools_with_more_detections_than_count() -> None:
    found, truths, classes = many_detections()
    ours = average_precision(found, truths, classes)
    assert ours.max() > 0
    np.testing.assert_allclose(ours, pycocotools_figures(found, truths, classes), atol=1e-9)
