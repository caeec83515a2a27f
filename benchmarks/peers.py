"""Writes docs/peers.md: edgecnn beside Ultralytics, openvino-model-api and SAHI on the same network and engine.

usage: python benchmarks/peers.py docs/peers.md [--data DIR] [--rounds 5]

The others are installed into an environment of their own, build/peers, when it is not there: some gigabytes, from the package
index that pip is set up for. edgecnn neither imports them nor ships any of them. Each side is a process of its own, and they
take turns. Networks and clips are kept in build/peer-models; remove the folder to have them made anew. Takes some
minutes. Exit 1 when a goal is missed; the page says which.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faces import data_folder
from measure import machine
from peer_models import CLIP_FRAMES, SPECS, Network, clip, networks, picture
from peer_turns import Answers, Worker, busy_core, compare_boxes, same_classes, take_turns
from tables import table

from edgecnn.vision.tiles import lay_tiles

BUILD = Path(__file__).resolve().parent.parent / "build"
PACKAGES = ("ultralytics", "sahi", "openvino-model-api", "openvino", "onnxruntime", "onnx")
# height and width of the clip, and of the picture in tiles
CLIP_HW, PICTURE_HW = (1080, 1920), (2160, 3840)
OVERLAP = 0.2
# in the tiles one with which both sides find fewer than the 300 that edgecnn reports of a frame
THRESHOLD, TILES_THRESHOLD = 0.25, 0.8
# where both sides show the network the same pixels: most that boxes are apart, and least share of them that are the same;
# the others lie at the frame's border, where edgecnn cuts boxes before they suppress one another
LARGEST_PX, LEAST_SHARED = 0.02, 0.99

# inferences of the engine alone that are timed in a round
ALONE = 30
NMS = {"postprocess_type": "NMS", "postprocess_match_metric": "IOU", "postprocess_match_threshold": 0.7}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        network: Name of the network.
        peer: What the other side is called on the page.
        tool: What its worker runs.
        goal: Least ratio, if there is one.
        options: What its worker is told besides.
        runtime: The engine of both.
        busy: Another program keeps one core busy.
        tiles: The picture in tiles instead of the clip.
        same_pixels: Both sides show the network the same pixels, so that their boxes are to be the same.
    """

    network: str
    peer: str
    tool: str
    goal: float | None
    options: dict[str, Any] = field(default_factory=dict)
    runtime: str = "openvino"
    busy: bool = False
    tiles: bool = False
    same_pixels: bool = False

    @property
    def detects(self) -> bool:
        """Whether it finds boxes."""
        return SPECS[self.network].task == "detection"

    def __str__(self) -> str:
        return f"{self.network}, {self.runtime}{', one core busy' * self.busy}"


FLOAT32 = {"float32": True}
VIDEO = (
    Case("yolo11n-640", "Ultralytics", "ultralytics", 1.3, FLOAT32, same_pixels=True),
    Case("yolo11n-640", "Ultralytics", "ultralytics", 2.0, FLOAT32, same_pixels=True, busy=True),
    Case("yolo11n-320", "Ultralytics", "ultralytics", 1.5, FLOAT32, same_pixels=True),
    Case("yolo11n-cls-224", "Ultralytics", "ultralytics", 2.0, FLOAT32),
    Case("yolo11n-640", "Ultralytics as it comes", "ultralytics", None),
    Case("yolo11n-640", "Ultralytics", "ultralytics", 1.3, runtime="ort", same_pixels=True),
    *(Case(network, "model-api", "model_api", 2.0, FLOAT32) for network in SPECS),
    Case("yolo11n-640", "model-api, AsyncPipeline", "model_api", 2.0, FLOAT32 | {"ahead": True}),
)
TILES = (
    Case("yolo11n-640", "SAHI", "sahi", 1.6, FLOAT32, tiles=True),
    Case("yolo11n-640", "SAHI, merging by NMS", "sahi", 1.6, FLOAT32 | {"merge": NMS}, tiles=True),
)


