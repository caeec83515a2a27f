"""The loop of a robot or kiosk in ten lines: every frame of a camera, its detections, and what to do then.

usage: python examples/embedded.py [CAMERA_NUMBER | VIDEO | IMAGE | FOLDER]

Without an argument it looks at a photograph that scikit-image ships.
"""

from __future__ import annotations

import sys

import edgecnn

if len(sys.argv) > 1:
    source = int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1]
else:
    from skimage import data

    source = data.astronaut()[None, ..., ::-1].copy()

with edgecnn.load("face") as detector:
    for image, found in detector.stream(source):
        for box, score, _, label in found:
            left, top, right, bottom = box.round().astype(int)
            height, width = image.shape[:2]
            print(f"{label} {score:.2f} at x {left}..{right}, y {top}..{bottom} of {width}×{height}")
