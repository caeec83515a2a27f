"""Pruning curves: what is left of three networks when 10–60 % of their work is cut, by way of recovery.

usage: python benchmarks/pruning.py [--model NAME] [--data DIR] [--svg docs/pruning.svg]

Prints Markdown tables. Channels are cut by the product's own choice; naive is the cut alone, "+ BN" re-estimates
BatchNorm, "+ reconstruction" is what edgecnn.prune gives. One part of the images calibrates, another judges.
The speed is that of a ResNet-18 with random weights, half of it cut, in ONNX Runtime on one thread.
"""

from __future__ import annotations

import argparse
import copy
import csv
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import torchvision
from faces import data_folder
from published import mobilenet_v2_tf_padding, resnet20_cifar10
from safetensors.torch import load_file
from torch import nn

from edgecnn import ModelSpec
from edgecnn.converters.load import load_model
from edgecnn.converters.onnx_canonical import canonical
from edgecnn.pruning import Pruner, prune
from edgecnn.pruning.batchnorm import reestimate
from edgecnn.pruning.network import batch_norms, input_batches, outputs
from edgecnn.vision import read_image
from edgecnn.vision.geometry import fit

ROOT = Path(__file__).resolve().parent.parent
FACE = ROOT / "examples" / "face_detector"
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
WAYS = ("naive", "+ BN", "+ reconstruction")
COLOURS = ("#9a9a9a", "#d97706", "#1d6fd1")

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One network, its images in the model's size and colour order, their classes, and the split."""

    name: str
    module: nn.Module
    spec: ModelSpec
    images: Images
    classes: npt.NDArray[np.int64]
    calibration: int


@dataclass(frozen=True)
class Point:
    """Accuracy and agreement with the whole network of each way of recovery, at a measured cut."""

    ratio: float
    cut: float
    accuracy: tuple[float, ...]
    agreement: tuple[float, ...]


def shuffled(items: list[Any], count: int) -> list[Any]:
    """Some of the items in a random order, always the same."""
    return [items[i] for i in np.random.default_rng(0).permutation(len(items))[:count]]


def unzipped(
    archive: Path, classes: list[str], count: int, spec: ModelSpec
) -> tuple[Images, npt.NDArray[Any]]:
    """Images of an archive with a folder for each class."""
    with zipfile.ZipFile(archive) as files:
        names = [n for n in sorted(files.namelist()) if n.endswith(".jpg") and n.split("/")[0] in classes]
        chosen = shuffled(names, count)
        frames = [
            cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_COLOR) for name in chosen
        ]
    labels = [classes.index(name.split("/")[0]) for name in chosen]
    return np.stack([fit(np.asarray(frame, np.uint8), spec)[0] for frame in frames]), np.array(labels)


