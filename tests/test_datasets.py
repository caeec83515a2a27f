"""Labelled data: what is read, in which order, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import ModelSpec
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.errors import InputError, MediaError
from edgecnn.vision.opencv import cv2

NAMED = ModelSpec(task="classification", size_hw=(8, 8), labels=("red", "green", "blue"))
UNNAMED = ModelSpec(task="classification", size_hw=(8, 8))
WINDOWS = ModelSpec(task="window_detection", size_hw=(8, 8), labels=("cat", "none", "dog"), background=1)


def picture(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((9, 10, 3), grey, np.uint8))
    return path


def coco(path: Path, **changes: Any) -> Path:
    """Two images, the one with the lower id last; a cat, a crowd of dogs, and a bird."""
    built = {
        "info": {"description": "what is not needed is not read"},
        "images": [{"id": 8, "file_name": "b.png", "width": 10}, {"id": 3, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 17, "bbox": [1, 2, 3, 4.5]},
            {"id": 2, "image_id": 3, "category_id": 18, "bbox": [0, 0, 10, 9], "iscrowd": 1},
            {"id": 3, "image_id": 8, "category_id": 19, "bbox": [0, 0, 1, 1]},
            {"id": 4, "image_id": 8, "category_id": 17, "bbox": [5, 5, 1, 1], "ignore": True},
        ],
        "categories": [{"id": 19, "name": "bird"}, {"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    } | changes
    path.write_text(json.dumps(built))
    for image in ("a.png", "b.png"):
        picture(path.parent / image)
    return path


def classes_of(dataset: Dataset[int]) -> dict[str, int]:
    return {file.name: truth for file, truth in zip(dataset.files, dataset.truths)}


def test_folders_named_by_label(tmp_path: Path) -> None:
    for name, grey in (("blue/b.png", 2), ("blue/deep/c.png", 3), ("red/a.png", 1)):
        picture(tmp_path / name, grey)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    dataset = open_dataset(tmp_path, NAMED)
    assert classes_of(dataset) == {"b.png": 2, "c.png": 2, "a.png": 0}
    assert (len(dataset), dataset.labels) == (3, ())
    assert [(int(frame[0, 0, 0]), truth) for frame, truth in dataset] == [(2, 2), (3, 2), (1, 0)]


def test_folders_named_by_number_are_class_ids(tmp_path: Path) -> None:
    for name in ("10/a.png", "9/b.png", "2/c.png"):
        picture(tmp_path / name)
    dataset = open_dataset(tmp_path, UNNAMED)
    assert list(classes_of(dataset).items()) == [("c.png", 2), ("b.png", 9), ("a.png", 10)]
    assert dataset.labels == ()


def test_folders_without_labels_are_taken_in_order(tmp_path: Path) -> None:
    for name in ("b/b.png", "a/a.png", "c/c.png"):
        picture(tmp_path / name)
    dataset = open_dataset(tmp_path, UNNAMED)
    assert classes_of(dataset) == {"a.png": 0, "b.png": 1, "c.png": 2}
    assert dataset.labels == ("a", "b", "c")


def test_labels_that_are_numbers_are_labels(tmp_path: Path) -> None:
    picture(tmp_path / "1" / "a.png")
    dataset = open_dataset(tmp_path, NAMED.replace(labels=("3", "2", "1")))
    assert classes_of(dataset) == {"a.png": 2}


@pytest.mark.parametrize(
    "text",
    [
        "a.png,blue\nb.png,0\n",
        "file,class\na.png,2\nb.png,red\n",
        "\ufefffilename , label\r\n a.png , blue\r\n\r\nb.png, 0",
        '"a.png","blue"\n"b.png","red"\n',
    ],
)
def test_csv(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert classes_of(open_dataset(tmp_path / "labels.csv", NAMED)) == {"a.png": 2, "b.png": 0}


def test_coco(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset(coco(tmp_path / "a.json"), WINDOWS)
    assert caplog.messages == [f"{tmp_path / 'a.json'}: the model does not know bird: left out"]
    assert [file.name for file in dataset.files] == ["a.png", "b.png"]
    assert dataset.annotated == (0, 2)
    first, second = dataset.truths
    assert first.boxes_xyxy.tolist() == [[1, 2, 4, 6.5], [0, 0, 10, 9]]
    assert (first.class_ids.tolist(), first.ignored.tolist()) == ([0, 2], [False, True])
    assert (second.class_ids.tolist(), second.ignored.tolist()) == ([0], [True])


def test_coco_images_may_lie_in_a_folder_beside_it(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json")
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).rename(tmp_path / "images" / name)
    assert [frame.shape for frame, _ in open_dataset(path, WINDOWS)] == [(9, 10, 3)] * 2


def test_coco_background_is_no_object(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", categories=[{"id": 17, "name": "none"}], annotations=[])
    with pytest.raises(
        InputError, match=r"none of its categories \(none\) is a label of the model \(cat, dog\)"
    ):
        open_dataset(path, WINDOWS)


def test_image_without_objects_stays(tmp_path: Path) -> None:
    dataset = open_dataset(coco(tmp_path / "a.json", annotations=[]), WINDOWS)
    assert [truth.boxes_xyxy.shape for truth in dataset.truths] == [(0, 4), (0, 4)]


def test_spread_takes_the_first_and_the_last(tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{i}.png" for i in range(10))
    dataset = Dataset("x", files, tuple(range(10)))
    assert dataset.spread(4).truths == (0, 3, 6, 9)
    assert dataset.spread(1).truths == (0,)
    assert dataset.spread(10) is dataset
    with pytest.raises(InputError, match="limit must be at least 1, not 0"):
        dataset.spread(0)


def test_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    picture(tmp_path / "red" / "a.png", 7)
    (tmp_path / "red" / "b.png").write_bytes((tmp_path / "red" / "a.png").read_bytes()[:40])
    frames = iter(open_dataset(tmp_path, NAMED))
    assert next(frames)[0][0, 0, 0] == 7
    with pytest.raises(MediaError, match=r"b\.png: the PNG is cut short"):
        next(frames)


def empty(folder: Path) -> Path:
    return folder


def flat(folder: Path) -> Path:
    return picture(folder / "a.png").parent


def beside_a_csv(folder: Path) -> Path:
    picture(folder / "a.png")
    (folder / "labels.csv").write_text("a.png,0\n")
    return folder


def empty_class(folder: Path) -> Path:
    (folder / "red").mkdir()
    return folder


def unknown_class(folder: Path) -> Path:
    return picture(folder / "pink" / "a.png").parent.parent


def table(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        picture(folder / "a.png")
        (folder / "t.csv").write_bytes(text.encode("latin-1"))
        return folder / "t.csv"

    return make


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: folder / "nope", MediaError, "nope: no such file or folder"),
        (empty, MediaError, "holds no folder a class; put the images of each class into one"),
        (flat, MediaError, "holds no folder a class; put the images of each class into one"),
        (beside_a_csv, MediaError, "holds no folder a class; name its labels.csv instead"),
        (empty_class, MediaError, "red: holds no image"),
        (unknown_class, InputError, "pink: class 'pink' is not one of the model's 3 (red, green, blue)"),
        (table(""), MediaError, "t.csv: names no image; its rows are file,class"),
        (table("file,class\n"), MediaError, "t.csv: names no image"),
        (table("a.png,3"), InputError, "t.csv, line 1: class '3' is not one of the model's 3"),
        (table("a.png,-1"), InputError, "t.csv, line 1: class '-1' is not one of"),
        (table("a.png,0\n\ngone.png,1\n"), MediaError, "t.csv, line 3: "),
        (table("a.png;0\n"), InputError, "t.csv, line 1: 1 values, rows are file,class"),
        (table("gone,0\na.png,0\n"), MediaError, "gone: no such file"),
        (table(f"a.png,0\n{'x' * 5000},0\n"), MediaError, "xxx: no such file"),
        (table('a.png,0\n"two\nlines.png",0\n'), MediaError, "two lines.png: no such file"),
        (table("a.png,0,cat\n"), InputError, "t.csv, line 1: 3 values, rows are file,class"),
        (table("a.png,caf\xe9\n"), InputError, "t.csv: not a CSV of UTF-8 text"),
        (
            lambda folder: coco(folder / "a.json"),
            InputError,
            "a.json: classification is evaluated on a folder",
        ),
        (
            lambda folder: picture(folder / "a.png"),
            InputError,
            "a.png: classification is evaluated on a folder",
        ),
    ],
)
def test_what_cannot_be_used_for_classification(
    tmp_path: Path, make: Callable[[Path], Path], error: type[InputError], message: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(error) as caught:
        open_dataset(path, NAMED)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_name_without_labels(tmp_path: Path) -> None:
    path = table("a.png,red\n")(tmp_path)
    with pytest.raises(InputError, match="class 'red', but the model has no labels: give class ids"):
        open_dataset(path, UNNAMED)


IMAGE = {"id": 3, "file_name": "a.png"}
CAT = {"id": 17, "name": "cat"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": []}, MediaError, "lists no image"),
        ({"images": [IMAGE, IMAGE]}, InputError, "two images have the same id"),
        ({"images": [{"id": 3}]}, InputError, "missing required field `file_name` - at `$.images[0]`"),
        ({"images": [IMAGE]}, InputError, "annotations[2] is of image 8, which is not listed"),
        ({"images": [{"id": 3, "file_name": "c.png"}], "annotations": []}, MediaError, "c.png: no such file"),
        (
            {"images": [{"id": 3, "file_name": "c" * 5000}], "annotations": []},
            MediaError,
            "ccc: no such file",
        ),
        ({"categories": [CAT]}, InputError, "annotations[1] is of category 18, which is not listed"),
        ({"categories": [{"id": 17, "name": "cow"}]}, InputError, "none of its categories (cow) is a label"),
        ({"categories": []}, InputError, "none of its categories (there are none) is a label"),
        ({"annotations": None}, InputError, "not COCO annotations of boxes"),
        (
            {"annotations": [{"image_id": 3, "category_id": 17, "bbox": [1, 2, -3, 4]}]},
            InputError,
            "annotations[0]: bbox [1.0, 2.0, -3.0, 4.0] is x, y, width, height; one is negative",
        ),
        ({"annotations": [{"image_id": 3, "category_id": 17, "bbox": [1, 2]}]}, InputError, "length 4"),
    ],
)
def test_coco_that_cannot_be_used(
    tmp_path: Path, changes: dict[str, Any], error: type[InputError], message: str
) -> None:
    path = coco(tmp_path / "a.json", **changes)
    with pytest.raises(error) as caught:
        open_dataset(path, WINDOWS)
    assert message in str(caught.value)
    assert "a.json: " in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"images": 1e999}', b"[" * 5000])
def test_file_that_is_no_coco(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not COCO annotations of boxes"):
        open_dataset(tmp_path / "a.json", WINDOWS)


def test_windows_want_coco_and_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"window detection is evaluated on a COCO \.json file"):
        open_dataset(tmp_path, WINDOWS)
    path = coco(tmp_path / "a.json")
    with pytest.raises(InputError, match="the model has no labels to match categories with"):
        open_dataset(path, WINDOWS.replace(labels=()))


def test_tensors_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a model that gives tensors has no classes"):
        open_dataset(tmp_path, ModelSpec(task="tensors", size_hw=(8, 8)))
