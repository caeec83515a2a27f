"""The shipped face detector on photographs with known faces, beside OpenCV's Haar cascade.

usage: python benchmarks/faces.py [--bundle face] [--data DIR]

Prints one JSON object; exit 1 when a promise of the model card is not kept. "best_window" is the detector without box
voting; moved_boxes counts how many boxes of each are more than 0.5 px elsewhere when normal noise of 1e-4 is added to
the logits. The photographs are not part of the project: --data, $EDGECNN_DATA or ../shared/data names the folder that
holds faces_dlib and coco128. The cascade runs in an environment
that is made under build/ at the first call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
from detection_metrics import Truth, evaluate

import edgecnn
from edgecnn import ModelSpec, WindowGeometry
from edgecnn.vision import decode_windows, read_image

ROOT = Path(__file__).resolve().parent.parent
IOU = 0.3
TIGHTER_IOU = 0.5
NOISE = 1e-4
MOST_PX = 0.5
LOWEST_SCORE = 0.02


def dlib_truths(folder: Path) -> dict[Path, Truth]:
    """The photographs of dlib's face example with their boxes."""
    truths = {}
    for name in ("training.xml", "testing.xml"):
        for image in ElementTree.parse(folder / name).iter("image"):
            boxes = [
                [float(box.get("left", 0)), float(box.get("top", 0)), 0.0, 0.0] for box in image.iter("box")
            ]
            for row, box in zip(boxes, image.iter("box")):
                row[2] = row[0] + float(box.get("width", 0))
                row[3] = row[1] + float(box.get("height", 0))
            truths[folder / image.get("file", "")] = Truth(np.float32(boxes), np.empty((0, 4), np.float32))
    return truths


def coco_truths(folder: Path) -> dict[Path, Truth]:
    """COCO128 with the boxes on which three face detectors agree and regions to ignore."""
    entries = json.loads((folder / "faces_consensus.json").read_text())
    return {
        folder / "images" / name: Truth(
            np.float32(entry["faces"]).reshape(-1, 4), np.float32(entry["ignore"]).reshape(-1, 4)
        )
        for name, entry in sorted(entries.items())
    }


def haar_detections(paths: list[Path]) -> list[Any]:
    """Boxes of the cascade, which has no scores."""
    home = ROOT / "build" / "haar"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "opencv-python-headless<5"],
            check=True,
            capture_output=True,
        )
        (home / "ready").touch()
    command = [str(python), str(ROOT / "benchmarks" / "haar.py"), *map(str, paths)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [(np.float32(found[str(path)]).reshape(-1, 4), None) for path in paths]


def our_detections(paths: list[Path], bundle: str, *, box_voting: bool = True) -> tuple[list[Any], float]:
    """Boxes and scores of the bundle down to a low score, and its own threshold."""
    with edgecnn.load(bundle) as shipped:
        threshold = shipped.spec.threshold
    with edgecnn.load(bundle, threshold=LOWEST_SCORE) as detector:
        detector.spec = with_voting(detector.spec, box_voting)
        results = [detector(read_image(path)) for path in paths]
    return [(result.boxes, result.scores) for result in results], threshold


def with_voting(spec: ModelSpec, box_voting: bool) -> ModelSpec:
    """The spec with box voting on or off."""
    geometry = msgspec.structs.replace(spec.window or WindowGeometry(), box_voting=box_voting)
    return spec.replace(window=geometry)


def moved_boxes(paths: list[Path], bundle: str) -> dict[str, Any]:
    """How many boxes noise on the logits moves, with and without voting."""
    noise = np.random.default_rng(0)
    counts = {"edgecnn": [0, 0], "best_window": [0, 0]}
    with edgecnn.load(bundle) as detector:
        for path in paths:
            frame = read_image(path)
            windows, size_hw = detector.score_windows(frame), (frame.shape[0], frame.shape[1])
            odds = windows.scores / np.maximum(1.0 - windows.scores, 2.0**-24)
            shaken = odds * np.exp(noise.normal(0, NOISE, odds.shape))
            for name, count in counts.items():
                spec = with_voting(detector.spec, name == "edgecnn")
                before, after = (
                    decode_windows(scores, windows.boxes_xyxy, spec, size_hw).boxes
                    for scores in (windows.scores, shaken / (1 + shaken))
                )
                apart = np.abs(before[:, None] - after[None]).max(axis=2).min(axis=1, initial=np.inf)
                count[0] += int((apart > MOST_PX).sum())
                count[1] += len(before)
    return {name: f"{moved} of {boxes}" for name, (moved, boxes) in counts.items()}


def row(detections: list[Any], truths: list[Truth], threshold: float = 0.0) -> dict[str, Any]:
    """Counts and ratios of one detector on one set."""
    figures, tighter = (
        evaluate(detections, truths, iou=iou, threshold=threshold) for iou in (IOU, TIGHTER_IOU)
    )
    return {
        **{key: value for key, value in asdict(figures).items() if key != "ap"},
        "recall": round(figures.recall, 4),
        "false_positives_an_image": round(figures.false_positives_an_image, 4),
        "ap30": None if figures.ap is None else round(figures.ap, 4),
        "ap50": None if tighter.ap is None else round(tighter.ap, 4),
    }


def measure(bundle: str, data: Path) -> dict[str, Any]:
    """Figures of both detectors on both sets."""
    sets = {"faces_dlib": dlib_truths(data / "faces_dlib"), "coco128": coco_truths(data / "coco128")}
    report: dict[str, Any] = {"iou": IOU, "bundle": bundle}
    for name, truths in sets.items():
        paths, known = list(truths), list(truths.values())
        ours, threshold = our_detections(paths, bundle)
        best, _ = our_detections(paths, bundle, box_voting=False)
        report["threshold"] = threshold
        report[name] = {
            "edgecnn": row(ours, known, threshold),
            "best_window": row(best, known, threshold),
            "haar": row(haar_detections(paths), known),
            "moved_boxes": moved_boxes(paths, bundle),
        }
    return report


def missed(report: dict[str, Any]) -> list[str]:
    """What the model card promises and these figures do not keep."""
    dlib, ours, haar = (
        report["faces_dlib"]["edgecnn"],
        report["coco128"]["edgecnn"],
        report["coco128"]["haar"],
    )
    promises = {
        "AP@0.3 of at least 0.92 on faces_dlib": dlib["ap30"] >= 0.92,
        "at most 1 false positive an image on faces_dlib": dlib["false_positives_an_image"] <= 1,
        "more recall than the cascade on coco128": ours["recall"] > haar["recall"],
        "fewer false positives than the cascade on coco128": ours["false_positives"]
        < haar["false_positives"],
    }
    return [promise for promise, kept in promises.items() if not kept]


def data_folder(given: str | None) -> Path:
    """Where the photographs are.

    Raises:
        SystemExit: Nowhere.
    """
    folder = Path(given or os.environ.get("EDGECNN_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "faces_dlib").is_dir():
        raise SystemExit(f"faces: {folder} holds no faces_dlib; name the folder with --data or EDGECNN_DATA")
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="face")
    parser.add_argument("--data")
    options = parser.parse_args(arguments)
    report = measure(options.bundle, data_folder(options.data))
    json.dump(report, sys.stdout, indent=2)
    print()
    for promise in missed(report):
        print(f"faces: not kept: {promise}", file=sys.stderr)
    return int(bool(missed(report)))


if __name__ == "__main__":
    sys.exit(main())
