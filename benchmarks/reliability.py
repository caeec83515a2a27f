"""Breaks what can be broken around a stream, and writes what became of it: docs/reliability.md.

usage: python benchmarks/reliability.py docs/reliability.md [--cycles 100] [--kills 50] [--soak-minutes 10]
                                        [--only PART] [--fresh]

Takes about half an hour. Each part has a process of its own, so that none sees the memory, threads and files of
another, and is kept in build/reliability/PART.json when it is done: a run that was stopped goes on with the next part,
and one that was longer than asked for counts too. A change of the sources, or `--fresh`, has all parts done
anew. `--only` does one part; the page is written where the others are there.

Inputs that are broken are another page: make fuzz. Exit 1 when a promise is not kept; the page says which. Or when the
sources changed while a part ran: its figures are printed then, and count for no page. Interrupted: 130.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

from edgecnn.paths import replace_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

SPAWN = multiprocessing.get_context("spawn")
DONE = ROOT / "build" / "reliability"
# in the order of the page: module reliability_NAME, and the options that say how long it takes
PARTS = {
    "cameras": ("cycles",),
    "kills": ("kills",),
    "threads": (),
    "soak": ("soak_minutes",),
    "disk": (),
    "clock": (),
}
INTERRUPTED = 130
SOURCES = ("edgecnn/**/*", "runtimes/*.py", "tests/stream/*.py")


def fingerprint(part: str) -> str:
    """Changes with the sources that a part runs."""
    digest = hashlib.sha256()
    for pattern in (*SOURCES, f"benchmarks/reliability_{part}.py", "benchmarks/reliability_servers.py"):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def last(part: str) -> dict[str, Any] | None:
    """What a part found when it was done last, whatever the sources were."""
    try:
        found: dict[str, Any] = json.loads(DONE.joinpath(f"{part}.json").read_text())
    except FileNotFoundError:
        return None
    return found


def kept(part: str, options: dict[str, float]) -> dict[str, Any] | None:
    """What a part found that is done, with these sources and no less than these options."""
    found = last(part)
    if found is None:
        return None
    enough = all(found["options"][name] >= value for name, value in options.items())
    return found if enough and found["fingerprint"] == fingerprint(part) else None


def measure(part: str, options: dict[str, float]) -> None:
    """Do a part, in the process that is its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = fingerprint(part)
    try:
        text, misses = importlib.import_module(f"reliability_{part}").measured(**options)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    found = {"fingerprint": before, "options": options, "text": text, "misses": misses}
    replace_file(DONE / f"{part}.json", json.dumps(found, indent=1).encode())


def page(found: list[dict[str, Any]]) -> str:
    """All parts, and what was not kept."""
    from measure import machine  # with torch and more, which no part is to have in its memory

    misses = [f"- Promise not kept: {miss}." for part in found for miss in part["misses"]]
    begin = f"# Reliability\n\nWritten by `benchmarks/reliability.py`; do not edit. {machine()}"
    return "\n\n".join(
        [begin, *(part["text"] for part in found), "\n".join(misses) or "All promises were kept."]
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--soak-minutes", type=float, default=10.0)
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--fresh", action="store_true")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = {part: {name: getattr(asked, name) for name in names} for part, names in PARTS.items()}
    asked_parts = [asked.only] if asked.only else list(PARTS)
    for part in asked_parts:
        if not asked.fresh and kept(part, options[part]):
            print(f"reliability: {part} is done", file=sys.stderr)
            continue
        print(f"reliability: {part} …", file=sys.stderr)
        child = SPAWN.Process(target=measure, args=(part, options[part]), daemon=True)
        child.start()
        child.join()
        if child.exitcode:
            if child.exitcode == INTERRUPTED:
                raise KeyboardInterrupt
            return 2
    found = {part: kept(part, options[part]) for part in PARTS}
    changed = []
    for part in asked_parts:
        done = found[part] or last(part)
        if found[part] is None:
            changed.append(part)
        if done and (asked.only or found[part] is None):
            print(done["text"], *(f"- Promise not kept: {miss}." for miss in done["misses"]), sep="\n")
    if missing := [part for part, each in found.items() if each is None]:
        print(f"reliability: {asked.out} is not written, it lacks {', '.join(missing)}", file=sys.stderr)
    else:
        asked.out.write_text(page([each for each in found.values() if each]) + "\n")
    if changed:
        print(
            f"reliability: the sources changed while these were measured: {', '.join(changed)}",
            file=sys.stderr,
        )
        return 1
    return int(any(each["misses"] for part in asked_parts if (each := found[part])))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("reliability: interrupted; the parts that are done are kept", file=sys.stderr)
        sys.exit(INTERRUPTED)
