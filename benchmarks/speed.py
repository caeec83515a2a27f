"""Writes docs/benchmarks.md: parts of edgecnn beside what else does the same.

usage: python benchmarks/speed.py docs/benchmarks.md [--data DIR]

Takes some minutes. Exit 1 when a goal is missed; the page says which. Each part is a script of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import adapter
import first_layer
import geometry
import nms
import still
import stream
import tuning
import web
import windows
from faces import data_folder
from measure import machine


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="as of benchmarks/still.py")
    options = parser.parse_args(arguments)
    data = data_folder(options.data)
    parts = [
        geometry.section(data),
        first_layer.section(data),
        nms.section(),
        windows.section(),
        still.section(data),
        stream.section(data),
        tuning.section(data),
        adapter.section(),
        web.section(),
    ]
    texts, misses = zip(*parts)
    written = "Written by `benchmarks/speed.py`; do not edit."
    options.out.write_text("\n".join([f"# Benchmarks\n\n{written} {machine()}\n", *texts]))
    print(f"wrote {options.out}")
    return int(any(misses))


if __name__ == "__main__":
    sys.exit(main())
