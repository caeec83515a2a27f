"""Marks known by hand: the judges get runtimes whose answers are written down here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.calibration import Samples
from edgecnn.errors import EdgeCnnError, InputError, MediaError
from edgecnn.judging import Judge, judge_for, outputs_of, telling_rows
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from edgecnn.vision.opencv import cv2

SPEC = ModelSpec(task="classification", size_hw=(4, 4), labels=("blue", "green", "red"), activation="none")
WINDOWS = SPEC.replace(
    task="window_detection", window=WindowGeometry(stride=4, scale_step=2.0), threshold=0.5
)
TENSORS = ModelSpec(task="tensors", size_hw=(4, 4))

Scores = npt.NDArray[np.float32]


def model(change: Callable[[Scores], Scores] = lambda scores: scores, batch: int | str = "batch") -> Runtime:
    """Scores are the mean of each channel over 255; a change makes it another model."""
    inputs = (TensorInfo(name="image", dtype="uint8", shape=(batch, 4, 4, 3)),)
    outputs = (TensorInfo(name="scores", dtype="float32", shape=(batch, 3)),)
    artifact = Artifact("null", None, "null", inputs, outputs)

    def answer(feeds: Any) -> list[Scores]:
        # channels of the model are RGB, its classes are in the order BGR
        return [change((feeds["image"].mean(axis=(1, 2)) / 255).astype(np.float32)[:, ::-1])]

    return backend("null")(artifact, RuntimeOptions(), answer)  # type: ignore[call-arg]


def no_red(scores: Scores) -> Scores:
    """Takes red for blue."""
    return np.where(scores.argmax(axis=1)[:, None] == 2, scores[:, ::-1], scores)


def plain(*channels: int, size: int = 4) -> npt.NDArray[np.uint8]:
    """A frame for each: 0 is blue, 1 green, 2 red."""
    return np.stack([np.full((size, size, 3), 200 * np.eye(3, dtype=np.uint8)[c]) for c in channels])


SAMPLES = Samples(plain(0, 1, 2, 2)[..., ::-1], "four samples")


def write(folder: Path, name: str, frame: npt.NDArray[np.uint8]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), frame)
    return path


def folder_of(path: Path) -> Path:
    """Four images without labels, beside a folder that some tool left there."""
    for index, frame in enumerate(plain(0, 1, 2, 2)):
        write(path, f"{index}.png", frame)
    (path / ".cache").mkdir()
    return path


def video_of(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for frame in plain(0, 1, 2, 2, size=32):
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize(
    ("make", "source"),
    [
        (lambda path: None, "four samples"),
        (lambda path: plain(0, 1, 2, 2), "4 frames"),
        (lambda path: folder_of(path / "photos"), "photos (4 images)"),
        (lambda path: str(video_of(path / "clip.avi")), "clip.avi (4 frames spread over it)"),
    ],
    ids=["none", "frames", "folder", "video"],
)
def test_without_labels_decisions_are_compared(
    tmp_path: Path, make: Callable[[Path], Any], source: str
) -> None:
    judge = judge_for(make(tmp_path), SPEC, model(), SAMPLES)
    assert (judge.metric, judge.source, judge.n, judge.fp32) == ("agreement", source, 4, 1.0)
    assert judge.measure(model(lambda scores: scores * 0.5)) == 1.0
    assert judge.measure(model(no_red)) == 0.5


def test_frames_of_a_detector_are_judged_by_windows(tmp_path: Path) -> None:
    """At most a thousand of them; here 4 × 4 windows of one frame and three scales."""
    frame = np.full((16, 16, 3), 200 * np.eye(3, dtype=np.uint8)[2])
    frame[:, :8] = (200, 0, 0)
    judge = judge_for(frame[None], WINDOWS, model(), SAMPLES)
    assert (judge.metric, judge.n) == ("agreement", 1000)
    assert judge.measure(model()) == 1.0
    assert 0.3 < judge.measure(model(no_red)) < 0.8


def labelled_folder(path: Path) -> Path:
    for index, (label, channel) in enumerate([("blue", 0), ("green", 1), ("red", 2), ("red", 0)]):
        write(path, f"data/{label}/{index}.png", plain(channel)[0])
    return path / "data"


def labelled_csv(path: Path) -> Path:
    folder = labelled_folder(path)
    rows = [f"{file.parent.name}/{file.name},{file.parent.name}" for file in sorted(folder.glob("*/*"))]
    (folder / "labels.csv").write_text("\n".join(["file,class", *rows]))
    return folder / "labels.csv"


@pytest.mark.parametrize("make", [labelled_folder, labelled_csv])
def test_labels_of_images_give_top1(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """One of the red images is blue."""
    path, seen = make(tmp_path), []
    judge = judge_for(path, SPEC, model(), SAMPLES, on_progress=lambda *done: seen.append(done))
    assert (judge.metric, judge.source, judge.n, judge.fp32) == ("top1", str(path), 4, 0.75)
    assert judge.measure(model(no_red)) == 0.5
    assert seen == [(4, 4)]


def test_boxes_give_ap50(tmp_path: Path) -> None:
    """A blue and a red window of the model's size on black; without red half of the classes are lost."""
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[0:4, 0:4, 0] = frame[8:12, 8:12, 2] = 200
    write(tmp_path, "a.png", frame)
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]},
            {"image_id": 1, "category_id": 2, "bbox": [8, 8, 4, 4]},
        ],
        "categories": [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    judge = judge_for(str(tmp_path / "boxes.json"), WINDOWS, model(), SAMPLES)
    assert (judge.metric, judge.n, judge.fp32) == ("ap50", 1, 1.0)
    assert judge.measure(model(no_red)) == 0.5


@pytest.mark.parametrize("evaluation", [None, plain(0, 1), "labels.csv"], ids=["none", "frames", "labels"])
def test_tensors_are_no_decisions(evaluation: Any) -> None:
    with pytest.raises(InputError, match="tensors"):
        judge_for(evaluation, TENSORS, model(), SAMPLES)


@pytest.mark.parametrize("name", ["photos", "labels.csv", "clip.mp4"])
def test_data_that_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=f"{name}: no such file or folder"):
        judge_for(tmp_path / name, SPEC, model(), SAMPLES)


