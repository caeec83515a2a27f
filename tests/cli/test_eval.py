"""``edgecnn eval``: what it prints, for people and for machines, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecnn.cli.main import main
from edgecnn.vision.opencv import cv2

RED, BLUE = (0, 0, 255), (255, 0, 0)


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Two red pictures, of which one looks blue, and a blue one."""
    for name, bgr in (("red/0", RED), ("red/1", BLUE), ("blue/0", BLUE)):
        path = tmp_path / "colors" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((9, 9, 3), bgr, np.uint8))
    return tmp_path / "colors"


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A red square that is annotated and a blue one that is not."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:32, :32], frame[32:, 64:] = RED, BLUE
    cv2.imwrite(str(tmp_path / "a.png"), frame)
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 1, "category_id": 5, "bbox": [0, 0, 32, 32]},
            {"image_id": 1, "category_id": 6, "bbox": [0, 32, 32, 32]},
        ],
        "categories": [{"id": 5, "name": "red"}, {"id": 6, "name": "green"}, {"id": 7, "name": "blue"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    return tmp_path / "coco.json"


def test_classification_for_machines(
    color_bundle: Path, colors: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(color_bundle), "--data", str(colors), "--json"]) == 0
    captured = capfd.readouterr()
    found = json.loads(captured.out)
    assert list(found) == ["n", "metrics", "per_class", "confusion"]
    assert (found["n"], found["metrics"]) == (3, {"top1": 2 / 3, "top5": 1.0})
    assert [row["label"] for row in found["per_class"]] == ["red", "green", "blue"]
    assert {"truth": 0, "prediction": 2, "count": 1} in found["confusion"]
    assert captured.err == ""


def test_classification_for_people(
    color_bundle: Path, colors: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = ["eval", str(color_bundle), "--data", str(colors)]
    assert main(args) == 0
    assert capfd.readouterr().out == (
        "3 images\n"
        "  top1  0.6667\n"
        "  top5  1.0000\n"
        "\n"
        "worst classes by f1\n"
        "  class  support  precision  recall  f1\n"
        "  red    2        1.0000     0.5000  0.6667\n"
        "  blue   1        0.5000     1.0000  0.6667\n"
        "\n"
        "most often confused\n"
        "  truth  prediction  images\n"
        "  red    blue        1\n"
    )
    assert main([*args, "-q"]) == 0
    assert capfd.readouterr() == ("", "")
    assert main([*args, "--limit", "1"]) == 0
    # blue comes first, and is right
    assert capfd.readouterr().out == "1 image\n  top1  1.0000\n  top5  1.0000\n"


def test_detection(window_bundle: Path, squares: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = ["eval", str(window_bundle), "--data", str(squares), "--runtime", "ort"]
    assert main([*args, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert list(found) == ["n", "metrics", "per_class"]
    assert list(found["metrics"]) == ["ap50", "ap", "ap75", "recall", "false_positives_per_image"]
    assert (found["metrics"]["ap50"], found["metrics"]["recall"]) == (0.5, 0.5)
    assert found["per_class"][2]["ap50"] is None
    assert main(args) == 0
    report = capfd.readouterr().out
    assert report.startswith("1 image\n  ap50                       0.5000\n")
    assert (
        "worst classes by ap50\n  class  support  ap50    ap      recall  false_positives\n  green  1        0.0000"
        in report
    )


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["eval", "nope.edge", "--data", "colors"], 2, "nope.edge: no such bundle"),
        (["eval", "BUNDLE", "--data", "nope"], 2, "nope: no such file or folder"),
        (["eval", "BUNDLE", "--data", "colors", "--runtime", "nope"], 2, "no runtime 'nope'"),
        (["eval", "BUNDLE", "--data", "colors", "--limit", "0"], 2, "0 is not in the range x>=1"),
        (["eval", "BUNDLE"], 2, "Missing option '--data'"),
    ],
)
def test_bad_input(
    color_bundle: Path,
    colors: Path,
    args: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(colors.parent)
    assert main([str(color_bundle) if word == "BUNDLE" else word for word in args]) == code
    captured = capfd.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""


INTERRUPTED_AT_AN_IMAGE = """
import os, sys
from edgecnn.cli.main import main
from edgecnn.datasets import Dataset

Dataset.frame = lambda self, index: os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(color_bundle: Path, colors: Path, number: signal.Signals) -> None:
    args = [str(int(number)), "eval", str(color_bundle), "--data", str(colors), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_AN_IMAGE, *args], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "edgecnn: interrupted\n")
