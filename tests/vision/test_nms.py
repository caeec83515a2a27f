from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.vision import nms, suppression

HALF = [[0, 0, 10, 10], [0, 0, 10, 5]]


def test_the_better_of_two_overlapping_boxes_stays() -> None:
    keep = nms([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]], [0.6, 0.9, 0.7])
    assert keep.dtype == np.int64
    assert keep.tolist() == [1, 2]


def test_iou_at_the_threshold_does_not_suppress() -> None:
    assert nms(HALF, [0.9, 0.8], iou=0.5).tolist() == [0, 1]
    assert nms(HALF, [0.9, 0.8], iou=np.nextafter(0.5, 0)).tolist() == [0]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
    assert nms(chain, [0.9, 0.8, 0.7], iou=0.3).tolist() == [0, 2]


def test_equal_scores_keep_their_order() -> None:
    apart = [[i * 20, 0, i * 20 + 10, 10] for i in range(5)]
    assert nms(apart, [0.5, 0.7, 0.5, 0.7, 0.5]).tolist() == [1, 3, 0, 2, 4]
    assert nms([[0, 0, 9, 9]] * 4, [0.5] * 4).tolist() == [0]


def test_classes_suppress_only_their_own() -> None:
    boxes, scores = [[0, 0, 10, 10]] * 4, [0.6, 0.9, 0.8, 0.7]
    assert nms(boxes, scores, [0, 0, 7, 7]).tolist() == [1, 2]
    assert nms(boxes, scores).tolist() == [1]


@pytest.mark.parametrize("limit", [0, 1, 3, 700, 5000])
def test_the_limit_keeps_the_best(limit: Any) -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 400, (2000, 2))
    boxes = np.hstack([corner, corner + 20])
    scores = rng.uniform(size=2000)
    assert nms(boxes, scores, max_detections=limit).tolist() == nms(boxes, scores).tolist()[:limit]


def test_nothing_in_nothing_out() -> None:
    for boxes in (np.empty((0, 4)), []):
        keep = nms(boxes, [], [])
        assert keep.shape == (0,)
        assert keep.dtype == np.int64


