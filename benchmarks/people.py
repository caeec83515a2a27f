"""What examples/people_counter.py counts on a street, beside what was counted by eye.

usage: python benchmarks/people.py [--data DIR]

Prints the table of docs/examples.md. The clip (vtest.avi, 795 frames of 768×576) and the detector (FastestDet for 352
pixels) are not part of the project: --data, $EDGECNN_DATA or ../shared/data names the folder that holds them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from faces import data_folder
from tables import table

import edgecnn

COUNTER = Path(__file__).resolve().parent.parent / "examples" / "people_counter.py"
# across the road on the left; those who passed it were counted on every fourth frame
LINE = "190,150,190,340"
CROSSED = {"in": 7, "out": 5}
# everybody of whom something can be seen; nobody has walked yet in the first frame
PRESENT = {80: 7, 160: 8, 240: 7, 320: 6, 400: 3, 480: 4, 560: 6, 640: 6, 720: 9, 790: 8}


def person_detector(data: Path, path: Path) -> edgecnn.Bundle:
    """FastestDet as a bundle."""
    text = (data / "coco128" / "object_detection.yaml").read_text()
    labels = re.findall(r"^ +\d+: (.+)$", text, re.MULTILINE)
    model = onnx.load(data / "models" / "fastestdet_coco80.onnx")
    onnx.save(onnx.version_converter.convert_version(model, 17), path.with_suffix(".onnx"))
    spec = edgecnn.ModelSpec(
        task="detection",
        decoder="fastestdet",
        size_hw=(352, 352),
        color="bgr",
        labels=tuple(labels),
        nms_iou=0.45,
    )
    video = data / "video" / "vtest.avi"
    return edgecnn.convert(path.with_suffix(".onnx"), spec=spec, out=path, calibration=video, samples=1)


def count(bundle: Path, video: Path, *options: str) -> list[dict[str, Any]]:
    """The lines that the example prints."""
    command = [
        sys.executable,
        str(COUNTER),
        str(bundle),
        str(video),
        "--line",
        LINE,
        "--runtime",
        "ort",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"people: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def mean_error(lines: list[dict[str, Any]]) -> float:
    """Of the people present, over the frames that were counted by eye."""
    return sum(abs(lines[frame]["present"] - people) for frame, people in PRESENT.items()) / len(PRESENT)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=None)
    data = data_folder(parser.parse_args().data)
    rows = [["by eye", "", f"{sum(PRESENT.values()) / len(PRESENT):.1f}", *map(str, CROSSED.values()), ""]]
    with tempfile.TemporaryDirectory() as folder:
        person_detector(data, Path(folder, "person.edge"))
        for name, options in (("whole frames", ()), ("`--tiles 0.2`", ("--tiles", "0.2"))):
            lines = count(Path(folder, "person.edge"), data / "video" / "vtest.avi", *options)
            present = sum(lines[frame]["present"] for frame in PRESENT) / len(PRESENT)
            *_, last = lines
            crossed = [str(last["summary"][way]) for way in CROSSED]
            rows.append(
                [name, f"{mean_error(lines):.1f}", f"{present:.1f}", *crossed, str(last["summary"]["tracks"])]
            )
    print(
        table(["", "mean absolute error, people present", "mean people present", "in", "out", "tracks"], rows)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
