"""The predictor: frames in, results out, on bundles whose answers are known by hand."""

from __future__ import annotations

import logging
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import edgecnn
from edgecnn import Classification, Detections, ModelSpec, Tensors, WindowGeometry
from edgecnn.errors import InputError, MissingDependency, Unavailable
from edgecnn.runtimes import Feeds
from tests.bundles import null_predictor, write_mean_color

COLORS = ("red", "green", "blue")
PHOTO = ModelSpec(task="classification", size_hw=(8, 8), labels=COLORS, activation="none", top_k=2)
WINDOWS = ModelSpec(
    task="window_detection",
    size_hw=(16, 16),
    labels=COLORS,
    activation="none",
    threshold=0.9,
    nms_iou=0.3,
    window=WindowGeometry(stride=8, scale_step=2.0),
)


def painted(
    size_hw: tuple[int, int], *squares: tuple[int, int, int, tuple[int, int, int]]
) -> npt.NDArray[np.uint8]:
    """A black frame with squares: left, top, size, BGR."""
    frame = np.zeros((*size_hw, 3), np.uint8)
    for left, top, size, bgr in squares:
        frame[top : top + size, left : left + size] = bgr
    return frame


RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def test_classifies_in_the_order_of_the_colours(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    with edgecnn.load(tmp_path / "a.edge") as classifier:
        result = classifier(np.full((20, 30, 3), (10, 20, 30), np.uint8))
    assert isinstance(result, Classification)
    assert result.labels == ("red", "green")
    np.testing.assert_allclose(result.scores, [30 / 255, 20 / 255], rtol=1e-5)
    assert list(result.timing_ms) == ["geometry", "infer", "decode"]
    assert all(value >= 0 for value in result.timing_ms.values())


def test_finds_several_classes_in_one_frame(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    frame = painted((64, 96), (8, 16, 16, RED), (64, 32, 16, BLUE))
    with edgecnn.load(tmp_path / "a.edge") as detector:
        found = detector(frame)
    assert isinstance(found, Detections)
    assert found.labels == ("red", "blue")
    np.testing.assert_allclose(found.boxes, [[8, 16, 24, 32], [64, 32, 80, 48]])


def test_object_at_the_far_corner_and_large_object(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    with edgecnn.load(tmp_path / "a.edge") as detector:
        corner = detector(painted((61, 75), (75 - 16, 61 - 16, 16, GREEN)))
        large = detector(painted((64, 64), (0, 32, 32, GREEN)))
    assert isinstance(corner, Detections)
    assert isinstance(large, Detections)
    np.testing.assert_allclose(corner.boxes, [[59, 45, 75, 61]])
    assert [0, 32, 32, 64] in large.boxes.tolist()


def test_frame_is_not_changed_and_result_is_the_same_for_strided_frames(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    frame = painted((64, 96), (8, 16, 16, RED))
    before = frame.copy()
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, ::2] = frame
    with edgecnn.load(tmp_path / "a.edge") as detector:
        results = [detector(frame), detector(wide[:, ::2])]
    np.testing.assert_array_equal(frame, before)
    assert results[0].to_json() == results[1].to_json()


def test_threshold_and_smallest_window_can_be_changed(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS.replace(class_thresholds={"red": 0.99}))
    frame = painted((64, 64), (0, 0, 8, RED))
    path = tmp_path / "a.edge"
    with edgecnn.load(path) as strict, edgecnn.load(path, threshold=0.2) as loose:
        assert (len(strict(frame)), len(loose(frame))) == (0, 1)
    with edgecnn.load(path, min_size=8, threshold=0.8) as small:
        found = small(frame)
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes[0], [0, 0, 8, 8])


def test_tensors_come_without_the_batch_axis(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", ModelSpec(task="tensors", size_hw=(4, 4)))
    with edgecnn.load(tmp_path / "a.edge") as model:
        result = model(np.full((9, 9, 3), (0, 0, 255), np.uint8))
    assert isinstance(result, Tensors)
    np.testing.assert_allclose(result["scores"], [1, 0, 0])


def test_fixed_batch_is_padded(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", WINDOWS)
    seen = []

    def answer(feeds: Feeds) -> list[npt.NDArray[np.float32]]:
        seen.append(feeds["image"].shape)
        return [np.zeros((len(feeds["image"]), 3), np.float32)]

    predictor = null_predictor(bundle, answer)
    predictor._fixed_batch = 4
    predictor(np.zeros((16, 64, 3), np.uint8))
    assert seen == [(4, 16, 16, 3), (4, 16, 16, 3)]


def test_raw_tensors(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    with edgecnn.open_model(tmp_path / "a.edge") as model:
        assert model.name == "ort"
        outputs = model.run({"image": np.full((2, 8, 8, 3), 255, np.uint8)})
    np.testing.assert_allclose(outputs["scores"], np.ones((2, 3)))


def test_stream_gives_each_frame_with_its_result(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    frames = [np.full((8, 8, 3), color, np.uint8) for color in (RED, GREEN, BLUE)]
    with edgecnn.load(tmp_path / "a.edge") as classifier:
        seen = [(frame[0, 0].tolist(), result.labels[0]) for frame, result in classifier.stream(frames)]  # type: ignore[union-attr]
    assert seen == [([0, 0, 255], "red"), ([0, 255, 0], "green"), ([255, 0, 0], "blue")]


def test_smoothing_averages_the_scores_over_frames(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    with edgecnn.load(tmp_path / "a.edge", smooth=2) as classifier:
        classifier(np.full((8, 8, 3), RED, np.uint8))
        both = classifier(np.full((8, 8, 3), GREEN, np.uint8))
        later = classifier(np.full((8, 8, 3), GREEN, np.uint8))
    assert isinstance(both, Classification)
    assert isinstance(later, Classification)
    np.testing.assert_allclose(both.scores, [0.5, 0.5])
    assert later.labels[0] == "green"
    np.testing.assert_allclose(later.scores, [1, 0])


def test_smoothing_starts_anew_with_each_stream(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    red, green = (np.full((8, 8, 3), color, np.uint8) for color in (RED, GREEN))
    with edgecnn.load(tmp_path / "a.edge", smooth=4) as classifier:
        list(classifier.stream([red, red]))
        ((_, first),) = classifier.stream([green])
    assert isinstance(first, Classification)
    np.testing.assert_allclose(first.scores, [1, 0])


def test_predictor_travels_to_another_process(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    frame = np.full((8, 8, 3), RED, np.uint8)
    with edgecnn.load(tmp_path / "a.edge", threads=1) as classifier:
        again = pickle.loads(pickle.dumps(classifier))
        assert again(frame).to_json() == classifier(frame).to_json()
        assert again.runtime.options.threads == 1
        again.close()


def test_closed_predictor_says_so(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    classifier = edgecnn.load(tmp_path / "a.edge")
    classifier.close()
    with pytest.raises(InputError, match="was closed; open it again"):
        classifier(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(("multi_label", "labels"), [(False, ("red",)), (True, ("red", "green"))])
def test_classes_exclude_one_another_unless_told(
    tmp_path: Path, multi_label: bool, labels: tuple[str, ...]
) -> None:
    """A window that is red and a little green, from a model that brings its own activation."""
    spec = WINDOWS.replace(threshold=0.3, multi_label=multi_label)
    write_mean_color(tmp_path / "a.edge", spec)
    with edgecnn.load(tmp_path / "a.edge") as detector:
        found = detector(np.full((16, 16, 3), (0, 100, 200), np.uint8))
    assert isinstance(found, Detections)
    assert found.labels == labels


def test_two_threads_share_a_predictor(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    frames = [painted((64, 96), (8 * i, 16, 16, RED)) for i in range(4)]
    wrong: list[object] = []
    with edgecnn.load(tmp_path / "a.edge") as detector:
        expected = [detector(frame).to_json() for frame in frames]

        def work() -> None:
            for i in range(20):
                result = detector(frames[i % 4]).to_json()
                if result != expected[i % 4]:
                    wrong.append(result)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "None"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\), not uint8 \(height, width, 3\) BGR.*'rgba'"),
        (np.zeros((8, 8), np.uint8), "gray"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((0, 8, 3), np.uint8), "0"),
        (np.zeros((1, 1, 3), np.uint8), "a frame of 1×1 px .*smaller than the smallest window, 16×16"),
        (np.zeros((15, 40, 3), np.uint8), "15×40 px .*lower min_size"),
    ],
)
def test_frames_that_cannot_be_used(
    tmp_path: Path, frame: npt.NDArray[np.uint8] | None, message: str
) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    with edgecnn.load(tmp_path / "a.edge") as detector, pytest.raises(InputError, match=message) as caught:
        detector(frame)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_one_pixel_is_enough_for_a_classifier(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    with edgecnn.load(tmp_path / "a.edge") as classifier:
        result = classifier(np.array([[[255, 0, 0]]], np.uint8))
    assert isinstance(result, Classification)
    assert result.labels[0] == "blue"


def test_many_windows_are_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    monkeypatch.setattr("edgecnn.inference.WINDOWS_MANY", 10)
    monkeypatch.setattr(logging.getLogger("edgecnn"), "propagate", True)
    with edgecnn.load(tmp_path / "a.edge") as detector:
        for _ in range(2):
            detector(np.zeros((64, 64, 3), np.uint8))
    assert [record.message.split(":")[0] for record in caplog.records] == ["59 windows a frame"]


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    with pytest.raises(InputError, match="min_size: goes with window_detection"):
        edgecnn.load(tmp_path / "a.edge", min_size=9)
    with pytest.raises(InputError, match="no runtime 'tflite'"):
        edgecnn.load(tmp_path / "a.edge", runtime="tflite")
    with pytest.raises(InputError, match="the runtime torch takes torch, it holds onnx"):
        edgecnn.load(tmp_path / "a.edge", runtime="torch")
    with pytest.raises(InputError, match="a bundle is a path, a name or a Bundle, not a int"):
        edgecnn.load(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads must be a whole number in"):
        edgecnn.load(tmp_path / "a.edge", threads=0)
    write_mean_color(tmp_path / "b.edge", WINDOWS)
    with pytest.raises(InputError, match="smooth: goes with classification"):
        edgecnn.load(tmp_path / "b.edge", smooth=3)


def test_no_runtime_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mean_color(tmp_path / "a.edge", PHOTO)
    monkeypatch.delenv("EDGECNN_RUNTIME")
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(Unavailable, match=re.escape("pip install 'edgecnn[cpu]'")) as caught:
        edgecnn.load(tmp_path / "a.edge")
    assert not isinstance(caught.value, MissingDependency)


def test_bare_name_is_the_shipped_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "face").mkdir()
    monkeypatch.chdir(tmp_path)
    with edgecnn.load("face") as detector:
        assert detector.spec.labels == ("face",)
    with pytest.raises(InputError, match=r"not a bundle, it holds no manifest\.json"):
        edgecnn.load("./face")
