"""The task detection end to end: converted, predicted, evaluated and compared; a real detector on real photos."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

import edgecnn
from edgecnn import Detections, ModelSpec, PriorMap
from edgecnn.datasets import open_dataset
from edgecnn.errors import ModelError, SpecError
from edgecnn.evaluation import evaluate_runtime
from edgecnn.manifest import TensorInfo
from edgecnn.parity import agreement, compare
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from edgecnn.vision import convert_boxes, list_images, read_image
from edgecnn.vision.opencv import cv2
from tests.models import Lambda
from tests.paths import data

LABELS = ("red", "blue")
YOLO = ModelSpec(
    task="detection",
    decoder="yolo_anchor_free",
    size_hw=(32, 32),
    resize="letterbox",
    pad_value=0,
    labels=LABELS,
    threshold=0.3,
)
SSD = YOLO.replace(decoder="ssd", priors=(PriorMap(stride=32, sizes_wh=((16, 8),)),), background=0)
RED = np.full((40, 80, 3), (0, 0, 255), np.uint8)


def two_boxes(x: torch.Tensor) -> torch.Tensor:
    """A box on the left that is as sure as the input is red, one on the right as it is blue; (N, 6, 2)."""
    boxes = torch.tensor([[8.0, 24.0], [16.0, 16.0], [8.0, 8.0], [8.0, 8.0]]).expand(x.shape[0], 4, 2)
    # in a letterbox a red frame is half red
    return torch.cat([boxes, torch.diag_embed(x[:, ::2].mean((2, 3)))], dim=1)


def rows(x: torch.Tensor) -> torch.Tensor:
    """The same as rows with an objectness of 1."""
    columns = two_boxes(x).mT
    return torch.cat([columns[..., :4], torch.ones_like(columns[..., :1]), columns[..., 4:]], dim=-1)


def one_prior(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """SSD on one prior in the middle, moved by a quarter of its width; logits of background and blue."""
    places = torch.tensor([[[2.5, 0.0, 0.0, 0.0]]]).expand(x.shape[0], 1, 4)
    return {"boxes": places + 0 * x.mean(), "classes": (x[:, ::2].mean((2, 3)) * 4)[:, None]}


def convert(model: Any, spec: ModelSpec, path: Path) -> edgecnn.Bundle:
    return edgecnn.convert(Lambda(model), spec=spec, out=path / "net.edge", calibration=RED[None], samples=4)


@pytest.mark.parametrize(("model", "decoder"), [(two_boxes, "yolo_anchor_free"), (rows, "yolo_anchor_based")])
def test_frame_to_boxes_in_the_frame(tmp_path: Path, model: Any, decoder: Any) -> None:
    bundle = convert(model, YOLO.replace(decoder=decoder), tmp_path)
    assert bundle.manifest.fidelity[0].agreement == 1
    with edgecnn.load(bundle) as detector:
        found = detector(RED)
    assert isinstance(found, Detections)
    assert found.labels == ("red",)
    # the frame lies in rows 8..24 of the input, 0.4 input pixels to one of its own
    np.testing.assert_allclose(found.boxes, [[10, 10, 30, 30]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.5], atol=1e-5)
    assert list(found.timing_ms) == ["geometry", "infer", "decode", "nms"]


def test_ssd_with_its_raw_scores(tmp_path: Path) -> None:
    """The converter puts a softmax behind the output that is named; the other one holds the boxes."""
    spec = SSD.replace(labels=("nothing", "blue"), activation="softmax", output="classes")
    bundle = convert(one_prior, spec, tmp_path)
    assert [info.name for info in bundle.manifest.outputs] == ["scores", "boxes"]
    with edgecnn.load(bundle) as detector:
        found = detector(np.full((32, 32, 3), (255, 0, 0), np.uint8))
        assert len(detector(np.full((32, 32, 3), (0, 0, 255), np.uint8))) == 0
    assert isinstance(found, Detections)
    assert found.labels == ("blue",)
    np.testing.assert_allclose(found.boxes, [[12, 12, 28, 20]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-4))], rtol=1e-5)


def test_int8_is_judged_by_its_boxes(tmp_path: Path) -> None:
    """Without labels by the boxes that both find; the page counts them."""
    torch.manual_seed(0)
    mix = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3))
    model = torch.nn.Sequential(mix, torch.nn.Sigmoid(), Lambda(two_boxes))
    frames = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    bundle = edgecnn.convert(
        model,
        spec=YOLO,
        out=tmp_path / "net.edge",
        calibration=frames,
        samples=16,
        precision="int8",
        max_drop=0.05,
        speed_gate=False,
        threads=1,
    )
    int8 = next(row for row in bundle.manifest.fidelity if row.id == "onnx-int8")
    assert int8.metric is not None
    assert int8.metric >= 0.95
    assert re.search(r"[12] boxes", bundle.read("report.html").decode())


@pytest.mark.parametrize(
    ("model", "spec", "error", "message"),
    [
        (
            lambda x: two_boxes(x)[:, 0],
            YOLO,
            ModelError,
            r"float32 batch×2; the decoder yolo_anchor_free reads float32 N×\(4\+K\)×boxes",
        ),
        (rows, YOLO, ModelError, r"batch×2×7; the decoder yolo_anchor_free reads float32 N×\(4\+K\)×boxes"),
        (two_boxes, YOLO.replace(labels=("one",)), SpecError, "labels has 1 names but the model gives 2"),
        (
            lambda x: two_boxes(x) * 3 - 1,
            YOLO,
            SpecError,
            "scores of boxes are in 0..1, let the model end in a sigmoid",
        ),
        (
            one_prior,
            SSD.replace(output="classes"),
            SpecError,
            'scores of boxes are in 0..1, set activation = "sigmoid" or "softmax"',
        ),
    ],
)
def test_models_with_another_head_are_refused(
    tmp_path: Path, model: Any, spec: ModelSpec, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convert(model, spec, tmp_path)
    assert not (tmp_path / "net.edge").exists()


def head(boxes: Any, scores: Any) -> npt.NDArray[np.float32]:
    """What an anchor-free head gives for boxes of one frame: (1, 6, n)."""
    columns = np.concatenate([convert_boxes(boxes, "xyxy", "cxcywh"), scores], axis=1)
    return columns.T[None].astype(np.float32)


PAIR, SURE = [[0, 0, 10, 10], [16, 16, 30, 30]], [[0.9, 0.0], [0.0, 0.9]]


@pytest.mark.parametrize(
    ("boxes", "scores", "share"),
    [
        (PAIR, SURE, 1),
        (PAIR[::-1], SURE[::-1], 1),
        ([[2, 0, 12, 10], PAIR[1]], SURE, 1),
        ([[6, 0, 16, 10], PAIR[1]], SURE, 0.5),
        (PAIR, SURE[::-1], 0),
        (PAIR, [[0.9, 0], [0, 0.2]], 2 / 3),
        (PAIR, [[0, 0], [0, 0]], 0),
        (PAIR, [[np.nan, 0], [0, 0]], 0),
    ],
)
def test_agreement_is_the_share_of_boxes_found_twice(boxes: Any, scores: Any, share: float) -> None:
    reference, outputs = {"head": head(PAIR, SURE)}, {"head": head(boxes, scores)}
    assert agreement(reference, outputs, YOLO) == pytest.approx(share)
    assert compare(reference, outputs, YOLO).agreement == pytest.approx(share)


def test_frames_without_boxes_agree() -> None:
    nothing = {"head": head(PAIR, np.zeros((2, 2)))}
    assert agreement(nothing, nothing, YOLO) == 1


def test_evaluation_by_hand(tmp_path: Path) -> None:
    """One of two objects is found, and one box lies on nothing; in a letterbox of half the frame's size."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 32, 3), np.uint8))
    objects = [([0, 0, 12, 16], 0), ([16, 40, 8, 8], 1)]
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": i, "bbox": box} for box, i in objects],
        "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    # 8 columns of border on the left
    found = head([[8, 0, 14, 8], [10, 20, 14, 24]], [[0.9, 0.0], [0.8, 0.0]])
    with fake(found) as runtime:
        figures = evaluate_runtime(runtime, YOLO, open_dataset(tmp_path / "boxes.json", YOLO))
    assert figures.metrics["ap50"] == 0.5
    assert figures.metrics["ap"] == 0.5
    assert figures.metrics["recall"] == 0.5
    assert figures.metrics["false_positives_per_image"] == 1


