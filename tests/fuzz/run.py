"""``make fuzz``: ten thousand mutants of every parser, and docs/fuzzing.md with what became of them.

Goes on where it was stopped; mutants that broke a promise are kept in build/fuzz/.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from tests.fuzz.campaign import LIMIT_S, Tally, run
from tests.fuzz.guided import KEPT, guide
from tests.fuzz.mutation import mutant
from tests.fuzz.targets import TARGETS
from tests.paths import ROOT

PACKAGES = ("numpy", "msgspec", "opencv-python-headless", "onnx", "onnxruntime")


def campaign(name: str, count: int, seed: int, fresh: bool) -> Tally:
    """All mutants of one parser, with a line on stderr that grows."""
    state = KEPT / f"{name}-{seed}.json"
    if fresh:
        for old in (state, *KEPT.glob(f"{name}-{seed}-*")):
            old.unlink(missing_ok=True)
    last_s = 0.0

    def show(tally: Tally) -> None:
        nonlocal last_s
        if time.monotonic() - last_s > 2 or tally.done == count:
            last_s = time.monotonic()
            tally.save(state)
            print(
                f"\r{name}: {tally.done} of {count}, bad {len(tally.bad)}",
                end="",
                file=sys.stderr,
                flush=True,
            )

    tally = run(name, count, seed, Tally.load(state), show)
    tally.save(state)
    print(file=sys.stderr)
    target = TARGETS[name]
    for number, how in tally.bad.items():
        (KEPT / f"{name}-{seed}-{number}").write_bytes(
            mutant(target.seeds, target.changes, name, seed, number)
        )
        print(f"{name}: mutant {number} {how}", file=sys.stderr)
    return tally


def page(tallies: dict[str, Tally], guided: dict[str, str], seed: int) -> str:
    """docs/fuzzing.md."""
    rows = [
        f"| {name} | {TARGETS[name].what} | {tally.done} | {tally.outcomes['ok']} | "
        + ", ".join(f"{kind} {n}" for kind, n in sorted(tally.outcomes.items()) if kind != "ok")
        + f" | {_count(tally, 'died')} | {_count(tally, 'hung')} | {_count(tally, 'foreign')} "
        + f"| {tally.slowest_s:.2f} | {tally.peak_mb} |"
        for name, tally in tallies.items()
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    tail = [f"| {name} | {text} |" for name, text in guided.items()]
    return "\n".join(
        [
            "# Parsers and damaged files",
            "",
            f"Written by `make fuzz` (tests/fuzz/run.py, seed {seed}) on Python {platform.python_version()}, {versions}.",
            "",
            "Each parser of what comes from outside is given mutants of small real files (tests/fuzz/corpus): bits flipped,",
            "parts cut out, repeated, spliced with another file, numbers made extreme; and mutants that keep their form, so that",
            "they get past the first check: values of a JSON tree, chunks of a PNG with their checksum, parts of a video within",
            "parts of the right length, members of an npz, fields of an ONNX model, files of a bundle listed with their hash. A",
            "mutant is given by its parser, seed and number. It is parsed in a child process: what kills it is counted, and so is",
            f"what takes more than {LIMIT_S:g} s. What comes back has to be an answer or an error of edgecnn on one line. Some hundred",
            "mutants of each run in the suite.",
            "",
            "| parser | of | mutants | answers | refused | died | hung | other errors | slowest s | most MB |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "*most MB* is the whole process, with Python and the libraries. `onnx` is what runs in the child process of `convert`,",
            "`video` what runs in the one that reads a source.",
            "",
            "## Guided by coverage",
            "",
            "The parsers that are Python, under [atheris](https://pypi.org/project/atheris/), which looks for inputs that reach new",
            "lines of them:",
            "",
            "| parser | what became of it |",
            "|---|---|",
            *tail,
            "",
        ]
    )


def _count(tally: Tally, how: str) -> int:
    return sum(each.startswith(how) for each in tally.bad.values())


def main() -> int:
    """Run; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parsers; all by default, and only then the page is written")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="begin again")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "fuzzing.md")
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    names = options.names or list(TARGETS)
    tallies = {name: campaign(name, options.count, options.seed, options.fresh) for name in names}
    if not options.names:
        options.out.write_text(page(tallies, guide(), options.seed))
    return int(any(tally.bad for tally in tallies.values()))


if __name__ == "__main__":
    raise SystemExit(main())
