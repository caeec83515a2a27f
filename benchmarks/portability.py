"""The same images through every engine: decisions and boxes beside those of ONNX Runtime.

usage: python benchmarks/portability.py [--model KEY] [--out docs/portability.md] [--json OUT.json] [--data DIR]

Writes the page, or prints it; exit 1 when a goal is missed. Bundles are kept under build/portability and made again
where the sources, the weights or an engine changed. An engine that cannot run here is left out with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from faces import data_folder
from networks import CALIBRATION_IMAGES, Frame, Network, labelled, networks, split
from tables import table

import edgecnn
from edgecnn import Bundle, Detections
from edgecnn.calibration import draw_samples
from edgecnn.errors import BundleError, GateMissed, Unavailable
from edgecnn.inference import Inference
from edgecnn.loading import artifact_for, open_artifact, open_bundle, read_artifact
from edgecnn.manifest import ArtifactEntry
from edgecnn.openvino_api import try_out
from edgecnn.runtimes import RuntimeOptions, backend
from edgecnn.vision import list_images, read_image
from edgecnn.vision.decode import class_scores

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "portability"
# what decides what is in a bundle
SOURCES = (
    "converters",
    "calibration",
    "edgecnn/conversion.py",
    "edgecnn/quantization.py",
    "edgecnn/ladder.py",
    "edgecnn/compiled.py",
)
REFERENCE = "ort"
OTHERS = {"openvino": "OpenVINO", "tensorrt": "TensorRT"}
PRECISIONS = ("fp32", "fp16", "int8")
# no engine of its own: ONNX Runtime, which computes the Q/DQ graph node by node in float
UNFUSED = "unfused"
NAMES = {**OTHERS, UNFUSED: "ONNX Runtime, not fused"}
LEAST_SAME = {"fp32": 1.0, "fp16": 0.995, "int8": 0.995}
MOST_PX = 0.5
THREADS = 2

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decisions:
    """Scores of an engine beside those of ONNX Runtime for the same precision of a network.

    Attributes:
        images: How many went through both.
        same: How many of them have the same best class.
        max_abs: Largest difference of a probability.
        top1: Accuracy of both, ONNX Runtime's first.
        int8_layers: Of the heavy layers, how many the engine runs in INT8; empty where it does not tell.
    """

    network: str
    precision: str
    runtime: str
    images: int
    same: int
    max_abs: float
    top1: tuple[float, float]
    int8_layers: str = ""


@dataclass(frozen=True)
class Boxes:
    """Detections of an engine beside those of ONNX Runtime, after suppression.

    Attributes:
        images: How many went through both.
        boxes: How many ONNX Runtime found.
        alone: How many of both have no partner within the limit.
        pixels: The largest distance of an edge of a box from that of its partner.
        max_abs: The largest difference of the scores of partners.
    """

    photographs: str
    precision: str
    runtime: str
    images: int
    boxes: int
    alone: int
    pixels: float
    max_abs: float


def absent() -> dict[str, str]:
    """The engines that cannot run here, and why."""
    reasons = {}
    for name in OTHERS:
        try:
            backend(name).check_here()
        except Unavailable as error:
            reasons[OTHERS[name]] = str(error)
    return reasons


def converted(
    network: Network, data: Path, runtimes: Sequence[str], left_out: dict[str, str]
) -> dict[str, Bundle]:
    """A bundle for each precision, made now or kept from the last time.

    Args:
        network: What to convert.
        data: The folder with networks and images.
        runtimes: What to convert it for, besides ONNX Runtime.
        left_out: Gets the reason where a precision misses a gate.
    """
    key = fingerprint(network, runtimes)
    bundles = {}
    for precision in ("fp16", "int8"):
        path = KEPT / f"{network.key}-{precision}-{key}.edge"
        try:
            if not path.exists():
                progress(network.name, f"to {precision}")
                edgecnn.convert(
                    network.model,
                    spec=network.spec,
                    weights=network.weights,
                    calibration=split(network, data).calibration,
                    samples=CALIBRATION_IMAGES,
                    precision=precision,
                    target=("onnx", *runtimes),
                    speed_gate=False,
                    threads=THREADS,
                    out=path,
                )
        except GateMissed as error:
            left_out[f"{network.name} in {precision}"] = str(error).partition("; no bundle")[0]
            continue
        bundles[precision] = bundles["fp32"] = Bundle(path)
    return {precision: bundles[precision] for precision in PRECISIONS if precision in bundles}


def fingerprint(network: Network, runtimes: Sequence[str]) -> str:
    """Changes with the sources, the weights and the engines."""
    digest = hashlib.sha256(Path(network.weights or "").read_bytes())
    for source in (ROOT / name for name in SOURCES):
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(path.read_bytes())
    digest.update(" ".join(f"{name} {backend(name).version()}" for name in (REFERENCE, *runtimes)).encode())
    return digest.hexdigest()[:12]


def decisions(
    network: Network, data: Path, runtimes: Sequence[str], left_out: dict[str, str]
) -> list[Decisions]:
    """All labelled images through all engines in all precisions; arguments as those of `converted`."""
    bundles = converted(network, data, runtimes, left_out)
    frames, classes = labelled(network.images, data)
    images = draw_samples(frames, bundles["fp32"].manifest.spec, len(frames)).images
    rows = []
    for precision, bundle in bundles.items():
        reference = artifact_for(bundle, backend(REFERENCE), precision)
        known: dict[str, Scores] = {}
        for name in runtimes:
            progress(network.name, f"{precision} on {OTHERS[name]}")
            entry = artifact_for(bundle, backend(name), precision)
            # an engine's own INT8 file is compared with itself: another placement is another model
            source = entry if entry.format == "onnx" else reference
            if source.id not in known:
                known[source.id] = scores(bundle, source, REFERENCE, images)
            found = scores(bundle, entry, name, images)
            row = beside(network, precision, name, known[source.id], found, classes)
            if entry.format == "openvino":
                row = replace(row, int8_layers=int8_layers(bundle, entry))
            rows.append(row)
        if precision == "int8" and reference.id in known:
            found = unfused_scores(bundle, reference, images)
            rows.append(beside(network, precision, UNFUSED, known[reference.id], found, classes))
    return rows


def beside(
    network: Network, precision: str, runtime: str, expected: Scores, found: Scores, classes: Sequence[int]
) -> Decisions:
    """The row of an engine's scores beside those of ONNX Runtime."""
    best = [values.argmax(1) for values in (expected, found)]
    return Decisions(
        network=network.name,
        precision=precision,
        runtime=runtime,
        images=len(classes),
        same=int((best[0] == best[1]).sum()),
        max_abs=float(np.abs(expected - found).max()),
        top1=(float((best[0] == classes).mean()), float((best[1] == classes).mean())),
    )