def fake(answer: npt.NDArray[np.float32]) -> Runtime:
    """A runtime that always answers the same."""
    inputs = (TensorInfo(name="image", dtype="uint8", shape=("batch", *YOLO.input_shape)),)
    outputs = (TensorInfo(name="head", dtype="float32", shape=("batch", *answer.shape[1:])),)
    artifact = Artifact("null", None, "null", inputs, outputs)
    return backend("null")(artifact, RuntimeOptions(), lambda feeds: [answer])  # type: ignore[call-arg]


def coco_of(folder: Path, images: list[Path], labels: tuple[str, ...]) -> dict[str, Any]:
    """YOLO's label files as COCO annotations."""
    annotations = []
    for number, path in enumerate(images):
        text = folder / "labels" / f"{path.stem}.txt"
        height, width = read_image(path).shape[:2]
        for row in np.loadtxt(text, ndmin=2) if text.exists() else ():
            box = row[1:] * (width, height, width, height)
            [bbox] = convert_boxes([box], "cxcywh", "xywh").tolist()
            annotations.append({"image_id": number, "category_id": int(row[0]), "bbox": bbox})
    return {
        "images": [{"id": i, "file_name": str(path)} for i, path in enumerate(images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels)],
    }


def test_fastestdet_on_real_photos(tmp_path: Path) -> None:
    """A published detector of 0.24 million parameters, whose figure on these photos is known: 0.32."""
    folder, file = data("coco128"), data("models/fastestdet_coco80.onnx")
    names = re.findall(r"^ +\d+: (.+)$", (folder / "object_detection.yaml").read_text(), re.MULTILINE)
    labels, images = tuple(names), list_images(folder / "images")
    newer = onnx.version_converter.convert_version(onnx.load(file), 17)
    onnx.save(newer, tmp_path / "fastestdet.onnx")
    (tmp_path / "coco.json").write_text(json.dumps(coco_of(folder, images, labels)))
    spec = ModelSpec(
        task="detection", decoder="fastestdet", size_hw=(352, 352), color="bgr", labels=labels, nms_iou=0.45
    )
    bundle = edgecnn.convert(
        tmp_path / "fastestdet.onnx", spec=spec, out=tmp_path / "net.edge", calibration=images[0], samples=1
    )
    figures = edgecnn.evaluate(bundle, tmp_path / "coco.json", runtime="ort", threads=1)
    assert figures.n == 128
    assert figures.metrics["ap50"] == pytest.approx(0.323, abs=0.005)
    with edgecnn.load(bundle, runtime="ort", threads=1) as detector:
        frame = read_image(next(path for path in images if path.stem == "000000000036"))
        found = detector(frame)
    assert isinstance(found, Detections)
    assert {"person", "umbrella"} <= set(found.labels)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.tile(frame.shape[1::-1], 2)).all()
