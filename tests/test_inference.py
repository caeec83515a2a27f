"""Windows scored one by one and all at once: the same windows, the same scores."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.converters.onnx_dense import OnnxToDense
from edgecnn.errors import InputError
from edgecnn.inference import Inference
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, Runtime, backend
from edgecnn.vision import dense
from tests.bundles import mean_color_model, mean_color_scores


def spec(stride: int = 8, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "task": "window_detection",
        "size_hw": (16, 24),
        "activation": "none",
        "window": WindowGeometry(stride=stride, scale_step=1.5),
    }
    return ModelSpec(**{**fields, **changes})


def opened(model: ModelSpec, dense_stride: int | None = None) -> Runtime:
    content = mean_color_model(model)
    if dense_stride is not None:
        content = OnnxToDense(dense_stride)(onnx.load_from_string(content)).model
    shape = ("batch", *model.input_shape)
    window = TensorInfo(name="image", dtype="uint8", shape=shape)
    return backend("ort")(Artifact("onnx", content, inputs=(window,), dense_stride=dense_stride))


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("stride", [1, 5, 8, 40])
@pytest.mark.parametrize("size_hw", [(16, 24), (17, 24), (61, 83), (64, 96)])
def test_the_same_windows_and_scores(size_hw: tuple[int, int], stride: int, color: Any) -> None:
    model = spec(stride, color=color)
    frame = noise(*size_hw)
    one_by_one = Inference(opened(model), model).score_windows(frame)
    together = Inference(opened(model, stride), model).score_windows(frame)
    assert together.scores.dtype == np.float32
    assert np.array_equal(together.boxes_xyxy, one_by_one.boxes_xyxy)
    assert together.scores.shape == one_by_one.scores.shape
    assert np.abs(together.scores - one_by_one.scores).max() < 1e-5
    assert together.infer_s > 0


def test_scores_by_hand() -> None:
    """One level: the mean of each channel under each window, row by row."""
    model = spec(8, window=WindowGeometry(stride=8, max_size=16))
    frame = noise(35, 40)
    found = Inference(opened(model, 8), model).score_windows(frame)
    windows = np.stack([frame[y : y + 16, x : x + 24, ::-1] for y in (0, 8, 16, 19) for x in (0, 8, 16)])
    assert found.scores == pytest.approx(mean_color_scores(windows), abs=1e-6)
    assert found.boxes_xyxy[-1].tolist() == [16, 19, 40, 35]


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frame = spec(3), noise(90, 70)
    inference = Inference(opened(model, 3), model)
    whole = inference.score_windows(frame).scores
    monkeypatch.setattr(dense, "PIECE_PIXELS", 2000)
    assert np.abs(inference.score_windows(frame).scores - whole).max() < 1e-6


def test_a_model_of_closer_windows_serves_wider_ones() -> None:
    model, frame = spec(12), noise(90, 70)
    wanted = Inference(opened(model), model).score_windows(frame)
    found = Inference(opened(model, 4), model).score_windows(frame)
    assert np.array_equal(found.boxes_xyxy, wanted.boxes_xyxy)
    assert np.abs(found.scores - wanted.scores).max() < 1e-5


@pytest.mark.parametrize("stride", [2, 6, 9])
def test_other_strides_are_refused(stride: int) -> None:
    model = spec(stride)
    with pytest.raises(InputError, match=r"scores windows 4 px apart, .* load it with dense=False"):
        Inference(opened(model, 4), model)


def test_many_windows_are_warned_of_where_they_are_cut_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.inference.WINDOWS_MANY", 10)
    model, frame = spec(4), noise(40, 60)
    with caplog.at_level(logging.WARNING):
        Inference(opened(model, 4), model).score_windows(frame)
        assert not caplog.messages
        Inference(opened(model), model).score_windows(frame)
        assert "windows a frame: this is slow" in caplog.text