@dataclass
class Bench:
    """What the comparisons need, and what came of them.

    Attributes:
        python: Interpreter of the environment of the peers.
        networks: The networks by name.
        clip, picture: What is looked at.
        rounds: How often each side does its job.
        misses: Goals that are missed.
        versions: Of what the peers are made of.
        load: How busy the machine was with something else.
    """

    python: Path
    networks: dict[str, Network]
    clip: Path
    picture: Path
    rounds: int
    misses: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    load: str = field(default_factory=lambda: f"The machine had a load of {os.getloadavg()[0]:.1f} before.")

    def row(self, case: Case) -> list[str]:
        """Measure; a row of a table."""
        network = self.networks[case.network]
        theirs = {"tool": case.tool, "model": network.file(case.tool, case.runtime), "detects": case.detects}
        mine = {"model": network.bundle, "runtime": case.runtime}
        if case.tiles:
            side = SPECS[case.network].size_hw
            shared = {"source": self.picture, "threshold": TILES_THRESHOLD, "overlap": OVERLAP}
            # the tiles, and the picture as a whole
            alone = {"frames": 1, "inferences": len(lay_tiles(PICTURE_HW, side, OVERLAP)) + 1}
            theirs["side"] = side[0]
        else:
            shared = {"source": self.clip, "threshold": THRESHOLD}
            alone = {"frames": ALONE, "inferences": ALONE}
        with ExitStack() as stack:
            peer, own, engine = (
                stack.enter_context(closing(Worker(python, **shared, **config)))
                for python, config in (
                    (self.python, theirs | case.options),
                    (Path(sys.executable), mine | {"tool": "edgecnn"}),
                    (Path(sys.executable), mine | alone | {"tool": "engine"}),
                )
            )
            with busy_core() if case.busy else nullcontext():
                timed = take_turns([peer, own, engine], self.rounds)
            self.versions |= peer.versions
            agreement = self._agreement(case, peer.answers(), own.answers())
        ratio, most = (timed[0].ratio(other) for other in timed[1:])
        if case.goal is not None and ratio < case.goal:
            self.misses.append(
                f"{case}, {case.peer}: {ratio:.2f}×, the goal is {case.goal:g}×; the engine alone would have {most:.2f}×"
            )
        goal = "–" if case.goal is None else f"{case.goal:g}×"
        cells = [f"{each.ms:.1f}" for each in timed] + [f"{each.cpu:.1f}" for each in timed[:2]]
        row = [str(case), case.peer, *cells, f"**{ratio:.2f}×**", goal, agreement]
        print(f"peers: {' | '.join(row)}", file=sys.stderr)
        return row

    def _agreement(self, case: Case, theirs: Answers, mine: Answers) -> str:
        if not case.detects:
            return f"{same_classes(theirs, mine):.0%} of the frames"
        found = compare_boxes(theirs, mine)
        text = f"{found.shared:.1%} of {found.boxes:,}, {found.apart_px:.3f} px"
        if case.same_pixels and (found.shared < LEAST_SHARED or found.apart_px > LARGEST_PX):
            self.misses.append(
                f"{case}, {case.peer}: {text}; the goal is {LEAST_SHARED:.0%} and {LARGEST_PX:g} px"
            )
        return text


def environment(folder: Path) -> Path:
    """The interpreter of the environment of the peers, made where it is missing."""
    # Ultralytics shall keep its settings here, and neither install nor report anything by itself
    os.environ |= {"YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.touch()
    return python


def document(bench: Bench) -> str:
    """The page."""
    header = ["network", "peer", "peer ms", "edgecnn ms", "engine alone ms", "peer CPU ms", "edgecnn CPU ms"]
    header += ["ratio", "goal", "same answer"]
    video = table(header, [bench.row(case) for case in VIDEO])
    tiles = table(header, [bench.row(case) for case in TILES])
    versions = ", ".join(f"{name} {version}" for name, version in sorted(bench.versions.items()))
    misses = "\n".join(f"- Goal missed: {miss}." for miss in bench.misses)
    return f"""# Beside others

Written by `make peers` (`benchmarks/peers.py`); do not edit. {machine()}
Beside it: {versions}. {bench.load}

Both sides run the same INT8 file of the same network in the same engine, with as many threads as there are cores. What
is not INT8 is computed in float32 on both sides; Ultralytics *as it comes* leaves that to OpenVINO, which takes bfloat16
on processors that have it. The networks are YOLO11n and its classifier with random weights: for times that is enough, and the
boxes, of which there are some twenty a frame, are no objects. Each side is a process of its own and does the whole job
from opening the file to the last result; they take turns, {bench.rounds} rounds, medians, and the ratio is the median of the
rounds'. edgecnn's engine is opened with `mode="throughput"`. *Engine alone* is the same engine on an input that is ready
all the time: nothing can be faster. CPU is the time of all cores together.

## A video, end to end

{CLIP_FRAMES} frames of {CLIP_HW[1]}×{CLIP_HW[0]} (MPEG-4; vtest.avi enlarged), milliseconds a frame, reading included: `predict(stream=True)` of
Ultralytics, the wrappers of openvino-model-api called frame by frame and through its AsyncPipeline, and
`Predictor.stream`.

{video}

*Same answer* counts the boxes that have a partner of the same class and an IoU of at least 0.5 on the other side, and gives
the largest distance of two partners' borders; of the classifier, the frames with the same best class. Ultralytics shows
the detector the same pixels; it suppresses boxes before they are cut at the border of the frame, edgecnn afterwards.
Its classifier resizes with Pillow, from which edgecnn differs by a level here and there; openvino-model-api resizes
inside the network without antialiasing, and gives whole pixels. A network that was never trained makes much of that.

## Tiles

One picture of {PICTURE_HW[1]}×{PICTURE_HW[0]}, tiles of 640 px that share {OVERLAP:.0%}, and the whole picture; milliseconds a picture, which is in memory.
The threshold is {TILES_THRESHOLD:g}. SAHI joins boxes of tiles that overlap; edgecnn prefers whole ones to those that a tile's border may
have cut, so that the answers are not the same.

{tiles}

## Goals

{misses or "All are kept."}

What the engine alone would have is the ratio if reading, resizing and decoding took no time at all. Both sides decode the
same video; Ultralytics reads ahead in a thread of its own meanwhile, so that little more can be saved than what it spends
around the engine. In tiles edgecnn's time is that of its engine.
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="the folder that holds video/vtest.avi, as of benchmarks/still.py")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    video, models = data_folder(options.data) / "video" / "vtest.avi", BUILD / "peer-models"
    models.mkdir(parents=True, exist_ok=True)
    python = environment(BUILD / "peers")
    shown = clip(video, CLIP_HW, models)
    bench = Bench(
        python, networks(models, python, shown), shown, picture(video, PICTURE_HW, models), options.rounds
    )
    options.out.write_text(document(bench))
    for miss in bench.misses:
        print(f"peers: goal missed: {miss}", file=sys.stderr)
    print(f"wrote {options.out}")
    return int(bool(bench.misses))


if __name__ == "__main__":
    sys.exit(main())
