"""Evaluation on bundles whose answers are known by hand, and on real models and data."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

import edgecnn
from edgecnn import Bundle, ModelSpec, WindowGeometry, evaluation
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.errors import EngineError, InputError, MediaError
from edgecnn.evaluation import Evaluator, evaluate, evaluate_runtime
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, Feeds, Runtime, RuntimeOptions, backend
from edgecnn.vision.opencv import cv2
from tests.bundles import Answer, write_mean_color
from tests.paths import data

COLORS = ("red", "green", "blue")
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)
PHOTO = ModelSpec(task="classification", size_hw=(8, 8), labels=COLORS, activation="none")
WINDOWS = ModelSpec(
    task="window_detection",
    size_hw=(16, 16),
    labels=COLORS,
    activation="none",
    threshold=0.9,
    nms_iou=0.3,
    window=WindowGeometry(stride=8, scale_step=2.0),
)


def save(path: Path, frame: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), frame)
    return path


def fake(spec: ModelSpec, answer: Answer, batch: int | str = "batch", classes: int = 3) -> Runtime:
    """A runtime with known answers."""
    inputs = (TensorInfo(name="image", dtype="uint8", shape=(batch, *spec.input_shape)),)
    outputs = (TensorInfo(name="scores", dtype="float32", shape=(batch, classes)),)
    artifact = Artifact("null", None, "null", inputs, outputs)
    return backend("null")(artifact, RuntimeOptions(), answer)  # type: ignore[call-arg]


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Four red, two green, no blue; one of the red ones looks blue, and one green one grey."""
    shown = {"red": [RED, RED, RED, BLUE], "green": [GREEN, (90, 90, 90)]}
    for name, frames in shown.items():
        for i, bgr in enumerate(frames):
            save(tmp_path / "colors" / name / f"{i}.png", np.full((9, 9, 3), bgr, np.uint8))
    return tmp_path / "colors"


