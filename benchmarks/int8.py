"""INT8 beside fp32, and beside what two libraries make of the same models: real networks, real images.

usage: python benchmarks/int8.py [--model KEY] [--skip-libraries] [--fresh] [--json OUT.json] [--data DIR]

Prints a Markdown table and one JSON object; exit 1 when a promise is not kept. One part of the images calibrates,
the other judges. ``onnx-int8-tensorrt`` is emulated in ONNX Runtime. The libraries are onnxruntime (per channel)
and nncf (pip install nncf) with their defaults otherwise; their figures are kept under build/ until the model, the
images or the library change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import libraries
import numpy as np
import numpy.typing as npt
from faces import data_folder
from libraries import Images
from networks import CALIBRATION_IMAGES, Network, networks, split
from tables import table

import edgecnn
from edgecnn.calibration import draw_samples
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from edgecnn.timing import compare_speed

ROOT = Path(__file__).resolve().parent.parent
KEPT_FIGURES = ROOT / "build" / "int8-libraries.json"
CPU, TENSORRT = "onnx-int8", "onnx-int8-tensorrt"
LABELS = {CPU: "edgecnn, cpu", TENSORRT: "edgecnn, tensorrt"}
BATCH = 16
LEAST_INT8_MACS = 0.95
MOST_SIZE = 0.30
MOST_DISAGREEMENT = 0.75


@dataclass(frozen=True)
class Limits:
    """What is promised of a placement: averages over the networks, and the agreement of each."""

    lost_points: float
    agreement: float
    agreement_each: float = 0.0


LIMITS = {CPU: Limits(0.3, 0.985, 0.975), TENSORRT: Limits(0.5, 0.975)}


@dataclass(frozen=True)
class Figures:
    """An INT8 model beside its float one on the judged images.

    Attributes:
        lost_points: Top-1 accuracy that it has less, in percentage points.
        agreement: Share of images with the same decision.
        size: Bytes, as a share of the float model's.
        speedup: Times as fast; one image, one thread, calls in turn. None where it is meant for another engine.
        int8_macs: Share of the multiply-accumulates that are in int8; None where it is not known.
    """

    lost_points: float
    agreement: float
    size: float
    speedup: float | None
    int8_macs: float | None = None


class Judge:
    """Compares models with the float model of a network."""

    def __init__(self, model: bytes, images: Images, classes: list[int]) -> None:
        """Takes inputs of the network; the first of them have classes."""
        self.images = images
        self._classes = classes
        self._model = model
        self._float = opened(model)
        self._decisions = decisions(self._float, images)
        self.top1 = self._accuracy(self._decisions)

    def lost_points(self, model: bytes) -> float:
        """Top-1 accuracy that a model has less, in percentage points."""
        return self._lost(decisions(opened(model), self.images))

    def __call__(self, model: bytes) -> Figures:
        """Figures of one model."""
        small = opened(model)
        found = decisions(small, self.images)
        feeds = {small.inputs[0].name: self.images[:1]}
        speed = compare_speed(lambda: small.run(feeds), lambda: self._float.run(feeds))
        return Figures(
            lost_points=self._lost(found),
            agreement=float(np.mean(found == self._decisions)),
            size=len(model) / len(self._model),
            speedup=1 / speed.ratio,
        )

    def _lost(self, found: npt.NDArray[np.int64]) -> float:
        return 100 * (self.top1 - self._accuracy(found))

    def _accuracy(self, found: npt.NDArray[np.int64]) -> float:
        return float(np.mean(found[: len(self._classes)] == self._classes))


def opened(model: bytes) -> Runtime:
    """The model in ONNX Runtime on one thread."""
    return backend("ort")(Artifact(format="onnx", content=model), RuntimeOptions(threads=1))


def decisions(runtime: Runtime, images: Images) -> npt.NDArray[np.int64]:
    """The best class of each image."""
    (image,), (scores,) = runtime.inputs, runtime.outputs
    parts = [
        runtime.run({image.name: images[i : i + BATCH]})[scores.name] for i in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts).argmax(1)


def measure(
    data: Path, key: str | None = None, *, with_libraries: bool = True, fresh: bool = False
) -> dict[str, Any]:
    """Quantise the networks in every way: figures of each, averages, and the promises that are not kept.

    Args:
        data: The folder with networks and images.
        key: Of the only network; None is all.
        with_libraries: Compare with them.
        fresh: Measure the libraries again where nothing has changed.
    """
    rows = [
        measure_network(network, data, with_libraries=with_libraries, fresh=fresh)
        for network in networks(data)
        if key in (None, network.key)
    ]
    averages = {
        method: {
            name: float(np.mean([row["int8"][method][name] for row in rows]))
            for name, value in figures.items()
            if value is not None
        }
        for method, figures in rows[0]["int8"].items()
    }
    found: dict[str, Any] = {"networks": rows, "average": averages}
    others = [1 - averages[name]["agreement"] for name in libraries.LIBRARIES if name in averages]
    if others:
        found["disagreement_ratio"] = (1 - averages[CPU]["agreement"]) / min(others)
    return found | {"missed": [promise for promise, kept in promises(found) if not kept]}


def measure_network(network: Network, data: Path, *, with_libraries: bool, fresh: bool) -> dict[str, Any]:
    """Quantise one network in every way."""
    progress(network, "fp32")
    frames = split(network, data)
    with tempfile.TemporaryDirectory() as folder:
        whole = edgecnn.convert(
            network.model,
            spec=network.spec,
            weights=network.weights,
            calibration=frames.calibration,
            out=Path(folder) / "fp32.edge",
        )
        model, spec = whole.read("model.onnx"), whole.manifest.spec
        judge = Judge(model, draw_samples(frames.judged, spec, len(frames.judged)).images, frames.classes)
        progress(network, "edgecnn.quantize")
        small = edgecnn.quantize(
            whole,
            out=Path(folder) / "int8.edge",
            calibration=frames.calibration,
            samples=CALIBRATION_IMAGES,
            target=("onnx", "tensorrt"),
            speed_gate=False,
        )
        paths = {artifact.id: artifact.path for artifact in small.manifest.artifacts}
        figures = {}
        for record in small.manifest.quantization:
            each = replace(judge(small.read(paths[record.artifact])), int8_macs=record.int8_macs_share)
            figures[record.artifact] = replace(each, speedup=None) if record.artifact == TENSORRT else each
    if with_libraries:
        samples = draw_samples(frames.calibration, spec, CALIBRATION_IMAGES).images
        figures |= library_figures(network, model, samples, judge, fresh)
    return {
        "key": network.key,
        "name": network.name,
        "judged": len(frames.judged),
        "fp32_top1": judge.top1,
        "int8": {method: asdict(each) for method, each in figures.items()},
    }


def library_figures(
    network: Network, model: bytes, samples: Images, judge: Judge, fresh: bool
) -> dict[str, Figures]:
    """Figures of the libraries, from the last time where nothing has changed since."""
    kept = json.loads(KEPT_FIGURES.read_text()) if KEPT_FIGURES.exists() else {}
    figures = {}
    for name, version in libraries.versions().items():
        parts = (f"{name} {version}".encode(), model, samples.tobytes(), judge.images.tobytes())
        key = hashlib.sha256(b"".join(parts)).hexdigest()
        if fresh or key not in kept:
            progress(network, name)
            kept[key] = asdict(judge(libraries.LIBRARIES[name](model, samples)))
            KEPT_FIGURES.parent.mkdir(exist_ok=True)
            KEPT_FIGURES.write_text(json.dumps(kept, indent=2))
        figures[name] = Figures(**kept[key])
    return figures


def progress(network: Network, what: str) -> None:
    """Say what is being done."""
    print(f"int8: {network.name}: {what}", file=sys.stderr, flush=True)


def promises(found: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each promise with the figure it is about, and whether it is kept."""
    for method, limits in LIMITS.items():
        average = found["average"][method]
        lost, agreement = average["lost_points"], average["agreement"]
        yield f"{method}: at most {limits.lost_points} points lost, {lost:.2f}", lost <= limits.lost_points
        yield f"{method}: agreement {limits.agreement:.1%}, {agreement:.2%}", agreement >= limits.agreement
        for row in found["networks"]:
            each, where = row["int8"][method], f"{method}, {row['name']}"
            least, agreement = limits.agreement_each, each["agreement"]
            yield f"{where}: agreement {least:.1%}, {agreement:.2%}", agreement >= least
            macs, size = each["int8_macs"], each["size"]
            yield f"{where}: {LEAST_INT8_MACS:.0%} of MACs in int8, {macs:.1%}", macs >= LEAST_INT8_MACS
            yield f"{where}: file at most {MOST_SIZE} × fp32, {size:.3f}", size <= MOST_SIZE
    if "disagreement_ratio" in found:
        ratio = found["disagreement_ratio"]
        promise = f"disagreement at most {MOST_DISAGREEMENT} × that of the better library, {ratio:.2f}"
        yield promise, ratio <= MOST_DISAGREEMENT