def scores(bundle: Bundle, entry: ArtifactEntry, runtime: str, images: npt.NDArray[np.uint8]) -> Scores:
    """Of one artifact on one engine, (n, K)."""
    spec, options = bundle.manifest.spec, RuntimeOptions(threads=THREADS)
    with open_artifact(bundle, entry, backend(runtime), options, on_stale="wait") as model:
        inference = Inference(model, spec)
        step = inference.batch(spec.batch_range[2])
        parts = [inference.infer(images[i : i + step]) for i in range(0, len(images), step)]
    return np.concatenate([class_scores(part, spec) for part in parts])


def unfused_scores(bundle: Bundle, entry: ArtifactEntry, images: npt.NDArray[np.uint8]) -> Scores:
    """Of an ONNX file in ONNX Runtime without its graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        bundle.read(entry.path), options, providers=["CPUExecutionProvider"]
    )
    (image,) = session.get_inputs()
    spec = bundle.manifest.spec
    step = spec.batch_range[2]
    parts = [session.run(None, {image.name: images[i : i + step]})[0] for i in range(0, len(images), step)]
    return class_scores({bundle.manifest.outputs[0].name: np.concatenate(parts)}, spec)


def int8_layers(bundle: Bundle, entry: ArtifactEntry) -> str:
    """How many of the heavy layers of an IR OpenVINO runs in INT8 on this processor."""
    artifact = read_artifact(bundle, entry)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    kinds = list(try_out(artifact.content, artifact.weights, "CPU", config)["arithmetic"].values())
    return f"{kinds.count('i8')} of {len(kinds)}"


def boxes(photographs: str, frames: Sequence[Frame], runtimes: Sequence[str]) -> list[Boxes]:
    """Photographs through the shipped face detector on all engines, in the precisions that it holds."""
    bundle = open_bundle("face")
    rows = []
    for precision in [p for p in PRECISIONS if any(e.precision == p for e in bundle.manifest.artifacts)]:
        progress(photographs, f"{precision} on ONNX Runtime")
        expected = detections(bundle, REFERENCE, precision, frames)
        for name in runtimes:
            try:
                artifact_for(bundle, backend(name), precision)
            except BundleError:  # it ships nothing for this engine in this precision
                continue
            progress(photographs, f"{precision} on {OTHERS[name]}")
            found = detections(bundle, name, precision, frames)
            pairs = [partners(a, b) for a, b in zip([*expected, *found], [*found, *expected])]
            pixels = np.concatenate([each[0] for each in pairs])
            apart = np.concatenate([each[1] for each in pairs])
            near = pixels <= MOST_PX
            rows.append(
                Boxes(
                    photographs=photographs,
                    precision=precision,
                    runtime=name,
                    images=len(frames),
                    boxes=sum(map(len, expected)),
                    alone=int((~near).sum()),
                    pixels=float(pixels[near].max(initial=0)),
                    max_abs=float(apart[near].max(initial=0)),
                )
            )
    return rows


def detections(bundle: Bundle, runtime: str, precision: str, frames: Sequence[Frame]) -> list[Detections]:
    """Of each frame."""
    with edgecnn.load(
        bundle, runtime=runtime, precision=precision, threads=THREADS, on_stale="wait"
    ) as detector:
        return [detector(frame) for frame in frames]


def partners(ours: Detections, theirs: Detections) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The nearest of their boxes of the same class for each of ours.

    Returns:
        The largest distance of two edges in pixels, infinite where there is no box, and the difference of the
        scores.
    """
    pixels, apart = np.full(len(ours), np.inf), np.zeros(len(ours))
    for row, (box, class_id) in enumerate(zip(ours.boxes, ours.class_ids)):
        of_class = np.flatnonzero(theirs.class_ids == class_id)
        if len(of_class):
            distances = np.abs(theirs.boxes[of_class] - box).max(axis=1)
            pixels[row] = distances.min()
            apart[row] = abs(theirs.scores[of_class[distances.argmin()]] - ours.scores[row])
    return pixels, apart