def test_classification_by_hand(tmp_path: Path, colors: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", PHOTO)
    steps: list[tuple[int, int]] = []
    found = evaluate(bundle, colors, on_progress=lambda done, total: steps.append((done, total)))
    # grey is equally red: the first class wins
    assert found.metrics == {"top1": 4 / 6, "top5": 1.0}
    assert (found.n, found.primary, found.value, found.labels) == (6, "top1", 4 / 6, COLORS)
    assert found.confusion is not None
    assert found.confusion.tolist() == [[3, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert found.per_class == (
        {"class_id": 0, "label": "red", "support": 4, "precision": 0.75, "recall": 0.75, "f1": 0.75},
        {"class_id": 1, "label": "green", "support": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3},
        {"class_id": 2, "label": "blue", "support": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
    )
    assert steps == [(6, 6)]
    built = found.to_json()
    assert list(built) == ["n", "metrics", "per_class", "confusion"]
    assert built["confusion"] == [
        {"truth": 0, "prediction": 0, "count": 3},
        {"truth": 0, "prediction": 2, "count": 1},
        {"truth": 1, "prediction": 0, "count": 1},
        {"truth": 1, "prediction": 1, "count": 1},
    ]
    assert json.loads(json.dumps(built)) == built


@pytest.mark.parametrize(("batch", "shapes"), [("batch", [16, 4]), (6, [6, 6, 6, 6])])
def test_batches(tmp_path: Path, batch: int | str, shapes: list[int]) -> None:
    """Each image says which class it is of; the answer follows it, whatever the batch."""
    for i in range(20):
        save(tmp_path / str(i % 3) / f"{i}.png", np.full((8, 8, 3), i % 3, np.uint8))
    seen = []

    def answer(feeds: Feeds) -> list[npt.NDArray[Any]]:
        seen.append(len(feeds["image"]))
        return [np.eye(3, dtype=np.float32)[feeds["image"][:, 0, 0, 0]]]

    dataset = open_dataset(tmp_path, PHOTO)
    assert evaluate_runtime(fake(PHOTO, answer, batch), PHOTO, dataset).value == 1.0
    assert seen == shapes


def test_images_are_read_once(colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    frame = Dataset.frame
    monkeypatch.setattr(Dataset, "frame", lambda self, i: reads.append(i) or frame(self, i))
    runtime = fake(PHOTO, lambda feeds: [feeds["image"].mean(axis=(1, 2)).astype(np.float32)])
    evaluator = Evaluator(PHOTO, open_dataset(colors, PHOTO))
    assert evaluator(runtime).value == evaluator(runtime).value == 4 / 6
    assert reads == [0, 1, 2, 3, 4, 5]


def test_what_does_not_fit_into_memory_is_read_again(colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "KEPT_BYTES", 3 * 8 * 8 * 3)
    reads = []
    frame = Dataset.frame
    monkeypatch.setattr(Dataset, "frame", lambda self, i: reads.append(i) or frame(self, i))
    runtime = fake(PHOTO, lambda feeds: [feeds["image"].mean(axis=(1, 2)).astype(np.float32)])
    evaluator = Evaluator(PHOTO, open_dataset(colors, PHOTO))
    assert evaluator(runtime).value == evaluator(runtime).value == 4 / 6
    assert reads == [0, 1, 2, 3, 4, 5, 3, 4, 5]


def test_limit(tmp_path: Path, colors: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", PHOTO)
    assert evaluate(bundle, colors, limit=2).n == 2
    assert evaluate(bundle, colors, limit=100).n == 6
    with pytest.raises(InputError, match="limit must be at least 1, not 0"):
        evaluate(bundle, colors, limit=0)


def test_labels_of_the_folders_where_the_model_has_none(colors: Path) -> None:
    (colors / "blue").mkdir()
    save(colors / "blue" / "0.png", np.full((9, 9, 3), RED, np.uint8))
    spec = PHOTO.replace(labels=())
    # blue, green, red: the model gives blue first
    runtime = fake(spec, lambda feeds: [feeds["image"].mean(axis=(1, 2))[:, ::-1].astype(np.float32)])
    found = evaluate_runtime(runtime, spec, open_dataset(colors, spec))
    assert found.labels == ("blue", "green", "red")
    assert [row["support"] for row in found.per_class] == [1, 2, 4]
    assert found.value == 4 / 7


@pytest.mark.parametrize(
    ("folders", "classes", "message"),
    [
        (("a", "b"), 3, "2 folders, but the model has 3 classes and no labels; name the folders by class id"),
        (("0", "3"), 3, "3/x.png is of class 3, but the model has 3 classes"),
        (("99999999999999999999",), 3, "is of class 99999999999999999999, but the model has 3 classes"),
        (("0", "1"), 1, "the model gives one score an image: accuracy needs a score for each class"),
    ],
)
def test_dataset_and_model_do_not_fit(
    tmp_path: Path, folders: tuple[str, ...], classes: int, message: str
) -> None:
    for name in folders:
        save(tmp_path / name / "x.png", np.zeros((8, 8, 3), np.uint8))
    spec = PHOTO.replace(labels=())
    runtime = fake(spec, lambda feeds: [np.zeros((len(feeds["image"]), classes), np.float32)])
    with pytest.raises(InputError) as caught:
        evaluate_runtime(runtime, spec, open_dataset(tmp_path, spec))
    assert message in str(caught.value)


def test_scores_that_are_not_finite_are_no_result(colors: Path) -> None:
    runtime = fake(PHOTO, lambda feeds: [np.full((len(feeds["image"]), 3), np.nan, np.float32)])
    with pytest.raises(EngineError, match="is not finite"):
        evaluate_runtime(runtime, PHOTO, open_dataset(colors, PHOTO))


def test_damaged_image_is_named(tmp_path: Path, colors: Path) -> None:
    broken = colors / "red" / "2.png"
    broken.write_bytes(broken.read_bytes()[:50])
    bundle = write_mean_color(tmp_path / "a.edge", PHOTO)
    with pytest.raises(MediaError, match=r"red/2\.png: the PNG is cut short"):
        evaluate(bundle, colors)


def write_coco(
    path: Path,
    images: list[tuple[str, list[tuple[str, list[float], int]]]],
    names: tuple[str, ...] = COLORS,
) -> Path:
    """Of each image its file and its objects: label, box (x, y, width, height), whether it is a crowd."""
    annotations = [
        {"image_id": i, "category_id": names.index(label), "bbox": box, "iscrowd": crowd}
        for i, (_, boxes) in enumerate(images)
        for label, box, crowd in boxes
    ]
    path.write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(images)],
                "annotations": annotations,
                "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            }
        )
    )
    return path


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Three squares on two frames: a red one, a blue one and a dim green one below the threshold."""
    first, second = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    first[16:32, 8:24], first[32:48, 64:80] = RED, BLUE
    second[16:32, 8:24] = (0, 200, 0)
    save(tmp_path / "a.png", first)
    save(tmp_path / "b.png", second)
    return tmp_path


def test_detection_by_hand(squares: Path) -> None:
    bundle = write_mean_color(squares / "a.edge", WINDOWS)
    path = write_coco(
        squares / "coco.json",
        [("a.png", [("red", [8, 16, 16, 16], 0)]), ("b.png", [("green", [8, 16, 16, 16], 0)])],
    )
    steps: list[tuple[int, int]] = []
    found = evaluate(bundle, path, on_progress=lambda done, total: steps.append((done, total)))
    # the blue square is a false positive; the green one counts for AP, but is below the threshold
    assert (found.n, found.primary, found.value, found.confusion) == (2, "ap50", 1.0, None)
    assert found.metrics == pytest.approx(
        {"ap50": 1.0, "ap": 1.0, "ap75": 1.0, "recall": 0.5, "false_positives_per_image": 0.5}
    )
    assert [
        (row["support"], row["ap50"], row["recall"], row["false_positives"]) for row in found.per_class
    ] == [
        (1, 1.0, 1.0, 0),
        (1, 1.0, 0.0, 0),
        (0, None, 0.0, 1),
    ]
    assert steps == [(1, 2), (2, 2)]
    assert list(found.to_json()) == ["n", "metrics", "per_class"]


def test_classes_that_are_not_annotated_are_not_judged(squares: Path) -> None:
    bundle = write_mean_color(squares / "a.edge", WINDOWS)
    images = [("a.png", [("red", [8.0, 16.0, 16.0, 16.0], 0)]), ("b.png", [])]
    found = evaluate(bundle, write_coco(squares / "coco.json", images, names=("green", "red")))
    assert found.metrics["false_positives_per_image"] == 0
    assert [(row["class_id"], row["label"], row["support"]) for row in found.per_class] == [
        (0, "red", 1),
        (1, "green", 0),
    ]


def test_crowds_and_thresholds_of_classes(squares: Path) -> None:
    spec = WINDOWS.replace(class_thresholds={"green": 0.5})
    bundle = write_mean_color(squares / "a.edge", spec)
    path = write_coco(
        squares / "coco.json",
        [
            ("a.png", [("red", [8, 16, 16, 16], 0), ("blue", [60, 30, 30, 30], 1)]),
            ("b.png", [("green", [8, 16, 16, 16], 0)]),
        ],
    )
    found = evaluate(bundle, path)
    assert (found.metrics["recall"], found.metrics["false_positives_per_image"]) == (1.0, 0.0)
    assert found.per_class[2]["support"] == 0


def test_nothing_to_find(squares: Path) -> None:
    path = write_coco(squares / "coco.json", [("a.png", [("red", [0, 0, 5, 5], 1)]), ("b.png", [])])
    with pytest.raises(InputError, match=r"coco\.json: its 2 images hold no object to find"):
        Evaluator(WINDOWS, open_dataset(path, WINDOWS))


def test_image_that_is_too_small_is_named(squares: Path) -> None:
    save(squares / "b.png", np.zeros((10, 10, 3), np.uint8))
    bundle = write_mean_color(squares / "a.edge", WINDOWS)
    path = write_coco(squares / "coco.json", [("a.png", [("red", [8, 16, 16, 16], 0)]), ("b.png", [])])
    with pytest.raises(
        InputError, match=r"b\.png: a frame of 10×10 px .* is smaller than the smallest window"
    ):
        evaluate(bundle, path)


def test_face_detector_on_photographs(tmp_path: Path) -> None:
    folder = data("faces_dlib")
    images = [
        (
            str(folder / image.attrib["file"]),
            [
                ("face", [float(box.get(side, 0)) for side in ("left", "top", "width", "height")], 0)
                for box in image.iter("box")
            ],
        )
        for name in ("training.xml", "testing.xml")
        for image in ElementTree.parse(folder / name).iter("image")
    ]
    path = write_coco(tmp_path / "faces.json", images, names=("face",))
    found = evaluate("face", path)
    assert (found.n, found.per_class[0]["support"]) == (9, 43)
    assert found.metrics["ap50"] >= 0.9
    assert found.metrics["recall"] >= 0.9
    assert found.metrics["false_positives_per_image"] <= 1


def test_squeezenet_on_photographs(tmp_path: Path) -> None:
    """60 of the 650 images: the share is that of the whole set, 0.73, within sampling error."""
    folder, weights = data("imagenet_val650"), data("models/squeezenet1_1_imagenet.pth")
    bundle = edgecnn.convert("torchvision:squeezenet1_1", weights=weights, out=tmp_path / "a.edge", samples=2)
    with (folder / "labels.csv").open() as lines:
        class_ids = [int(row[1]) for row in csv.reader(lines)]
    found = evaluate(bundle, folder / "labels.csv", limit=60)
    chosen = np.linspace(0, len(class_ids) - 1, 60).round().astype(int)
    assert found.confusion is not None
    assert found.confusion.shape == (1000, 1000)
    assert found.confusion.sum(axis=1).nonzero()[0].tolist() == sorted({class_ids[i] for i in chosen})
    assert 0.6 <= found.metrics["top1"] <= 0.9
    assert found.metrics["top5"] > found.metrics["top1"]
    assert isinstance(bundle, Bundle)
