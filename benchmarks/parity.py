"""Converted models beside the modules they were made from, on real images.

usage: python benchmarks/parity.py [--data DIR]

Prints one JSON object: for each model the parity figures of its conversion and, where the images have
labels, the top-1 accuracy of the bundle. The data are not part of the project (see docs/data.md).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from faces import data_folder

import edgecnn
from edgecnn.vision import read_image

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 100
HALF = {"mean": (0.5,), "std": (0.5,)}


@dataclass(frozen=True)
class Case:
    """One model: where it and its weights are, its spec, its images and the published top-1."""

    name: str
    model: str
    weights: str | None
    spec: edgecnn.ModelSpec | None
    images: str
    published: float | None = None


def cases(data: Path) -> list[Case]:
    """The models, real weights first."""
    nets, lite = f"{data / 'models' / 'nets.py'}", f"{data / 'models' / 'efflite.py'}"
    crop = edgecnn.ModelSpec(
        task="classification",
        size_hw=(224, 224),
        resize="center_crop",
        resize_short=227,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    photo = edgecnn.ModelSpec(
        task="classification", size_hw=(224, 224), resize="center_crop", resize_short=227, **HALF
    )
    text = edgecnn.ModelSpec(task="classification", size_hw=(48, 192), color="bgr", **HALF)
    tiny = edgecnn.ModelSpec(task="classification", size_hw=(32, 32), scale=1.0)
    tf_padded = f"{ROOT / 'benchmarks' / 'published.py'}:mobilenet_v2_tf_padding"
    return [
        Case(
            "SqueezeNet 1.1",
            "torchvision:squeezenet1_1",
            "squeezenet1_1_imagenet.pth",
            crop,
            "imagenet",
            0.732,
        ),
        Case("MobileNetV2", tf_padded, "mobilenet_v2_imagenet_from_ptq.pth", photo, "imagenet", 0.794),
        Case(
            "EfficientNet-Lite0",
            f"{lite}:EffLite0",
            "efficientnet_lite0_imagenet.pth",
            photo,
            "imagenet",
            0.826,
        ),
        Case(
            "MobileNetV3-small, text",
            f"{nets}:MobileNetV3SmallTextDir",
            "mobilenet_v3_small_textdir.pth",
            text,
            "textdir",
            0.99,
        ),
        Case("ResNet8, CIFAR-10", f"{nets}:ResNet8", "resnet8_cifar10.pth", tiny, "cifar10", 0.775),
        Case("ResNet-18, random weights", "torchvision:resnet18", None, None, "imagenet"),
    ]


def labelled(name: str, data: Path) -> tuple[list[npt.NDArray[np.uint8]], list[int]]:
    """Frames (BGR) and class indices of a set."""
    if name == "imagenet":
        folder = data / "imagenet_val650"
        with (folder / "labels.csv").open() as file:
            rows = [row for row in csv.reader(file) if (folder / row[0]).is_file()]
        return [read_image(folder / row[0]) for row in rows], [int(row[1]) for row in rows]
    archive = {"textdir": data / "textdir" / "textdir.zip", "cifar10": data / "cifar10_test1500.zip"}[name]
    frames, classes = [], []
    with zipfile.ZipFile(archive) as zipped:
        names = sorted(n for n in zipped.namelist() if n.lower().endswith((".png", ".jpg", ".jpeg")))
        folders = sorted({n.split("/")[-2] for n in names})
        for member in names:
            frames.append(cv2.imdecode(np.frombuffer(zipped.read(member), np.uint8), cv2.IMREAD_COLOR))
            classes.append(folders.index(member.split("/")[-2]))
    return frames, classes


def measure(data: Path) -> list[dict[str, Any]]:
    """Convert each model and count its right answers."""
    sets: dict[str, tuple[list[npt.NDArray[np.uint8]], list[int]]] = {}
    rows = []
    for case in cases(data):
        frames, classes = sets.setdefault(case.images, labelled(case.images, data))
        with tempfile.TemporaryDirectory() as folder:
            bundle = edgecnn.convert(
                case.model,
                spec=case.spec,
                weights=case.weights and data / "models" / case.weights,
                calibration=frames[:: max(len(frames) // SAMPLES, 1)],
                samples=SAMPLES,
                out=Path(folder) / "net.edge",
            )
            fidelity = bundle.manifest.fidelity[0]
            top1 = None
            if case.published is not None:
                with edgecnn.load(bundle) as classifier:
                    answers = [int(classifier(frame).class_ids[0]) for frame in frames]
                top1 = round(float(np.mean(np.array(answers) == classes)), 4)
        rows.append(
            {
                "model": case.name,
                "inputs": fidelity.n,
                "max_abs": fidelity.max_abs,
                "mean_abs": fidelity.mean_abs,
                "cosine": fidelity.cosine,
                "agreement": fidelity.agreement,
                "images": len(frames),
                "top1": top1,
                "published_top1": case.published,
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    json.dump(measure(data_folder(parser.parse_args(arguments).data)), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
