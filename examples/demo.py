"""The whole road once: PyTorch weights to a verified bundle, and the bundle finds faces in a clip.

usage: python examples/demo.py OUT_DIR [--seconds 4]

Leaves face.edge, clip.mp4, faces.mp4, faces.jsonl and faces.png in OUT_DIR. Every step but the clip is a
command that is printed before it runs, to be copied.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from clip import write_clip

HERE = Path(__file__).resolve().parent
FACE = HERE / "face_detector"


def edgecnn(*arguments: str | Path) -> None:
    """Print a command of the edgecnn CLI and run it; its failure is the demo's."""
    words = [str(word) for word in arguments]
    print(f"\n$ edgecnn {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "edgecnn", *words], check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)


def latency_table(jsonl: Path) -> str:
    """Median and 95th percentile of each stage, from the lines that ``run --json`` wrote."""
    lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
    frames = [line["timing_ms"] for line in lines if "timing_ms" in line]
    rows = [f"{'stage':<10}{'p50 ms':>10}{'p95 ms':>10}"]
    for stage in frames[0]:
        p50, p95 = np.percentile([timing[stage] for timing in frames], [50, 95])
        rows.append(f"{stage:<10}{p50:>10.2f}{p95:>10.2f}")
    found = sum(len(line["detections"]) > 0 for line in lines[:-1])
    rate = lines[-1]["summary"]["fps"]
    rows.append(
        f"{len(frames)} frames, {found} with a face, {rate:.1f} frames a second with video and drawing"
    )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the clip")
    options = parser.parse_args(arguments)
    out: Path = options.out
    clip, bundle = out / "clip.mp4", out / "face.edge"
    try:
        count = write_clip(clip, options.seconds)
    except OSError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(f"made {clip} ({count} frames) from photographs that scikit-image ships")
    edgecnn(
        "convert",
        f"{FACE / 'net.py'}:face_window_net",
        *("--weights", FACE / "face.safetensors"),
        *("--spec", FACE / "face.toml"),
        *("--calib", clip),
        *("--precision", "int8"),
        *("--no-speed-gate", "--output", bundle),
    )
    edgecnn("verify", bundle)
    edgecnn(
        "run",
        bundle,
        *("--source", clip),
        *("--min-size", "64"),
        *("--save", out / "faces.mp4"),
        *("--save", out / "faces.png"),
        *("--json", out / "faces.jsonl"),
    )
    print(f"\n{latency_table(out / 'faces.jsonl')}\n")
    for name in ("face.edge", "faces.mp4", "faces.jsonl", "faces.png"):
        if not (out / name).exists():
            print(f"demo: {out / name} was not written", file=sys.stderr)
            return 1
        print(f"wrote {out / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
