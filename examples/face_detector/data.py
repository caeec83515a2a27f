"""Training material: face crops, and photographs in which two detectors have marked the faces.

Everything the classifier learns from is a *patch*: a ``PATCH`` pixel square whose central
``CORE`` pixels are one window. The margin lets augmentation rotate, shift and rescale with real
surroundings instead of invented ones.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from dense import overlaps
from teachers import RetinaFace, UltraFace

FloatArray = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Patches = npt.NDArray[np.uint8]

CORE = 64
PATCH = 96

FACE_SIDE = 0.825
"""Geometric mean side of RetinaFace's box over the side of a faces64 crop (median)."""

_LAST_ANIMAL_CLASS = 397
_NOT_FOR_TRAINING = {"astronaut.png", "camera.png"}


@dataclass
class Scene:
    """A photograph with what the teachers say about it.

    Attributes:
        name: File name, for the held-out split and for messages.
        image: BGR pixels.
        faces: Windows ``x1, y1, x2, y2`` around faces on which both teachers agree.
        unsure: Windows around everything else that a teacher suspects.
    """

    name: str
    image: Image
    faces: FloatArray
    unsure: FloatArray

    def verdict(self, window: FloatArray) -> str:
        """Says whether a window shows ``"face"``, ``"none"`` or something unclear (``""``)."""
        if len(self.unsure) and overlaps(window, self.unsure).max() > 0.1:
            return ""
        best = overlaps(window, self.faces).max() if len(self.faces) else 0.0
        return "face" if best > 0.6 else "none" if best < 0.3 else ""


def load_crops(archive: Path, folder: str) -> Patches:
    """Reads one folder of faces64.zip as patches with mirrored margins.

    Args:
        archive: ``faces64.zip``.
        folder: ``faces``, ``faces_masked`` or ``neg``.

    Returns:
        ``[N, PATCH, PATCH, 3]`` BGR bytes.
    """
    margin = (PATCH - CORE) // 2
    patches = []
    with zipfile.ZipFile(archive) as files:
        for name in sorted(n for n in files.namelist() if n.startswith(f"{folder}/")):
            if name.endswith("/"):
                continue
            crop = cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_COLOR)
            if crop is None:
                raise ValueError(f"{archive}: {name} is no image")
            patches.append(cv2.copyMakeBorder(crop, margin, margin, margin, margin, cv2.BORDER_REFLECT_101))
    return np.asarray(patches, np.uint8)


def cut_patch(image: Image, window: FloatArray) -> Image:
    """Cuts a window with its margin out of a photograph, mirroring past the border."""
    side = float(window[2] - window[0]) * PATCH / CORE
    centre = (window[:2] + window[2:4]) / 2
    x1, y1 = (round(float(c) - side / 2) for c in centre)
    size = max(round(side), 2)
    height, width = image.shape[:2]
    pad = max(-x1, -y1, x1 + size - width, y1 + size - height, 0)
    if pad:
        image = np.asarray(cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REFLECT_101), np.uint8)
    crop = image[y1 + pad : y1 + pad + size, x1 + pad : x1 + pad + size]
    how = cv2.INTER_AREA if size > PATCH else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (PATCH, PATCH), interpolation=how), np.uint8)


def _windows(boxes: FloatArray) -> FloatArray:
    """Turns teacher boxes into the square windows a faces64 crop would have had."""
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    side = np.sqrt(np.prod(boxes[:, 2:4] - boxes[:, :2], 1, keepdims=True)) / FACE_SIDE
    return np.concatenate([centre - side / 2, centre + side / 2], 1).astype(np.float32)


def _label(image: Image, animal: bool, retina: RetinaFace, ultra: UltraFace) -> list[FloatArray]:
    """Splits what the teachers see into agreed faces and unsure regions.

    Teachers fire on the faces of animals, and those are the negatives that matter most, so in a
    photograph that is known to be of an animal only a confident detection is set aside.
    """
    near, far, other = retina(image, 0.1), retina(image, 0.1, zoom=2.0), ultra(image, 0.1)
    found = np.concatenate([near, far])
    agreed = [
        row[4] >= 0.9 and bool(np.any((overlaps(row[:4], other[:, :4]) > 0.5) & (other[:, 4] > 0.7)))
        for row in found
    ]
    faces = _unique(_windows(found[np.asarray(agreed, bool)]))
    if animal:
        doubts = [near[near[:, 4] > 0.7], far[far[:, 4] > 0.8], other[other[:, 4] > 0.8]]
        return [faces[:0], _windows(np.concatenate(doubts))]
    doubts = [near[near[:, 4] > 0.15], far[far[:, 4] > 0.3], other[other[:, 4] > 0.3]]
    unsure = _windows(np.concatenate(doubts))
    alone = [not (len(faces) and overlaps(window, faces).max() > 0.4) for window in unsure]
    return [faces, unsure[np.asarray(alone, bool)]]


def _unique(windows: FloatArray) -> FloatArray:
    kept: list[FloatArray] = []
    for window in windows:
        if not kept or overlaps(window, np.asarray(kept)).max() < 0.4:
            kept.append(window)
    return np.asarray(kept, np.float32).reshape(-1, 4)


def load_scenes(data: Path, cache: Path) -> list[Scene]:
    """Loads the photographs and labels them, or takes the labels from an earlier run.

    Args:
        data: The data folder.
        cache: JSON file that keeps the teachers' labels.

    Returns:
        The scenes of imagenet_val650 and, where scikit-image is installed, its sample images.
    """
    with (data / "imagenet_val650" / "labels.csv").open(newline="") as stream:
        classes = {name: int(label) for name, label in csv.reader(stream)}
    paths = sorted((data / "imagenet_val650").glob("*.JPEG")) + _sample_images()
    known: dict[str, list[list[list[float]]]] = {}
    if cache.exists():
        known = json.loads(cache.read_text())
    retina = RetinaFace(data / "models" / "retinaface_mobilenet025.pth")
    ultra = UltraFace(data / "models" / "ultraface_RFB320.onnx")
    scenes = []
    for path in paths:
        image = cv2.imread(str(path))
        if image is None or min(image.shape[:2]) < 200:
            continue
        shrink = 512 / max(image.shape[:2])
        if shrink < 1:
            image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        picture = np.asarray(image, np.uint8)
        if path.name not in known:
            animal = classes.get(path.name, 1000) <= _LAST_ANIMAL_CLASS
            known[path.name] = [a.tolist() for a in _label(picture, animal, retina, ultra)]
        faces, unsure = (np.asarray(a, np.float32).reshape(-1, 4) for a in known[path.name])
        scenes.append(Scene(path.name, picture, faces, unsure))
    cache.write_text(json.dumps(known))
    return scenes


def _sample_images() -> list[Path]:
    """Finds scikit-image's own pictures: textures, objects and text, no faces."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent / "data"
    paths = sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])
    return [path for path in paths if path.name not in _NOT_FOR_TRAINING]
