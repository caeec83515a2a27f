"""Frames to the size of a model's input beside Pillow and torchvision, and what that adds to an engine's time.

usage: python benchmarks/geometry.py [--data DIR]

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. One thread; medians of the processor time of calls
made in turns, each on a frame that was just written, as a decoder leaves it. The pictures and the network are not part
of the project: --data, $EDGECNN_DATA or ../shared/data names the folder that holds them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from faces import data_folder
from networks import networks, split
from PIL import Image
from tables import table
from torchvision.transforms import v2 as transforms

import edgecnn
from edgecnn import ModelSpec
from edgecnn.vision import fit, list_images, read_image, resize

SOURCE_HW, TARGET_HW = (1080, 1920), (224, 224)
SAMPLES = 16
ROUNDS, SECONDS = 15, 4.0
# goals
LEVELS, LEAST_OVER_PILLOW = 2, 5.0
MOST_OF_ENGINE = {False: 1.30, True: 1.80}
MODES = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
}

Frame = npt.NDArray[np.uint8]
Calls = Mapping[str, Callable[[Frame], Any]]


def in_turns_ms(calls: Calls, source: Frame) -> dict[str, float]:
    """Median processor time of each call."""
    frame, times = source.copy(), {name: list[float]() for name in calls}
    begin = time.perf_counter()
    while len(times[next(iter(calls))]) < ROUNDS or time.perf_counter() - begin < SECONDS:
        for name, call in calls.items():
            np.copyto(frame, source)
            start = time.thread_time()
            call(frame)
            times[name].append((time.thread_time() - start) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}


def pictures(data: Path) -> Iterator[tuple[str, Iterable[Frame]]]:
    """What the results are compared with Pillow's on."""
    rng = np.random.default_rng(0)
    photos = [read_image(path) for path in list_images(data / "coco128" / "images")]
    yield "photographs as they are", photos
    yield "photographs enlarged to 1920×1080", (cv2.resize(photo, SOURCE_HW[::-1]) for photo in photos[:16])
    yield "noise of 1920×1080", (rng.integers(0, 256, (*SOURCE_HW, 3), np.uint8) for _ in range(4))
    for side in (1, 3, 8, 40):
        drawn = rng.choice(np.array([0, 255], np.uint8), (*(-(-size // side) for size in SOURCE_HW), 3))
        squares = drawn.repeat(side, 0).repeat(side, 1)[: SOURCE_HW[0], : SOURCE_HW[1]]
        yield f"black and white squares of {side} px", [squares]


def pillow(frame: Frame, kernel: str, *, columns_first: bool) -> Frame:
    """Pillow's result, with the order of the passes left to it or as before its version 13."""
    image, mode = Image.fromarray(frame), Image.Resampling[kernel.upper()]
    if columns_first:
        image = image.resize((TARGET_HW[1], image.height), mode)
    return np.asarray(image.resize(TARGET_HW[::-1], mode))


def differences(data: Path) -> tuple[str, list[str]]:
    """The largest differences from Pillow in levels, as a table, and the goals that are missed."""
    rows, misses = [], []
    kinds = {"bilinear": ("bilinear", False), "bicubic": ("bicubic", False)}
    kinds["bicubic, columns first"] = ("bicubic", True)
    for name, frames in pictures(data):
        most, count = dict.fromkeys(kinds, 0), 0
        for frame in frames:
            count += 1
            for kind, (kernel, columns_first) in kinds.items():
                expected = pillow(frame, kernel, columns_first=columns_first).astype(int)
                ours = resize(frame, TARGET_HW, kernel, antialias=True)
                most[kind] = max(most[kind], int(np.abs(ours - expected).max()))
        rows.append([name, count, *most.values()])
        misses += [
            f"{name}, {kind}: {levels} levels from Pillow, the goal is {LEVELS}"
            for kind, levels in most.items()
            if levels > LEVELS
        ]
    return table(["pictures", "count", *kinds], rows), misses


def spec_of(policy: str, **fields: Any) -> ModelSpec:
    """A spec of the size that frames are brought to; a crop is cut from 256 px."""
    short = 256 if policy == "center_crop" else None
    return ModelSpec(task="classification", size_hw=TARGET_HW, resize=policy, resize_short=short, **fields)


def by_pillow(frame: Frame, *, resized: Callable[[Any], Any]) -> Frame:
    """A frame to RGB of the model's size, through a PIL image."""
    return np.asarray(resized(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))))


def by_tensor(frame: Frame, *, resized: Callable[[Any], Any]) -> Frame:
    """The same through a tensor that views the frame; the colours of the small image are turned, as here."""
    small = resized(torch.from_numpy(frame).permute(2, 0, 1)).permute(1, 2, 0).contiguous()
    return np.asarray(cv2.cvtColor(small.numpy(), cv2.COLOR_BGR2RGB))


def antialiased(source: Frame) -> tuple[str, list[str]]:
    """The table beside Pillow and torchvision, and the goals that are missed."""
    rows, misses = [], []
    out = np.empty((*TARGET_HW, 3), np.uint8)
    for kernel, mode in MODES.items():
        for policy in ("stretch", "center_crop"):
            whole = transforms.Resize(TARGET_HW, mode, antialias=True)
            cut = [transforms.Resize(256, mode, antialias=True), transforms.CenterCrop(TARGET_HW)]
            theirs = whole if policy == "stretch" else transforms.Compose(cut)
            spec = spec_of(policy, interpolation=kernel, antialias=True)
            ms = in_turns_ms(
                {
                    "edgecnn": partial(fit, spec=spec, out=out),
                    "pillow": partial(by_pillow, resized=theirs),
                    "tensor": partial(by_tensor, resized=theirs),
                },
                source,
            )
            ratio = ms["pillow"] / ms["edgecnn"]
            ratios = [f"{ratio:.2f}×", f"{ms['tensor'] / ms['edgecnn']:.2f}×"]
            rows.append([kernel, policy, *(f"{taken:.2f}" for taken in ms.values()), *ratios])
            if ratio < LEAST_OVER_PILLOW:
                misses.append(
                    f"{kernel}, {policy}: {ratio:.2f} times as fast as PIL and torchvision, "
                    f"the goal is {LEAST_OVER_PILLOW:g}"
                )
    header = ["kernel", "policy", "edgecnn ms", "PIL image ms", "tensor ms", "PIL image", "tensor"]
    return table(header, rows), misses


def aliased(source: Frame) -> str:
    """The table of the whole of `fit` beside OpenCV's resize to the same size."""
    rows = []
    for policy, inner_hw in (("stretch", TARGET_HW), ("letterbox", (126, 224)), ("center_crop", (256, 455))):
        out, small = np.empty((*TARGET_HW, 3), np.uint8), np.empty((*inner_hw, 3), np.uint8)
        ms = in_turns_ms(
            {
                "edgecnn": partial(fit, spec=spec_of(policy), out=out),
                "cv2.resize": partial(cv2.resize, dsize=inner_hw[::-1], dst=small),
            },
            source,
        )
        ratio = f"{ms['edgecnn'] / ms['cv2.resize']:.2f}×"
        rows.append([policy, *(f"{taken:.3f}" for taken in ms.values()), ratio])
    return table(["policy", "fit ms", "cv2.resize ms", "ratio"], rows)


def mobilenet(data: Path, folder: Path) -> edgecnn.Bundle:
    """MobileNetV2 in INT8; its ranges are found the quick way, which does not change its time."""
    network = next(network for network in networks(data) if network.key == "mobilenet_v2")
    return edgecnn.convert(
        network.model,
        spec=network.spec,
        weights=network.weights,
        calibration=split(network, data).calibration[:SAMPLES],
        samples=SAMPLES,
        precision="int8",
        method="minmax",
        speed_gate=False,
        out=folder / "mobilenet_v2.edge",
    )


def whole_calls(source: Frame, data: Path) -> tuple[str, list[str]]:
    """The table of predictors beside the bare engine on an input that is ready, and the goals that are missed."""
    rows, misses = [], []
    with tempfile.TemporaryDirectory() as folder:
        bundle = mobilenet(data, Path(folder))
        with edgecnn.load(bundle, runtime="ort", precision="int8", threads=1) as loaded:
            for policy, (antialias, most) in product(("stretch", "center_crop"), MOST_OF_ENGINE.items()):
                spec = loaded.spec.replace(
                    resize=policy, resize_short=spec_of(policy).resize_short, antialias=antialias
                )
                feeds = {loaded.runtime.inputs[0].name: fit(source, spec)[0][None]}
                ms = in_turns_ms(
                    {
                        "predictor": edgecnn.Predictor(bundle, loaded.runtime, spec),
                        "engine": lambda frame, feeds=feeds: loaded.runtime.run(feeds),
                    },
                    source,
                )
                ratio = ms["predictor"] / ms["engine"]
                kind = "antialiased" if antialias else "aliased"
                rows.append([policy, kind, *(f"{taken:.2f}" for taken in ms.values()), f"{ratio:.2f}×"])
                if ratio > most:
                    misses.append(
                        f"INT8 MobileNetV2, {policy}, {kind}: {ratio:.2f} times the bare engine, "
                        f"the most is {most:.2f}"
                    )
    return table(["policy", "resizing", "whole call ms", "engine ms", "ratio"], rows), misses


def section(data: Path) -> tuple[str, list[str]]:
    """Its part of the page, and the goals that are missed."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    source = cv2.resize(read_image(list_images(data / "coco128" / "images")[0]), SOURCE_HW[::-1])
    print("geometry: differences from Pillow", file=sys.stderr)
    apart, misses = differences(data)
    print("geometry: antialiased", file=sys.stderr)
    beside, slow = antialiased(source)
    print("geometry: aliased", file=sys.stderr)
    plain = aliased(source)
    print("geometry: int8 MobileNetV2", file=sys.stderr)
    whole, late = whole_calls(source, data)
    misses = [*misses, *slow, *late]
    listed = "\n".join(f"- Goal missed: {miss}." for miss in misses)
    text = f"""## Frames to the size of an input

Frames of {SOURCE_HW[1]}×{SOURCE_HW[0]} to {TARGET_HW[1]}×{TARGET_HW[0]}, one thread; medians of processor time of calls in turns, each on a frame that was
just written, as a decoder leaves it. All go from a BGR frame to RGB. Antialiased, by `edgecnn.vision.fit` into a
canvas that is kept, and as multiples of that: `Image.fromarray` and torchvision's Resize (and CenterCrop) on the PIL
image, and the same transforms on a tensor that views the frame, which is the quicker way there.

{beside}

The largest difference from Pillow's result, in levels:

{apart}

Not antialiased, the whole of `fit` beside `cv2.resize` alone to the same size into an array that is kept:

{plain}

A whole call of an INT8 MobileNetV2 from a frame to its classes, in ONNX Runtime, beside the bare engine on an input
that is ready:

{whole}

Goals: at most {LEVELS} levels; {LEAST_OVER_PILLOW:g}× PIL and torchvision; whole calls at most {MOST_OF_ENGINE[False]:.2f} times the engine, {MOST_OF_ENGINE[True]:.2f} antialiased.
{listed}

Antialiasing looks at each pixel of the frame, and OpenCV has no function that does. Here lines of the result that lie
alike between those of the source are summed up together, in floats; 1080 to 224 has eight such at a time, sizes without
a common divisor have one and take longer. Torchvision's tensors have integer instructions of their own for this; torch
is no part of a device. Bicubic turns the whole frame first, for Pillow takes columns first and clips between the
passes. Its version 13 takes rows first for some upright pictures, and what it gives there is not what models have been
trained on so far: there bicubic is that of older versions.
"""
    return text, misses


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    text, misses = section(data_folder(parser.parse_args(arguments).data))
    print(text)
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
