"""What a device pays for edgecnn: disk, memory and the time to a first result, in a fresh environment.

usage: python benchmarks/footprint.py docs/footprint.md [--runs 9]

Builds the wheel of this checkout, installs it with the extra ``cpu`` into an environment of its own and starts it
again and again. Needs a package index. Exits with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
from tables import table

ROOT = Path(__file__).resolve().parent.parent

# argv: height, width, smallest face (0: the bundle's own), and the moment at which the process was started
FIRST_RESULT = """
import json, sys, time
marks = {"python": time.monotonic()}
import edgecnn
marks["edgecnn"] = time.monotonic()
import numpy as np
marks["numpy"] = time.monotonic()
from edgecnn.vision.opencv import cv2
marks["opencv"] = time.monotonic()
import onnxruntime
marks["onnxruntime"] = time.monotonic()
height, width, min_size = map(int, sys.argv[1:4])
detector = edgecnn.load("face", min_size=min_size or None)
marks["load"] = time.monotonic()
frame = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
detector(frame)
marks["first"] = time.monotonic()
status = open("/proc/self/status").read()
peak_kib = int(status.partition("VmHWM:")[2].split()[0])
again = time.monotonic()
detector(frame)
again = time.monotonic() - again
start, before = float(sys.argv[4]), float(sys.argv[4])
stages = {}
for name, mark in marks.items():
    stages[name], before = (mark - before) * 1e3, mark
total = (marks["first"] - start) * 1e3
print(json.dumps({"stages": stages, "total_ms": total, "again_ms": again * 1e3, "peak_mb": peak_kib * 1.024e-3}))
"""

STAGES = {
    "python": "Python starts",
    "edgecnn": "import edgecnn",
    "numpy": "import numpy",
    "opencv": "import OpenCV",
    "onnxruntime": "import ONNX Runtime",
    "load": "check and load the bundle",
    "first": "first frame",
}

# height, width, smallest face in pixels (0: as the bundle says, 36)
FRAMES = {
    "128×128": (128, 128, 0),
    "640×480, faces from 120 px": (480, 640, 120),
    "640×480, faces from 36 px (the default)": (480, 640, 0),
}


@dataclass(frozen=True)
class Figure:
    """One measured figure and the most that it may be."""

    what: str
    measured: float
    goal: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the goal is kept."""
        return self.measured <= self.goal


def environment(folder: Path) -> Path:
    """A fresh environment with this checkout's wheel and what the extra ``cpu`` brings; its interpreter."""
    wheels, home = folder / "wheels", folder / "venv"
    subprocess.run(
        [ROOT / "tools" / "wheel.sh", wheels, sys.executable], check=True, stdout=subprocess.DEVNULL
    )
    venv.create(home, with_pip=False)  # so that nothing but the installation is counted
    python = home / "bin" / "python"
    pip = [sys.executable, *f"-m pip --python {python} install -qq --disable-pip-version-check".split()]
    subprocess.run([*pip, f"{next(wheels.glob('*.whl'))}[cpu]"], check=True)
    forget_files(home)
    return python


def forget_files(folder: Path) -> None:
    """Let the system read the files of a folder anew, as a device does after it was switched on.

    Linux keeps what was just written in larger pieces than what was read, and all of a piece that a process
    touches counts as its memory: half as much again for the same process.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def site_packages(python: Path) -> Path:
    """Where an environment keeps its packages."""
    return next(python.parent.parent.glob("lib/python*/site-packages"))


def disk_mb(folder: Path) -> float:
    """Bytes of all files in a folder, with what pip compiled, in units of 10^6."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def process_ms(command: list[str | Path], runs: int) -> float:
    """Median time of a whole process, after one that is not counted and warms the disk cache."""
    times = []
    for _ in range(runs + 1):
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append((time.monotonic() - start) * 1e3)
    return float(np.median(times[1:]))


