"""Result types: indexing, iteration and what they turn into."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgecnn import Classification, Detections, Tensors
from edgecnn.errors import InputError, MissingDependency


@pytest.fixture
def found() -> Detections:
    boxes = np.array([[0, 1, 10, 21], [5, 5, 6, 7], [1.5, 2.25, 3, 4]], np.float32)
    return Detections(boxes, np.array([0.9, 0.5, 0.25]), np.array([1, 0, 1]), ("dog", "cat", "dog"))


def test_types_and_length(found: Detections) -> None:
    assert (found.boxes.dtype, found.scores.dtype, found.class_ids.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert len(found) == 3
    assert len(Detections.empty()) == 0
    assert Detections.empty().boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("index", "labels"),
    [(0, ("dog",)), (-1, ("dog",)), (slice(1, None), ("cat", "dog")), ([2, 1], ("dog", "cat")), ([], ())],
)
def test_indexing_gives_a_new_object(found: Detections, index: object, labels: tuple[str, ...]) -> None:
    part = found[index if index != [] else np.empty(0, np.int64)]  # type: ignore[index]
    assert part.labels == labels
    assert part is not found


def test_mask_keeps_what_it_says(found: Detections) -> None:
    part = found[found.scores >= 0.5]
    assert part.scores.tolist() == [np.float32(0.9), 0.5]
    assert found[np.zeros(3, bool)].boxes.shape == (0, 4)


def test_index_outside_is_an_index_error(found: Detections) -> None:
    with pytest.raises(IndexError):
        found[3]


def test_json_is_plain(found: Detections) -> None:
    text = json.dumps(found.to_json())
    assert json.loads(text)["detections"][2] == {
        "box": [1.5, 2.25, 3.0, 4.0],
        "score": 0.25,
        "class_id": 1,
        "label": "dog",
    }


def test_coco_has_width_and_height(found: Detections) -> None:
    assert found.to_coco(7)[0] == {
        "image_id": 7,
        "category_id": 1,
        "bbox": [0, 1, 10, 20],
        "score": found.scores[0],
    }


def test_lengths_must_agree() -> None:
    with pytest.raises(InputError, match="2 boxes, 1 scores and 1 class ids"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64), ("a",))
    with pytest.raises(InputError, match="2 labels for 1 results"):
        Classification(np.zeros(1, np.int64), np.zeros(1, np.float32), ("a", "b"))


def test_supervision_says_its_cure_when_absent(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MissingDependency, match="pip install supervision"):
        found.to_supervision()


def test_classification_iterates_best_first() -> None:
    classes = Classification(np.array([3, 1]), np.array([0.7, 0.2]), ("d", "b"))
    assert [(i, label) for i, _, label in classes] == [(3, "d"), (1, "b")]
    assert classes.to_json()["classes"][0] == {"class_id": 3, "score": 0.7, "label": "d"}


def test_tensors_by_name() -> None:
    tensors = Tensors({"map": np.zeros((2, 3), np.float32)})
    assert tensors["map"].shape == (2, 3)
    assert tensors.to_json() == {"tensors": {"map": {"shape": [2, 3], "dtype": "float32"}}}