def markdown(found: dict[str, Any]) -> str:
    """A row for each network and way, and for the averages."""
    blocks = [(row["name"], row["int8"]) for row in found["networks"]] + [("average", found["average"])]
    rows = [
        [
            name,
            LABELS.get(method, method),
            f"{each['lost_points']:.2f}",
            f"{each['agreement']:.2%}",
            f"{each['size']:.3f}",
            f"{each['speedup']:.2f}×" if method == CPU else "–",
            f"{each['int8_macs']:.1%}" if each.get("int8_macs") else "–",
        ]
        for name, ways in blocks
        for method, each in ways.items()
    ]
    header = ["network", "int8 by", "points lost", "same decision", "file", "speed", "MACs in int8"]
    return table(header, rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--model", help="key of a network; without it, all")
    parser.add_argument("--skip-libraries", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="measure the libraries again")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args(arguments)
    data = data_folder(options.data)
    keys = [network.key for network in networks(data)]
    if options.model not in (None, *keys):
        parser.error(f"--model is one of {', '.join(keys)}")
    found = measure(data, options.model, with_libraries=not options.skip_libraries, fresh=options.fresh)
    print(markdown(found) + "\n")
    print(json.dumps(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    for promise in found["missed"]:
        print(f"int8: not kept: {promise}", file=sys.stderr)
    return int(bool(found["missed"]))


if __name__ == "__main__":
    sys.exit(main())
