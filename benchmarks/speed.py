"""Writes docs/benchmarks.md: parts of edgecnn beside what else does the same.

usage: python benchmarks/speed.py docs/benchmarks.md

Takes some minutes. Exit 1 when a goal is missed; the page says which. Each part is a script of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nms
import windows
from measure import machine

PARTS = (nms, windows)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    texts, misses = zip(*(part.section() for part in PARTS))
    written = "Written by `benchmarks/speed.py`; do not edit."
    options.out.write_text("\n".join([f"# Benchmarks\n\n{written} {machine()}\n", *texts]))
    print(f"wrote {options.out}")
    return int(any(misses))


if __name__ == "__main__":
    sys.exit(main())
