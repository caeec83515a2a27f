"""Makes a clip that holds a real face, from photographs that scikit-image ships.

usage: python examples/clip.py OUT.mp4 [--seconds 4]

The camera pans and zooms over a portrait of the astronaut Eileen Collins (NASA, public domain), then
over a rocket (SpaceX, CC0) and a cup of coffee (CC0), which hold no face.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from skimage import data

SIZE_HW = (480, 640)
FPS = 25
# a shot: photograph, share of the clip, centre (x, y) and width of the view at its start and end
SHOTS = (
    ("astronaut", 0.6, (0.50, 0.37, 0.98), (0.43, 0.25, 0.50)),
    ("rocket", 0.2, (0.50, 0.50, 0.98), (0.50, 0.40, 0.70)),
    ("coffee", 0.2, (0.50, 0.50, 0.98), (0.45, 0.50, 0.70)),
)


def view(photo: npt.NDArray[np.uint8], x: float, y: float, width: float) -> npt.NDArray[np.uint8]:
    """The part of a photograph that a camera sees, resized to the clip's frame.

    Args:
        photo: uint8 (H, W, 3) BGR.
        x: Centre of the view as a share of the photograph's width; moved so that the view stays inside.
        y: The same of its height.
        width: Width of the view as a share of the largest view that fits.
    """
    height_px, width_px = photo.shape[:2]
    largest = min(width_px, height_px * SIZE_HW[1] / SIZE_HW[0])
    view_w = largest * width
    view_h = view_w * SIZE_HW[0] / SIZE_HW[1]
    left = np.clip(x * width_px - view_w / 2, 0, width_px - view_w)
    top = np.clip(y * height_px - view_h / 2, 0, height_px - view_h)
    scale = SIZE_HW[1] / view_w
    matrix = np.float32([[scale, 0, -left * scale], [0, scale, -top * scale]])
    return cv2.warpAffine(
        photo, matrix, SIZE_HW[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def frames(seconds: float) -> list[npt.NDArray[np.uint8]]:
    """All frames of the clip, uint8 (480, 640, 3) BGR."""
    made = []
    for name, share, start, end in SHOTS:
        photo = np.ascontiguousarray(getattr(data, name)()[..., ::-1])
        count = max(round(seconds * FPS * share), 2)
        for step in np.linspace(0, 1, count):
            ease = step * step * (3 - 2 * step)
            x, y, width = ((1 - ease) * a + ease * b for a, b in zip(start, end))
            made.append(view(photo, x, y, width))
    return made


def write_clip(path: Path, seconds: float = 4.0) -> int:
    """Write the clip and return its number of frames.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, SIZE_HW[::-1])
    if not writer.isOpened():
        raise OSError(f"{path}: cannot be written as a video")
    made = frames(seconds)
    for frame in made:
        writer.write(frame)
    writer.release()
    return len(made)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args(arguments)
    try:
        count = write_clip(options.out, options.seconds)
    except OSError as error:
        print(f"clip: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {count} frames, {SIZE_HW[1]}×{SIZE_HW[0]}, {FPS} per second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
