"""Builds the bundle that ships with edgecnn from the committed weights.

usage: python examples/face_detector/build.py OUT.edge

The samples of its parity figures and golden tensors are frames of the demo clip, which is made of
photographs that anyone may use.
"""

from __future__ import annotations

import sys
from pathlib import Path

import edgecnn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from clip import frames  # noqa: E402 (a neighbour, found through the line above)


def main(arguments: list[str]) -> int:
    """Command line."""
    if len(arguments) != 1:
        print("usage: python examples/face_detector/build.py OUT.edge", file=sys.stderr)
        return 2
    try:
        bundle = edgecnn.convert(
            f"{HERE / 'net.py'}:face_window_net",
            spec=HERE / "face.toml",
            weights=HERE / "face.safetensors",
            calibration=frames(seconds=2.0),
            precision="int8",
            speed_gate=False,  # what ships does not depend on the machine that built it
            samples=256,
            out=arguments[0],
        )
    except edgecnn.EdgeCnnError as error:
        print(f"build: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{bundle.path}: {sum(entry.bytes for entry in bundle.manifest.files) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
