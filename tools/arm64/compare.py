"""Compares what two machines found in the same frame; exits with 1 when a box is elsewhere.

usage: python compare.py HERE.json THERE.json
"""

# ruff: noqa: T201 (a script that prints)
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

MOST_PX = 0.5


def main(here_path: str, there_path: str) -> int:
    """Command line."""
    here, there = (json.loads(Path(path).read_text()) for path in (here_path, there_path))
    print(f"here:  {here['machine']}\nthere: {there['machine']}")
    missed = []
    if there["heavy"]:
        missed.append(f"{' and '.join(there['heavy'])} were imported there")
    for precision, boxes in here["found"].items():
        ours, theirs = (np.reshape(rows, (-1, 5)) for rows in (boxes, there["found"][precision]))
        for name, rows in (("here ", ours), ("there", theirs)):
            for *box_xyxy, score in rows:
                corners = " ".join(f"{value:8.3f}" for value in box_xyxy)
                print(f"{precision} {name}  {corners}  score {score:.6f}")
        if ours.shape != theirs.shape or not len(ours):
            missed.append(f"{precision}: {len(ours)} boxes here, {len(theirs)} there")
            continue
        apart = np.abs(ours - theirs)
        apart_px, apart_score = apart[:, :4].max(), apart[:, 4].max()
        print(f"{precision} differs by at most {apart_px:.3g} px, {apart_score:.3g} in its scores")
        if apart_px > MOST_PX:
            missed.append(f"{precision}: boxes are {apart_px:.3g} px apart, {MOST_PX} px are allowed")
    for reason in missed:
        print(f"arm64: {reason}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
