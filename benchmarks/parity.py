"""Converted models beside the modules they were made from, on real images.

usage: python benchmarks/parity.py [--data DIR]

Prints one JSON object: for each model the parity figures of its conversion and, where the images have
labels, the top-1 accuracy of the bundle. The data are not part of the project (see docs/data.md).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from faces import data_folder
from networks import Network, labelled, networks

import edgecnn

SAMPLES = 100
UNTRAINED = Network(
    key="resnet18", name="ResNet-18, random weights", model="torchvision:resnet18", images="imagenet"
)


def measure(data: Path) -> list[dict[str, Any]]:
    """Convert each model and count its right answers."""
    rows = []
    for network in [*networks(data), UNTRAINED]:
        frames, classes = labelled(network.images, data)
        with tempfile.TemporaryDirectory() as folder:
            bundle = edgecnn.convert(
                network.model,
                spec=network.spec,
                weights=network.weights,
                calibration=frames[:: max(len(frames) // SAMPLES, 1)],
                samples=SAMPLES,
                out=Path(folder) / "net.edge",
            )
            fidelity = bundle.manifest.fidelity[0]
            top1 = None
            if network.published is not None:
                with edgecnn.load(bundle) as classifier:
                    answers = [int(classifier(frame).class_ids[0]) for frame in frames]
                top1 = round(float(np.mean(np.array(answers) == classes)), 4)
        rows.append(
            {
                "model": network.name,
                "inputs": fidelity.n,
                "max_abs": fidelity.max_abs,
                "mean_abs": fidelity.mean_abs,
                "cosine": fidelity.cosine,
                "agreement": fidelity.agreement,
                "images": len(frames),
                "top1": top1,
                "published_top1": network.published,
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
