"""The accuracy budget on networks that plain INT8 breaks: which layers go back to float, and whether fewer would do.

usage: python benchmarks/budget.py [--data DIR] [--json OUT.json]

The channels between two layers are multiplied by random factors of 1 to 1000 and divided again in the layer that
reads them: the network computes what it did, but one 8-bit scale no longer serves its channels. Prints a Markdown
table and one JSON object; exit 1 when a budget is missed, or when ResNet8, of which all sets of up to two float
layers are tried, would meet it with two layers fewer than were kept.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from faces import data_folder
from int8 import CPU, Judge
from libraries import onnxruntime_int8
from networks import CALIBRATION_IMAGES, Network, Split, networks, split
from tables import table
from torch import nn

import edgecnn
from edgecnn.calibration import draw_samples
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters.load import load_model

MAX_DROP = 0.005
WIDEST = 1000.0
TRIED_LAYERS = 2
LEAST_LOST_POINTS = 2.0
SMALL = "resnet8"

# a normalisation without activation behind it, or with a ReLU, and the convolution that alone reads it
Spot = tuple[nn.BatchNorm2d, nn.Conv2d]
SPOTS: dict[str, Callable[[Any], list[Spot]]] = {
    "mobilenet_v2": lambda net: [
        (net.features[1].conv[2], net.features[2].conv[0][0]),
        (net.features[17].conv[3], net.features[18][0]),
    ],
    SMALL: lambda net: [(net.l2.conv1[-2], net.l2.conv2[0])],
}


class Trials:
    """Counts the sets of float layers that the search evaluates."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Called by `edgecnn.quantize` while it works."""
        if what.startswith("searching float layers"):
            self.count = done


def widened(network: Network, spots: Callable[[Any], list[Spot]]) -> nn.Module:
    """The trained network with channels of very different ranges, which computes the same."""
    module = load_model(network.model, network.weights).module
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm, reader in spots(module):
            factors = torch.exp(torch.rand(norm.num_features, generator=generator) * math.log(WIDEST))
            norm.weight *= factors
            norm.bias *= factors
            reader.weight /= factors.view(1, -1, 1, 1)
    return module


def write_csv(frames: Split, folder: Path) -> Path:
    """The judged images with their classes, as ``edgecnn.evaluate`` takes them."""
    rows = []
    for i, (frame, label) in enumerate(zip(frames.judged, frames.classes)):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
        rows.append((f"{i}.png", label))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


def measure(data: Path) -> dict[str, Any]:
    """Hold the networks to the budget: figures of each, and the promises that are not kept."""
    rows = [measure_network(network, data) for network in networks(data) if network.key in SPOTS]
    return {"networks": rows, "missed": [promise for promise, kept in promises(rows) if not kept]}


def measure_network(network: Network, data: Path) -> dict[str, Any]:
    """Hold one network to the budget."""
    progress(network, "fp32")
    frames = split(network, data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = edgecnn.convert(
            widened(network, SPOTS[network.key]),
            spec=network.spec,
            calibration=frames.calibration,
            out=folder / "fp32.edge",
        )
        model, spec = whole.read("model.onnx"), whole.manifest.spec
        judged = draw_samples(frames.judged, spec, len(frames.judged)).images
        samples = draw_samples(frames.calibration, spec, CALIBRATION_IMAGES).images
        judge = Judge(model, judged, frames.classes)
        progress(network, "edgecnn.quantize")
        trials = Trials()
        small = edgecnn.quantize(
            whole,
            out=folder / "int8.edge",
            calibration=frames.calibration,
            samples=CALIBRATION_IMAGES,
            evaluation=write_csv(frames, folder),
            max_drop=MAX_DROP,
            speed_gate=False,
            on_work=trials,
        )
        found = small.read("model.int8.onnx")
    record = next(each for each in small.manifest.quantization if each.artifact == CPU)
    builder = Int8Builder(model, samples)
    progress(network, "plain INT8")
    row = {
        "key": network.key,
        "name": network.name,
        "fp32_top1": judge.top1,
        "lost_points": {
            "onnxruntime": judge.lost_points(onnxruntime_int8(model, samples)),
            "edgecnn": judge.lost_points(builder.build("cpu")),
            "edgecnn, budget": judge.lost_points(found),
        },
        "layers": len(builder.layers),
        "evaluations": trials.count,
        "kept_float": [{"layer": each.layer, "macs": each.macs_share} for each in record.kept_float],
    }
    if network.key == SMALL:
        progress(network, f"all sets of up to {TRIED_LAYERS} float layers")
        sets = float_sets(builder, judge)
        row["tried_sets"] = len(sets)
        row["meeting_sets"] = [kept for kept, lost in sets.items() if lost <= 100 * MAX_DROP]
    return row


def float_sets(builder: Int8Builder, judge: Judge) -> dict[tuple[str, ...], float]:
    """Points that INT8 loses with each set of up to two layers in float."""
    names = [layer.name for layer in builder.layers]
    sets = (kept for n in range(TRIED_LAYERS + 1) for kept in itertools.combinations(names, n))
    return {kept: judge.lost_points(builder.build("cpu", kept)) for kept in sets}


def progress(network: Network, what: str) -> None:
    """Say what is being done."""
    print(f"budget: {network.name}: {what}", file=sys.stderr, flush=True)


def promises(rows: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Each promise with the figures it is about, and whether it is kept."""
    for row in rows:
        name, lost = row["name"], row["lost_points"]
        worst = min(lost["onnxruntime"], lost["edgecnn"])
        yield (
            f"{name}: plain INT8 loses at least {LEAST_LOST_POINTS} points, {worst:.2f}",
            worst >= LEAST_LOST_POINTS,
        )
        least = lost["edgecnn, budget"]
        yield f"{name}: a budget of {100 * MAX_DROP} points, {least:.2f}", least <= 100 * MAX_DROP
        if "meeting_sets" in row:
            kept = len(row["kept_float"])
            fewest = min(map(len, row["meeting_sets"]), default=TRIED_LAYERS + 1)
            yield f"{name}: one layer more than the fewest, {fewest}, at most: {kept}", kept <= fewest + 1


def markdown(found: dict[str, Any]) -> str:
    """A row for each network."""
    rows = [
        [
            row["name"],
            *(f"{points:.2f}" for points in row["lost_points"].values()),
            ", ".join(f"`{each['layer']}`" for each in row["kept_float"]),
            f"{sum(each['macs'] for each in row['kept_float']):.1%}",
            row["evaluations"],
        ]
        for row in found["networks"]
    ]
    ways = (f"points lost, {way}" for way in found["networks"][0]["lost_points"])
    return table(["network", *ways, "layers in float", "of the MACs", "evaluations"], rows)


def minimality(found: dict[str, Any]) -> str:
    """What trying all small sets of float layers has shown."""
    row = next(row for row in found["networks"] if row["key"] == SMALL)
    sets = ["{" + ", ".join(f"`{name}`" for name in kept) + "}" for kept in row["meeting_sets"]]
    return (
        f"Of all {row['tried_sets']} sets of up to {TRIED_LAYERS} float layers of {row['name']}, "
        f"{len(sets) or 'none'} would meet the budget{': ' if sets else ''}{', '.join(sets)}."
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args(arguments)
    found = measure(data_folder(options.data))
    print(markdown(found) + "\n")
    print(minimality(found) + "\n")
    print(json.dumps(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    for promise in found["missed"]:
        print(f"budget: not kept: {promise}", file=sys.stderr)
    return int(bool(found["missed"]))


if __name__ == "__main__":
    sys.exit(main())