def test_empty_boxes_neither_suppress_nor_vanish() -> None:
    assert nms([[5, 5, 5, 5]] * 2 + [[0, 0, 10, 10]], [0.9, 0.8, 0.7], iou=0).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes_xyxy": [[0, 0, np.nan, 1]], "scores": [1]}, "boxes_xyxy: entry 0 is not finite"),
        ({"boxes_xyxy": [[0, 0, 1, 1], [0, 0, np.inf, 1]], "scores": [1, 1]}, "boxes_xyxy: entry 1"),
        ({"boxes_xyxy": [[0, 0, 1e39, 1]], "scores": [1]}, "boxes_xyxy: entry 0 is not finite in float32"),
        ({"boxes_xyxy": [[0, 0, 1, 1]], "scores": [-np.inf]}, "scores: entry 0 is not finite"),
        ({"boxes_xyxy": [[0, 0, 1, 1]], "scores": [0.5, 0.4]}, "1 boxes, 2 scores"),
        ({"boxes_xyxy": HALF, "scores": [1, 1], "class_ids": [0]}, "2 boxes, 2 scores and 1 class ids"),
        ({"boxes_xyxy": HALF, "scores": [1, 1], "class_ids": [0.5, 1]}, "class_ids: float64"),
        ({"boxes_xyxy": HALF, "scores": [[1], [1]]}, "scores: int64 with 2 axes"),
        ({"boxes_xyxy": HALF, "scores": [1, 1], "iou": 1.5}, "iou must be in 0..1, not 1.5"),
        ({"boxes_xyxy": HALF, "scores": [1, 1], "iou": float("nan")}, "iou must be in 0..1, not nan"),
        ({"boxes_xyxy": HALF, "scores": [1, 1], "max_detections": -1}, "max_detections must not be negative"),
    ],
)
def test_bad_input_is_refused(arguments: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        nms(**arguments)


def random_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Boxes on a coarse or fine grid with ties, duplicates, empty and inside-out boxes."""
    count = int(rng.integers(0, 40))
    kind = rng.integers(0, 4)
    corner = rng.uniform(-20, 60, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(0, 40, (count, 2))])
    if kind == 0:
        boxes = boxes.round()  # many IoUs are simple fractions, at the threshold itself
    elif kind == 1:
        boxes *= rng.choice([1e-3, 1.0, 37.3, 1e4])
    elif kind == 2 and count:
        boxes = boxes[rng.integers(0, count, count)]
    degenerate = rng.uniform(size=count) < 0.1
    boxes[degenerate, 2:] = boxes[degenerate, :2] - rng.choice([0, 5])
    scores = rng.uniform(size=count)
    if rng.uniform() < 0.5:
        scores = scores.round(1)
    iou = float(rng.choice([0.0, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.6, 0.7, 0.75, 1.0]))
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, 3, count), iou


def test_ten_thousand_random_cases_as_torchvision() -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision").ops
    rng = np.random.default_rng(20240501)
    suppressed = 0
    for _ in range(10_000):
        boxes, scores, class_ids, iou = random_case(rng)
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
        expected = ops.nms(*tensors, iou).numpy()
        found = nms(boxes, scores, iou=iou)
        assert found.tolist() == expected.tolist()
        suppressed += len(boxes) - len(found)

        kept = np.zeros(len(boxes), bool)
        for class_id in np.unique(class_ids):
            members = np.flatnonzero(class_ids == class_id)
            kept[members[ops.nms(tensors[0][members], tensors[1][members], iou).numpy()]] = True
        survivors = np.flatnonzero(kept)
        expected = survivors[np.argsort(-scores[survivors], kind="stable")]
        assert nms(boxes, scores, class_ids, iou).tolist() == expected.tolist()
    assert suppressed > 10_000, "the cases hardly overlap"


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("spread", [60, 3000])
def test_thousands_of_boxes_as_torchvision(iou: Any, spread: Any) -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision").ops
    rng = np.random.default_rng(11)
    corner = rng.uniform(0, spread, (3000, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 60, (3000, 2))]).astype(np.float32)
    scores = rng.uniform(size=3000).round(2).astype(np.float32)
    expected = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    assert nms(boxes, scores, iou=iou).tolist() == expected.tolist()


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 20))
def test_best_first_is_a_stable_sort(scores: list[int], first: int) -> None:
    ranks = np.array(scores, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "SAMPLE", 4)
        parts = list(suppression.best_first(ranks, first))
    assert np.concatenate(parts).tolist() == np.argsort(-ranks, kind="stable").tolist()


def test_few_of_many_are_the_first_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is looked at first, and however much of it is suppressed."""
    rng = np.random.default_rng(5)
    for name, value in (("SAMPLE", 4), ("BLOCK", 8), ("TABLE", 64)):
        monkeypatch.setattr(suppression, name, value)
    parts = 0
    for _ in range(2000):
        boxes, scores, class_ids, iou = random_case(rng)
        boxes, scores, class_ids = (np.concatenate([x, x]) for x in (boxes, scores, class_ids))
        limit = int(rng.integers(0, 6))
        everything = nms(boxes, scores, class_ids, iou)
        assert nms(boxes, scores, class_ids, iou, limit).tolist() == everything[:limit].tolist()
        parts += len(list(suppression.best_first(scores, limit)))
    assert parts > 4000, "most cases are looked at as a whole"


@pytest.mark.parametrize("spread", [60, 3000])
def test_the_best_of_many_as_torchvision(spread: float) -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision").ops
    rng = np.random.default_rng(12)
    corner = rng.uniform(0, spread, (20_000, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 60, (20_000, 2))]).astype(np.float32)
    scores = rng.uniform(size=20_000).round(3).astype(np.float32)
    expected = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)[:300]
    assert nms(boxes, scores, max_detections=300).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_scores_of_any_type(dtype: Any) -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]]
    assert nms(boxes, np.array([1, 3, 2], dtype)).tolist() == [1, 2]


def test_boxes_so_large_that_their_squares_are_not_finite() -> None:
    boxes = np.float32([[0, 0, 1e30, 1], [0, 0, 2e30, 1], [5e30, 0, 6e30, 1]])
    assert nms(boxes, [0.9, 0.8, 0.7], iou=0.4).tolist() == [0, 2]


def test_box_maths_work_without_opencv() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import edgecnn.vision as v\n"
        "assert v.nms([[0, 0, 1, 1]], [1.0]).tolist() == [0]\n"
        "assert v.iou_matrix([[0, 0, 1, 1]], [[0, 0, 1, 1]])[0, 0] == 1\n"
        "try: v.resize\n"
        "except ImportError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "pip install 'edgecnn[cpu]'" in ran.stdout
