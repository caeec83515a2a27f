"""Faces by OpenCV's Haar cascade, for comparison. Prints JSON: path -> boxes [x1, y1, x2, y2].

usage: python benchmarks/haar.py IMAGE…

Runs in an environment of its own: the cascade is in OpenCV 4's wheels and not in OpenCV 5's.
"""

from __future__ import annotations

import json
import sys

import cv2


def main(paths: list[str]) -> None:
    """Detect with the defaults of OpenCV (scale factor 1.1, 3 neighbours)."""
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found = {}
    for path in paths:
        boxes = cascade.detectMultiScale(cv2.imread(path, cv2.IMREAD_GRAYSCALE))
        found[path] = [[int(x), int(y), int(x + w), int(y + h)] for x, y, w, h in boxes]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
