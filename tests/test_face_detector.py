"""The detector that ships: its promises on photographs, and the property its design was made for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import edgecnn
from edgecnn import Detections
from edgecnn.predictor import Inference
from edgecnn.vision import pyramid
from tests.paths import ROOT, data

HERE = ROOT / "examples" / "face_detector"


def module(path: Path, name: str) -> ModuleType:
    """Import a script by path, with its neighbours importable as it expects."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(path.parent))
    return loaded


def test_promise_on_faces_dlib() -> None:
    """AP at IoU 0.3 of at least 0.92, and at the shipped threshold at most one false positive an image."""
    folder = data("faces_dlib")
    faces = module(ROOT / "benchmarks" / "faces.py", "bench_faces")
    truths = faces.dlib_truths(folder)
    ours, threshold = faces.our_detections(list(truths), "face")
    figures = faces.evaluate(ours, list(truths.values()), iou=0.3, threshold=threshold)
    assert (figures.images, figures.objects) == (9, 43)
    assert figures.ap >= 0.92
    assert figures.false_positives_an_image <= 1
    assert figures.recall >= 0.9


def test_dense_evaluation_is_exact() -> None:
    """No padding inside the window and strides that are powers of two: one pass over an image gives the
    windows' own logits."""
    net = module(HERE / "net.py", "face_net").face_window_net()
    missing, unexpected = net.load_state_dict(load_file(HERE / "face.safetensors"), strict=False)
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    net.eval()
    size = edgecnn.Bundle(ROOT / "edgecnn/models/face.edge").manifest.spec.size_hw[0]
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, 3, size + 40, size + 64), generator=generator) * 2 - 1
    with torch.no_grad():
        dense = net.dense(image)[0, 0]
        stride = 64 // (dense.shape[1] - 1)
        assert stride & (stride - 1) == 0
        for row in range(dense.shape[0]):
            for column in range(dense.shape[1]):
                y, x = row * stride, column * stride
                window = image[:, :, y : y + size, x : x + size]
                assert float(net(window)) == pytest.approx(float(dense[row, column]), abs=1e-5)


def test_golden_windows_hold_a_face_and_none() -> None:
    bundle = edgecnn.Bundle(ROOT / "edgecnn/models/face.edge")
    golden = bundle.golden()
    assert golden is not None
    scores = golden["output.scores"]
    assert scores.max() >= bundle.manifest.spec.threshold > 0.01 > scores.min()


def test_threads_and_batches_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data as photographs

    frame = np.ascontiguousarray(photographs.astronaut()[..., ::-1])
    results = []
    for threads, batch in ((1, 64), (2, 64), (1, 7)):
        monkeypatch.setattr(Inference, "batch", lambda self, wanted, batch=batch: batch)
        with edgecnn.load("face", threads=threads, min_size=64) as detector:
            assert sum(level.count for level in pyramid((512, 512), detector.spec)) > 1000
            results.append(detector(frame))
    assert all(isinstance(result, Detections) for result in results)
    for result in results[1:]:
        np.testing.assert_allclose(results[0].boxes, result.boxes, atol=1e-3)
        np.testing.assert_allclose(results[0].scores, result.scores, atol=1e-5)


def test_beats_the_haar_cascade() -> None:
    """On the faces of coco128: more of them found, and fewer false positives an image."""
    faces = module(ROOT / "benchmarks" / "faces.py", "bench_faces")
    truths = faces.coco_truths(data("coco128"))
    # what benchmarks/faces.py prints for the cascade on the same photographs
    haar = {"found": 24, "false_positives": 49}
    with edgecnn.load("face") as detector:
        results = [detector(faces.read_image(path)) for path in truths]
    ours = [(result.boxes, result.scores) for result in results]
    figures = faces.evaluate(ours, list(truths.values()), iou=0.3)
    assert figures.found > haar["found"]
    assert figures.false_positives < haar["false_positives"]
