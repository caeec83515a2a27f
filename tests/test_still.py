"""Scenes that stand still: the scores are those of all windows, and the engine runs for what changed alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgecnn
from edgecnn import ModelSpec, WindowGeometry, still
from edgecnn.errors import InputError
from edgecnn.inference import Inference
from edgecnn.runtimes import Artifact, backend
from edgecnn.still import StillScene
from tests.bundles import mean_color_model, write_mean_color
from tests.test_inference import noise, opened, spec


@pytest.fixture(params=["dense", "cut"])
def inference(request: pytest.FixtureRequest) -> Inference:
    return model(request.param)


def model(kind: str, **changes: Any) -> Inference:
    chosen = spec(5, **changes)
    return Inference(opened(chosen, 5 if kind == "dense" else None), chosen)


def check(scene: StillScene, inference: Inference, frame: npt.NDArray[np.uint8]) -> float:
    """Compare with all windows scored; gives the seconds of the engine."""
    found, wanted = scene(frame), inference.score_windows(frame)
    assert np.array_equal(found.boxes_xyxy, wanted.boxes_xyxy)
    assert np.abs(found.scores - wanted.scores).max() < 1e-6
    return found.infer_s


def test_nothing_runs_for_a_scene_that_stands_still(inference: Inference) -> None:
    scene, frame = StillScene(inference, 4), noise(70, 90)
    assert check(scene, inference, frame) > 0
    assert check(scene, inference, frame) == 0
    assert scene(frame + np.uint8(1)).infer_s > 0, "0 where it was 255"


def test_a_small_change_is_scored(inference: Inference) -> None:
    scene, frame = StillScene(inference, 0), noise(70, 90)
    scene(frame)
    frame[30:40, 20:33] = 255
    assert check(scene, inference, frame) > 0
    assert check(scene, inference, frame) == 0


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["dense", "cut"]), st.integers(0, 2**32 - 1), st.integers(20, 120), st.integers(30, 120)
)
def test_whatever_changes_the_scores_are_those_of_all_windows(
    kind: str, seed: int, height: int, width: int
) -> None:
    rng, scorer = np.random.default_rng(seed), model(kind)
    scene, frame = StillScene(scorer, 0), rng.integers(0, 256, (height, width, 3), np.uint8)
    for _ in range(6):
        check(scene, scorer, frame)
        frame = frame.copy()
        for _ in range(rng.integers(0, 4)):
            top, left = rng.integers(height), rng.integers(width)
            frame[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = rng.integers(256)


def test_an_engine_that_minds_new_sizes_gets_whole_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    inference, frame = model("dense"), noise(70, 90)
    monkeypatch.setattr(type(inference.runtime), "any_size", False)
    scene, sizes = StillScene(inference, 0), set()
    run = inference.runtime.run

    def recorded(feeds: Any) -> Any:
        sizes.add(feeds["image"].shape)
        return run(feeds)

    monkeypatch.setattr(inference.runtime, "run", recorded)
    scene(frame)
    known = set(sizes)
    frame[0, 0] ^= 1
    check(scene, inference, frame)
    assert sizes == known


def test_scores_stay_within_twice_the_threshold(inference: Inference) -> None:
    scene, frame = StillScene(inference, 10), np.full((60, 60, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        found, wanted = scene(frame), inference.score_windows(frame)
        assert np.abs(found.scores - wanted.scores).max() <= 20 / 255
        frame = (frame.astype(int) + rng.integers(-4, 5)).clip(0, 255).astype(np.uint8)


def test_a_busy_scene_is_scored_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    inference = model("dense")
    scene, frame = StillScene(inference, 0), noise(64, 64)
    scene(frame)
    rescored: list[int] = []
    monkeypatch.setattr(inference, "rescore", lambda *given: rescored.append(1) or 0.0)
    frame[0, 0] ^= 1
    scene(frame)
    assert rescored
    rescored.clear()
    frame[:, :48] ^= 1
    check(scene, inference, frame)
    assert not rescored


def test_everything_is_scored_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still, "REFRESH", 4)
    inference, frame = model("dense"), noise(64, 64)
    scene = StillScene(inference, 4)
    assert [scene(frame).infer_s > 0 for _ in range(9)] == [True, False, False, False] * 2 + [True]


def test_another_stream_starts_anew(inference: Inference) -> None:
    scene, frame = StillScene(inference, 4), noise(64, 64)
    scene(frame)
    scene.reset()
    assert scene(frame).infer_s > 0
    assert scene(noise(64, 65)).infer_s > 0


def test_results_are_the_callers(inference: Inference) -> None:
    scene, frame = StillScene(inference, 4), noise(64, 64)
    for _ in range(3):
        found = scene(frame)
        found.scores[:] = 7
        with pytest.raises(ValueError, match="read-only"):
            found.boxes_xyxy[:] = 7
    check(scene, inference, frame)


def test_an_error_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    inference, frame = model("dense"), noise(64, 64)
    scene = StillScene(inference, 4)
    with pytest.raises(InputError, match="smaller than the smallest window"):
        scene(noise(8, 8))
    with monkeypatch.context() as broken:
        broken.setattr(inference, "score_windows", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scene(frame)
    check(scene, inference, frame)
    frame[0, 0] ^= 0x80
    with monkeypatch.context() as broken:
        broken.setattr(inference, "rescore", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scene(frame)
    check(scene, inference, frame)


def test_what_looks_beyond_its_windows_is_refused() -> None:
    chosen = spec(5)
    artifact = Artifact("onnx", mean_color_model(chosen), "a.onnx", dense_exact=False)
    with pytest.raises(
        InputError, match=r"still: a.onnx looks beyond its windows, .* load it with dense=False"
    ):
        StillScene(Inference(backend("ort")(artifact), chosen), 4)


WINDOWS = ModelSpec(
    task="window_detection",
    size_hw=(16, 16),
    labels=("red", "green", "blue"),
    activation="none",
    threshold=0.9,
    window=WindowGeometry(stride=8, scale_step=2.0),
)


def test_a_predictor_finds_what_moves(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", WINDOWS)
    frame = np.zeros((64, 96, 3), np.uint8)
    with edgecnn.load(tmp_path / "a.edge", still=8) as detector:
        for left in (0, 16, 48):
            frame[:] = 0
            frame[16:32, left : left + 16, 2] = 255
            for _ in range(2):
                found = detector(frame)
                assert isinstance(found, edgecnn.Detections)
                assert found.boxes.tolist() == [[left, 16, left + 16, 32]]
        detector.forget()
        assert detector(frame).timing_ms["infer"] > 0
        with pickle.loads(pickle.dumps(detector)) as again:
            assert again.still == 8


def test_classifiers_have_no_windows(tmp_path: Path) -> None:
    write_mean_color(tmp_path / "a.edge", ModelSpec(task="classification", size_hw=(8, 8), activation="none"))
    with pytest.raises(InputError, match="still: goes with window_detection, not with classification"):
        edgecnn.load(tmp_path / "a.edge", still=8)