def resnet20(data: Path) -> Case:
    """ResNet20 on CIFAR-10."""
    module = resnet20_cifar10()
    file = data / "models" / "resnet20_cifar10-12fca82f.th"
    weights = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]
    module.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    spec = ModelSpec(
        task="classification", size_hw=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    images, labels = unzipped(data / "cifar10_test1500.zip", classes, 1256, spec)
    return Case("ResNet20", module, spec, images, labels, 256)


def mobilenet_v2(data: Path) -> Case:
    """MobileNetV2 on photographs of 1000 classes."""
    module = mobilenet_v2_tf_padding()
    file = data / "models" / "mobilenet_v2_imagenet_from_ptq.pth"
    module.load_state_dict(torch.load(file, weights_only=True))
    spec = ModelSpec(
        task="classification",
        size_hw=(224, 224),
        resize="center_crop",
        resize_short=227,
        mean=(0.5,),
        std=(0.5,),
    )
    folder = data / "imagenet_val650"
    with (folder / "labels.csv").open(newline="") as stream:
        rows = shuffled(list(csv.reader(stream)), 300)
    images = np.stack([fit(read_image(folder / name), spec)[0] for name, _ in rows])
    return Case("MobileNetV2", module, spec, images, np.array([int(label) for _, label in rows]), 128)


def face(data: Path) -> Case:
    """The face classifier that ships, on crops with and without a face."""
    sys.path.insert(0, str(FACE))
    from net import face_window_net

    module = face_window_net()
    module.load_state_dict(load_file(FACE / "face.safetensors"))
    spec = ModelSpec.from_file(FACE / "face.toml")
    images, labels = unzipped(data / "faces64" / "faces64.zip", ["neg", "faces", "faces_masked"], 2256, spec)
    return Case("face", module, spec, images, np.minimum(labels, 1), 256)


CASES: dict[str, Callable[[Path], Case]] = {"resnet20": resnet20, "mobilenet_v2": mobilenet_v2, "face": face}


def decisions(module: nn.Module, case: Case) -> npt.NDArray[np.int64]:
    """The class of each image that judges; of one logit, whether it reaches the threshold."""
    logits = outputs(module, input_batches(case.images[case.calibration :], case.spec))[0].numpy()
    if logits.shape[1] > 1:
        return np.asarray(logits.argmax(1), np.int64)
    return np.asarray(1 / (1 + np.exp(-logits[:, 0])) >= case.spec.threshold, np.int64)


def curve(case: Case) -> tuple[float, list[Point]]:
    """Accuracy of the whole network, and the points of its curve."""
    whole = decisions(case.module.eval(), case)
    truth = case.classes[case.calibration :]
    pruner = Pruner(case.module, case.images[: case.calibration], case.spec)
    points = []
    for ratio in RATIOS:
        naive, recovered = pruner.cut(ratio, recover=False), pruner.cut(ratio)
        normed = copy.deepcopy(naive.module)
        reestimate(normed, batch_norms(normed), pruner.batches)
        found = [decisions(module, case) for module in (naive.module, normed, recovered.module)]
        points.append(
            Point(
                ratio,
                1 - naive.macs_after / naive.macs_before,
                tuple(float(np.mean(each == truth)) for each in found),
                tuple(float(np.mean(each == whole)) for each in found),
            )
        )
        print(f"pruning: {case.name} {points[-1]}", file=sys.stderr)
    return float(np.mean(whole == truth)), points


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curve_table(name: str, whole: float, points: list[Point]) -> str:
    """Accuracy and, in brackets, agreement with the whole network."""
    rows = [
        [name, f"{p.cut:.1%}", *(f"{a:.1%} ({g:.1%})" for a, g in zip(p.accuracy, p.agreement))]
        for p in points
    ]
    return table(["network", "work cut", *WAYS], [[name, "0 %", *[f"{whole:.1%} (100 %)"] * 3], *rows])


def svg(curves: dict[str, list[Point]]) -> str:
    """Agreement with the whole network over the work that was cut, a panel for each network."""
    width, height, left, top, gap = 240, 200, 48, 40, 36
    parts = []
    for panel, (name, points) in enumerate(curves.items()):
        x0 = left + panel * (width + gap)
        parts.append(
            f'<text x="{x0 + width / 2}" y="{top - 14}" text-anchor="middle" font-weight="bold">{name}</text>'
        )
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            y = top + height * (1 - share)
            parts.append(f'<path d="M{x0} {y}h{width}" stroke="#8884"/>')
            parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
        for ratio in (0.0, *RATIOS):
            x = x0 + width * ratio / 0.65
            parts.append(f'<text x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{ratio:.0%}</text>')
        for way, colour in enumerate(COLOURS):
            dots = [(0.0, 1.0), *((p.cut, p.agreement[way]) for p in points)]
            at = [(x0 + width * cut / 0.65, top + height * (1 - agreement)) for cut, agreement in dots]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
    total = left + len(curves) * (width + gap)
    for way, (label, colour) in enumerate(zip(WAYS, COLOURS)):
        x = left + way * 130
        parts.append(f'<rect x="{x}" y="{top + height + 34}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="{top + height + 40}">{label}</text>')
    title = "Decisions that agree with the whole network, over the share of multiply-accumulates that was cut"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {top + height + 54}" font-family="sans-serif" '
        f'font-size="12" fill="#555" role="img" aria-label="{title}">\n<title>{title}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def speed() -> str:
    """ResNet-18 whole and with half of its work cut: calls in turn, ratio of the medians."""
    spec = ModelSpec(task="classification", size_hw=(224, 224))
    torch.manual_seed(0)
    module = torchvision.models.resnet18().eval()
    images = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), np.uint8)
    pruned = prune(module, images, spec, ratio=0.5, recover=False)
    sessions = [session(canonical(load_model(each), spec).model) for each in (module, pruned.module)]
    seconds: list[list[float]] = [[], []]
    for _ in range(30):
        for runtime, found in zip(sessions, seconds):
            start = time.perf_counter()
            runtime.run(None, {"image": images[:1]})
            found.append(time.perf_counter() - start)
    before, after = (statistics.median(each) for each in seconds)
    cut = 1 - pruned.macs_after / pruned.macs_before
    return (
        f"ResNet-18, {cut:.1%} of its multiply-accumulates and "
        f"{1 - pruned.params_after / pruned.params_before:.1%} of its parameters cut, ONNX Runtime, one thread, medians of "
        f"calls in turn: {before * 1e3:.1f} ms before, {after * 1e3:.1f} ms after, **{before / after:.2f}×**."
    )


def session(model: bytes) -> onnxruntime.InferenceSession:
    """One thread, that does not spin while it waits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit 1 where reconstruction does not beat BatchNorm re-estimation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=[*CASES, "speed"], help="only this one")
    parser.add_argument("--data")
    parser.add_argument("--svg", type=Path, help="where to write the plot")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    curves, beaten = {}, True
    for name, make in CASES.items():
        if options.model in (None, name):
            case = make(data_folder(options.data))
            whole, points = curve(case)
            curves[case.name] = points
            beaten &= all(p.agreement[2] > p.agreement[1] for p in points)
            print(curve_table(case.name, whole, points) + "\n", flush=True)
    if options.svg:
        options.svg.write_text(svg(curves))
    if options.model in (None, "speed"):
        print(speed())
    return int(not beaten)


if __name__ == "__main__":
    sys.exit(main())
