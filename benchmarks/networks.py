"""Real networks with published weights and the images they are judged on; no part of the project (docs/data.md)."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgecnn import ModelSpec
from edgecnn.vision import list_images, read_image

PUBLISHED = Path(__file__).with_name("published.py")
CALIBRATION_IMAGES = 128
LEAST_PERSON = 0.005
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5,), "std": (0.5,)}

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network.

    Attributes:
        key: Its name on a command line.
        name: Its name in tables.
        model, weights, spec: As `edgecnn.convert` takes them.
        images: The set of labelled images it is judged on.
        unlabelled: A set whose labels are those of another task: it counts for agreement only.
        published: Top-1 accuracy that is published for the weights on the set.
    """

    key: str
    name: str
    model: str
    weights: Path | None = None
    spec: ModelSpec | None = None
    images: str
    unlabelled: str | None = None
    published: float | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the images to calibrate on, another to judge on.

    Attributes:
        calibration, judged: Frames, uint8 (h, w, 3) BGR.
        classes: Of the first of the judged ones; the rest has no labels.
    """

    calibration: list[Frame]
    judged: list[Frame]
    classes: list[int]


def networks(data: Path) -> list[Network]:
    """The networks whose weights lie under the data."""
    models = data / "models"
    nets = models / "nets.py"
    photo = {"task": "classification", "size_hw": (224, 224), "resize": "center_crop", "resize_short": 227}
    return [
        Network(
            key="squeezenet",
            name="SqueezeNet 1.1",
            model="torchvision:squeezenet1_1",
            weights=models / "squeezenet1_1_imagenet.pth",
            spec=ModelSpec(**photo, **IMAGENET),
            images="imagenet",
            published=0.732,
        ),
        Network(
            key="mobilenet_v2",
            name="MobileNetV2",
            model=f"{PUBLISHED}:mobilenet_v2_tf_padding",
            weights=models / "mobilenet_v2_imagenet_from_ptq.pth",
            spec=ModelSpec(**photo, **HALF),
            images="imagenet",
            published=0.794,
        ),
        Network(
            key="efficientnet_lite0",
            name="EfficientNet-Lite0",
            model=f"{models / 'efflite.py'}:EffLite0",
            weights=models / "efficientnet_lite0_imagenet.pth",
            spec=ModelSpec(**photo, **HALF),
            images="imagenet",
            published=0.826,
        ),
        Network(
            key="textdir",
            name="MobileNetV3-small, text",
            model=f"{nets}:MobileNetV3SmallTextDir",
            weights=models / "mobilenet_v3_small_textdir.pth",
            spec=ModelSpec(task="classification", size_hw=(48, 192), color="bgr", **HALF),
            images="textdir",
            published=0.99,
        ),
        Network(
            key="vww",
            name="MobileNetV1 0.25, person",
            model=f"{nets}:MobileNetV1VWW",
            weights=models / "mobilenet_v1_025_vww96.pth",
            spec=ModelSpec(task="classification", size_hw=(96, 96), antialias=True),
            images="person",
            unlabelled="imagenet",
            published=0.86,
        ),
        Network(
            key="resnet8",
            name="ResNet8, CIFAR-10",
            model=f"{nets}:ResNet8",
            weights=models / "resnet8_cifar10.pth",
            spec=ModelSpec(task="classification", size_hw=(32, 32), scale=1.0),
            images="cifar10",
            published=0.775,
        ),
        Network(
            key="resnet20",
            name="ResNet20, CIFAR-10",
            model=f"{PUBLISHED}:resnet20_cifar10",
            weights=models / "resnet20_cifar10-12fca82f.th",
            spec=ModelSpec(task="classification", size_hw=(32, 32), **IMAGENET),
            images="cifar10",
            published=0.814,
        ),
    ]


@cache
def labelled(name: str, data: Path) -> tuple[list[Frame], list[int]]:
    """Frames (BGR) and class indices of a set."""
    if name == "imagenet":
        folder = data / "imagenet_val650"
        with (folder / "labels.csv").open(newline="") as file:
            rows = [row for row in csv.reader(file) if (folder / row[0]).is_file()]
        return [read_image(folder / row[0]) for row in rows], [int(row[1]) for row in rows]
    if name == "person":
        files = list_images(data / "coco128" / "images")
        boxes = data / "coco128" / "labels"
        classes = [int(_shows_person(boxes / f"{file.stem}.txt")) for file in files]
        return [read_image(file) for file in files], classes
    archive = {"textdir": data / "textdir" / "textdir.zip", "cifar10": data / "cifar10_test1500.zip"}[name]
    frames, classes = [], []
    with zipfile.ZipFile(archive) as zipped:
        names = sorted(n for n in zipped.namelist() if n.lower().endswith((".png", ".jpg", ".jpeg")))
        folders = sorted({n.split("/")[-2] for n in names})
        for member in names:
            encoded = np.frombuffer(zipped.read(member), np.uint8)
            frames.append(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8))
            classes.append(folders.index(member.split("/")[-2]))
    return frames, classes


def split(network: Network, data: Path) -> Split:
    """At most 128 images, and at most half, taken evenly to calibrate on; the others to judge on."""
    frames, classes = labelled(network.images, data)
    count = min(CALIBRATION_IMAGES, len(frames) // 2)
    chosen = set(np.linspace(0, len(frames) - 1, count).round().astype(int).tolist())
    rest = [i for i in range(len(frames)) if i not in chosen]
    judged = [frames[i] for i in rest]
    if network.unlabelled:
        judged += labelled(network.unlabelled, data)[0]
    return Split([frames[i] for i in sorted(chosen)], judged, [classes[i] for i in rest])


def _shows_person(boxes: Path) -> bool:
    """Whether a YOLO box of class 0 covers 0.5 % of the image; one without boxes has no file.

    The rule of Chowdhery et al., "Visual Wake Words Dataset" (2019).
    """
    rows = [line.split() for line in boxes.read_text().splitlines()] if boxes.exists() else []
    return any(int(row[0]) == 0 and float(row[3]) * float(row[4]) > LEAST_PERSON for row in rows)