def missed(rows: Sequence[Decisions], found: Sequence[Boxes]) -> list[str]:
    """The goals that figures do not keep."""
    where = [
        f"{row.network} in {row.precision} on {OTHERS[row.runtime]} decides as ONNX Runtime on "
        f"{LEAST_SAME[row.precision]:.1%} of the images ({row.same} of {row.images})"
        for row in rows
        if row.runtime != UNFUSED and row.same < LEAST_SAME[row.precision] * row.images
    ]
    return where + [
        f"every box on {row.photographs} in {row.precision} on {OTHERS[row.runtime]} has a partner"
        for row in found
        if row.alone
    ]


def page(rows: Sequence[Decisions], found: Sequence[Boxes], left_out: Mapping[str, str]) -> str:
    """docs/portability.md."""
    from measure import machine

    engines = [f"{name} {backend(key).version()}" for key, name in OTHERS.items() if name not in left_out]
    notes = [f"- {what} is left out: {reason}." for what, reason in left_out.items()]
    notes += [f"- Goal missed: {goal}." for goal in missed(rows, found)]
    listed = "\n".join(notes)
    decided = [
        [
            row.network,
            row.precision,
            NAMES[row.runtime],
            f"{row.same} of {row.images}",
            f"{row.same / row.images:.2%}",
            f"{row.max_abs:.2g}",
            " / ".join(f"{top1:.2%}" for top1 in row.top1),
            row.int8_layers or "–",
        ]
        for row in rows
    ]
    boxed = [
        [
            row.photographs,
            row.precision,
            OTHERS[row.runtime],
            row.images,
            row.boxes,
            row.alone,
            f"{row.pixels:.2g}",
            f"{row.max_abs:.2g}",
        ]
        for row in found
    ]
    return f"""# Portability of results

Written by `benchmarks/portability.py`; do not edit. {machine()} {", ".join(engines)}.

{listed}

## Decisions

All images of imagenet_val650 through ONNX Runtime and another engine, with the same artifact or that engine's own form
of it. A decision is the best class; the difference is the largest of a probability of any image and class. The goal
is the same decision on all images in fp32, on at least {LEAST_SAME["int8"]:.1%} otherwise. Top-1 is ONNX Runtime's, then the other's;
the last column is how many of the convolutions and fully connected layers OpenVINO runs in INT8 on this processor.
*ONNX Runtime, not fused* is no goal but a measure: the same file in ONNX Runtime without its graph optimisations, so
in float between Q/DQ pairs.

{table(["network", "precision", "engine", "same decision", "share", "max difference", "top-1", "in INT8"], decided)}

In INT8 all engines multiply and add the same whole numbers, but each brings the sum to eight bits again by operations
in float32 of its own order. A value on the edge between two steps then falls to one side or the other. Few do, yet
each one moves others over their edges in the next layer, so that deep in a network two engines differ by about as much
as INT8 differs from fp32. OpenVINO moreover does not round a convolution to which it adds a residual branch before that
sum. Decisions change where the two best classes are about equally likely.

## Boxes

Photographs through the face detector that ships, with its own threshold, after suppression. A box has a partner where
the other engine has a box of the class whose edges are all within {MOST_PX} px; boxes of both engines are counted that have
none (goal: 0). Distance and difference of scores are the largest of partners.

{table(["photographs", "precision", "engine", "images", "boxes", "without partner", "px", "max difference"], boxed)}

## What a precision means on each engine

| precision | ONNX Runtime on a CPU | OpenVINO on a CPU | TensorRT |
| --- | --- | --- | --- |
| fp32 | float32 | float32, asked for explicitly: it would take bfloat16 by itself where the CPU has it | float32 |
| fp16 | a float16 ONNX file; where the CPU has no kernels for that, computed in float32, with casts left out between such layers | weights stored in float16, computed in float32 | float16, the types of the ONNX file |
| int8 | the Q/DQ graph; layers between its pairs in INT8 | IR of the same Q/DQ graph | a Q/DQ graph placed for it, compared with the same file in ONNX Runtime |
"""