@pytest.mark.parametrize(
    ("spec", "name", "problem"),
    [
        (WINDOWS, "labels.csv", "window detection is evaluated on a COCO"),
        (SPEC, "boxes.json", "classification is evaluated on a folder a class"),
    ],
)
def test_labels_of_another_task(tmp_path: Path, spec: ModelSpec, name: str, problem: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(EdgeCnnError, match=problem):
        judge_for(tmp_path / name, spec, model(), SAMPLES)


def test_half_of_the_windows_show_what_is_looked_for() -> None:
    """Two of ten windows have a score; nine of ten are no reason to think that a model works."""
    scores = np.full((10, 2), 0.1, np.float32)
    scores[[3, 8], 1] = 0.9, 0.8
    spec = WINDOWS.replace(labels=("nothing", "thing"), background=0)
    rows = telling_rows({"scores": scores}, spec, 4)
    assert rows[1::2].tolist() == [3, 8]
    assert rows[::2].tolist() == [0, 9]
    assert telling_rows({"scores": scores}, spec, 20).tolist() == list(range(10))
    assert telling_rows({"scores": scores}, SPEC, 4).tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize(("drop", "missed"), [(0.25, True), (0.5, False), (None, False), (1.0, False)])
def test_budget(drop: float | None, missed: bool) -> None:
    """A drop as large as the budget is within it."""
    judge = Judge("top1", "x", 4, lambda model: 0.25, fp32=0.75)
    expected = f"top1 drops by 0.5000 (0.7500 to 0.2500), the budget is {drop}" if missed else ""
    assert judge.missed(0.25, drop) == expected


@pytest.mark.parametrize(
    ("batch", "count", "fed"), [("batch", 35, [16, 16, 3]), (4, 6, [4, 4]), (4, 4, [4]), (8, 3, [8])]
)
def test_outputs_for_any_number_of_images(batch: int | str, count: int, fed: list[int]) -> None:
    """A fixed batch is filled up, and what was filled in is cut off."""
    seen = []

    def noted(scores: Scores) -> Scores:
        seen.append(len(scores))
        return scores

    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    outputs = outputs_of(model(noted, batch), images)
    assert seen == fed
    np.testing.assert_allclose(outputs["scores"], images.mean(axis=(1, 2))[:, ::-1] / 255, rtol=1e-6)
