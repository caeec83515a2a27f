"""The parsers of what comes from outside: each takes the bytes of a mutant, and raises errors of edgecnn only."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgecnn.bundle import Bundle
from edgecnn.calibration import draw_samples
from edgecnn.datasets import open_dataset
from edgecnn.loading import read_artifact
from edgecnn.manifest import decode_manifest
from edgecnn.spec import ModelSpec
from edgecnn.untrusted import convert_and_run
from edgecnn.vision import VideoReader, read_image
from tests.fuzz.containers import in_video
from tests.fuzz.mutation import Change, in_json, in_npz, in_onnx, in_png

__all__ = ["CORPUS", "TARGETS", "Target"]

CORPUS = Path(__file__).parent / "corpus"
CLASSES = ModelSpec(task="classification", size_hw=(8, 8), labels=("b", "g", "r"), activation="none")
BOXES = ModelSpec(task="window_detection", size_hw=(8, 8), labels=("cat", "dog"))


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        parse: Takes a mutant and a folder of its own to put it into.
        changes: What keeps the form of its files.
        what: It, in words.
        slice: Mutants of it in the test suite.
    """

    parse: Callable[[bytes, Path], object]
    what: str
    changes: tuple[Change, ...] = ()
    slice: int = 300

    @property
    def seeds(self) -> list[bytes]:
        """Real files, of the folder with its name."""
        name = next(name for name, target in TARGETS.items() if target is self)
        return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def _manifest(data: bytes, folder: Path) -> object:
    return decode_manifest(data, "manifest.json")


def _spec(data: bytes, folder: Path) -> object:
    path = folder / ("spec.json" if data.startswith(b"{") else "spec.toml")
    path.write_bytes(data)
    return ModelSpec.from_file(path)


def _bundle(data: bytes, folder: Path) -> object:
    """A mutant is the manifest, the model or the arrays of a whole bundle, listed with their hash or not."""
    draw = random.Random(hashlib.sha256(data).digest())
    path = folder / "fuzz.edge"
    shutil.copytree(CORPUS.parent / "whole.edge", path)
    manifest = json.loads((path / "manifest.json").read_bytes())
    if data[:1] in (b"{", b"["):
        (path / "manifest.json").write_bytes(data)
    else:
        name = "golden.npz" if data[:2] == b"PK" else "model.onnx"
        (path / name).write_bytes(data)
        for entry in manifest["files"]:
            if entry["path"] == name and draw.random() < 0.9:
                entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (path / "manifest.json").write_text(json.dumps(manifest))
    file = path / draw.choice(("model.onnx", "golden.npz", "manifest.json", "manifest.sig", "more/x"))
    way = draw.randrange(30)
    if way < 6:
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
    if way == 0:
        file.symlink_to("/etc/passwd")
    elif way == 1:
        os.mkfifo(file)
    elif way == 2:
        file.mkdir()
    elif way == 3:
        os.link(shutil.copy(CORPUS / "manifest" / "small.json", folder), file)
    elif way == 4:
        file.write_bytes(data[:100])
    bundle = Bundle(path)
    bundle.golden()
    return [read_artifact(bundle, entry) for entry in bundle.manifest.artifacts]


def _image(data: bytes, folder: Path) -> object:
    path = folder / "image.png"
    path.write_bytes(data)
    return read_image(path)


def _video(data: bytes, folder: Path) -> object:
    """What edgecnn runs in a child process; here in the one that counts deaths."""
    path = folder / "clip.mp4"
    path.write_bytes(data)
    with VideoReader(path) as video:
        return list(islice(video, 3))


def _calibration(data: bytes, folder: Path) -> object:
    """An archive of frames, or a folder with a picture."""
    source = folder / "photos"
    if data.startswith(b"PK"):
        source = folder / "frames.npz"
        source.write_bytes(data)
    else:
        source.mkdir()
        (source / "a.jpg").write_bytes(data)
        (source / "empty").mkdir()
    return draw_samples(source, CLASSES, 4)


def _dataset(data: bytes, folder: Path) -> object:
    (folder / "a.png").write_bytes(b"x")
    coco = data[:1] in (b"{", b"[")
    path = folder / ("boxes.json" if coco else "classes.csv")
    path.write_bytes(data)
    return open_dataset(path, BOXES if coco else CLASSES)


def _onnx(data: bytes, folder: Path) -> object:
    """What edgecnn runs in a child process; here in the one that counts deaths."""
    return convert_and_run(data, "fuzz.onnx", CLASSES.to_dict(), None, None)


TARGETS = {
    "manifest": Target(_manifest, "manifest.json", (in_json,), 500),
    "spec": Target(_spec, "a spec, TOML or JSON", (in_json,), 500),
    "bundle": Target(_bundle, "a bundle's folder, its manifest, model and npz", (in_json, in_npz, in_onnx)),
    "image": Target(_image, "an image file: BMP, JPEG, PNG, PNM, TIFF, WebP", (in_png,)),
    "video": Target(
        _video, "a video file, its headers and first frames: AVI, MP4, MKV, WebM", (in_video,), 120
    ),
    "calibration": Target(_calibration, "a calibration folder or npz", (in_npz, in_png)),
    "dataset": Target(_dataset, "labelled data, COCO JSON or CSV", (in_json,)),
    "onnx": Target(_onnx, "an ONNX file: parsed, converted and run", (in_onnx,), 100),
}