def progress(what: str, step: str) -> None:
    """What is being done, for those who watch."""
    print(f"portability: {what}: {step}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="key of a network; without it, all and the face detector")
    parser.add_argument("--out", type=Path, help="write the page there")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--data")
    options = parser.parse_args(arguments)
    data = data_folder(options.data)
    chosen = {network.key: network for network in networks(data) if network.images == "imagenet"}
    if options.model not in (None, *chosen):
        parser.error(f"--model is one of {', '.join(chosen)}")
    left_out = absent()
    runtimes = [name for name in OTHERS if OTHERS[name] not in left_out]
    keys = [options.model] if options.model else list(chosen)
    rows = [row for key in keys for row in decisions(chosen[key], data, runtimes, left_out)]
    found: list[Boxes] = []
    if options.model is None:
        for name, folder in (("faces_dlib", data / "faces_dlib"), ("coco128", data / "coco128" / "images")):
            found += boxes(name, [read_image(path) for path in list_images(folder)], runtimes)
    text = page(rows, found, left_out)
    if options.out:
        options.out.write_text(text)
    else:
        print(text)
    if options.json:
        figures = {
            "decisions": [asdict(row) for row in rows],
            "boxes": [asdict(row) for row in found],
            "left_out": left_out,
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    goals = missed(rows, found)
    for goal in goals:
        print(f"portability: missed: {goal}", file=sys.stderr)
    return int(bool(goals))


if __name__ == "__main__":
    sys.exit(main())