def first_result(python: Path, frame: tuple[int, int, int], runs: int) -> dict[str, Any]:
    """Medians over fresh processes, from just before one is started to its first result."""
    found = []
    for _ in range(runs + 1):
        arguments = [str(value) for value in (*frame, time.monotonic())]
        done = subprocess.run(
            [python, "-I", "-c", FIRST_RESULT, *arguments], check=True, capture_output=True, text=True
        )
        found.append(json.loads(done.stdout))
    counted = found[1:]
    medians = {
        key: float(np.median([row[key] for row in counted])) for key in ("total_ms", "again_ms", "peak_mb")
    }
    stages = {name: float(np.median([row["stages"][name] for row in counted])) for name in STAGES}
    return medians | {"stages": stages}


def measure(python: Path, runs: int) -> tuple[list[Figure], dict[str, dict[str, Any]]]:
    """The figures with their goals, and the first results by their frame."""
    starts = {name: first_result(python, frame, runs) for name, frame in FRAMES.items()}
    figures = [
        Figure("installed, onnxruntime and OpenCV with it", disk_mb(site_packages(python)), 310, "MB"),
        Figure(
            "`import edgecnn`, the whole process",
            process_ms([python, "-I", "-c", "import edgecnn"], runs),
            150,
            "ms",
        ),
        Figure("`edgecnn --help`", process_ms([python.parent / "edgecnn", "--help"], runs), 200, "ms"),
        *(Figure(f"first result, {name}", row["total_ms"], 350, "ms") for name, row in starts.items()),
        Figure("peak memory of it", max(row["peak_mb"] for row in starts.values()), 130, "MB"),
    ]
    return figures, starts


def largest(site: Path, count: int = 8) -> list[tuple[str, float]]:
    """The largest folders of an environment, in MB."""
    sizes = [(path.name, disk_mb(path)) for path in site.iterdir() if path.is_dir()]
    return sorted(sizes, key=lambda pair: -pair[1])[:count]


def machine(site: Path) -> str:
    """Processor, cores, how busy they are, and what was installed."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    packages = sorted(
        f"{found.metadata['Name']} {found.version}" for found in distributions(path=[str(site)])
    )
    processor = models[0].split(":")[1].strip() if models else platform.machine()
    cores = len(os.sched_getaffinity(0))
    busy = f"{cores} cores, a load of {os.getloadavg()[0]:.1f} before"
    return f"{processor}, {busy}; Python {platform.python_version()}; {', '.join(packages)}."


def document(
    about: str, site: Path, figures: list[Figure], starts: dict[str, dict[str, Any]], runs: int
) -> str:
    """The page."""
    goals = [
        [
            row.what,
            f"{row.measured:.0f} {row.unit}",
            f"≤ {row.goal:.0f} {row.unit}",
            "yes" if row.met else "**no**",
        ]
        for row in figures
    ]
    stages = [
        [what, *(f"{row['stages'][name]:.0f}" for row in starts.values())] for name, what in STAGES.items()
    ]
    stages.append(["the same frame again", *(f"{row['again_ms']:.0f}" for row in starts.values())])
    folders = [[f"`{name}`", f"{size:.1f}"] for name, size in largest(site)]
    return f"""# Size on the device

Written by `benchmarks/footprint.py`; do not edit. {about}

The wheel of this checkout, installed with the extra `cpu` into an environment of its own that holds nothing else.
A first result is timed from just before the process is started to the first `Detections` of the bundle that ships,
with nothing in memory but with the files in the disk's cache. Medians of {runs} processes; MB are 10⁶ bytes, of files
with what pip compiled.

{table(["what", "measured", "goal", "kept"], goals)}

## Where the time goes

Milliseconds of each part; the last line is a frame in a process that is warm. One of 640×480 has 23,287 windows from
36 px on, which are scored all at once.

{table(["what", *starts], stages)}

## Where the disk goes

{table(["folder", "MB"], folders)}
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder))
        site = site_packages(python)
        about = machine(site)
        figures, starts = measure(python, options.runs)
        text = document(about, site, figures, starts, options.runs)
    options.out.write_text(text)
    for row in figures:
        kept = "kept" if row.met else "MISSED"
        print(f"{kept:6} {row.what}: {row.measured:.1f} {row.unit} (goal {row.goal:.0f} {row.unit})")
    return int(not all(row.met for row in figures))


if __name__ == "__main__":
    sys.exit(main())
