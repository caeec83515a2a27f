"""Each example runs by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import edgecnn
from edgecnn.vision import read_image
from edgecnn.vision.opencv import cv2
from tests.paths import ROOT

EXAMPLES = ROOT / "examples"


def run(*words: str | Path, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


def test_clip_holds_what_it_says(tmp_path: Path) -> None:
    done = run(EXAMPLES / "clip.py", tmp_path / "new" / "clip.mp4", "--seconds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "25 frames, 640×480, 25 per second" in done.stdout
    capture = cv2.VideoCapture(str(tmp_path / "new" / "clip.mp4"))
    assert capture.read()[1].shape == (480, 640, 3)
    capture.release()


def test_clip_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(EXAMPLES / "clip.py", tmp_path / "file" / "clip.mp4", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_embedded_loop(tmp_path: Path) -> None:
    done = run(EXAMPLES / "embedded.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "face" in done.stdout


def test_demo_leaves_its_files_and_finds_the_face(tmp_path: Path) -> None:
    done = run(EXAMPLES / "demo.py", tmp_path / "demo", "--seconds", "0.4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "p50 ms" in done.stdout
    out = tmp_path / "demo"
    assert edgecnn.verify(out / "face.edge").ok
    assert read_image(out / "faces.png").shape == (480, 640, 3)
    lines = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    assert lines[-1]["summary"]["frames"] == len(lines) - 1 == 10
    assert lines[0]["detections"][0]["label"] == "face"
    capture = cv2.VideoCapture(str(out / "faces.mp4"))
    assert capture.read()[0]
    capture.release()


def test_shipped_bundle_is_the_one_that_the_weights_give(tmp_path: Path) -> None:
    """The committed bundle and the committed weights belong together: the same scores on the same windows."""
    done = run(EXAMPLES / "face_detector" / "build.py", tmp_path / "face.edge", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    built, shipped = edgecnn.Bundle(tmp_path / "face.edge"), edgecnn.Bundle(ROOT / "edgecnn/models/face.edge")
    assert built.manifest.spec == shipped.manifest.spec
    assert built.manifest.provenance["weights_sha256"] == shipped.manifest.provenance["weights_sha256"]
    golden, expected = built.golden(), shipped.golden()
    assert golden is not None
    assert expected is not None
    np.testing.assert_array_equal(golden["input"], expected["input"])
    np.testing.assert_allclose(golden["output.scores"], expected["output.scores"], atol=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (8, *shipped.manifest.spec.input_shape), np.uint8)
    # other processors round a few weights the other way
    for precision, tolerance in (("fp32", 1e-5), ("int8", 0.1)):
        with (
            edgecnn.open_model(built, precision=precision) as a,
            edgecnn.open_model(shipped, precision=precision) as b,
        ):
            first, second = a.run({"image": images})["scores"], b.run({"image": images})["scores"]
        np.testing.assert_allclose(first, second, atol=tolerance)


def test_weights_and_bundle_are_small_and_name_no_machine() -> None:
    weights = EXAMPLES / "face_detector" / "face.safetensors"
    assert weights.stat().st_size <= 400_000
    manifest = (ROOT / "edgecnn/models/face.edge/manifest.json").read_text()
    assert str(ROOT) not in manifest
    assert "/home" not in manifest
