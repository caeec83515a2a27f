"""Atheris on the parsers that are Python: inputs that reach new lines are mutated further."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.paths import ROOT

__all__ = ["KEPT", "guide"]

KEPT = ROOT / "build" / "fuzz"

# those whose work is done in C gain nothing from coverage of Python
PYTHON = ("spec", "image", "bundle", "dataset")


def guide(count: int = 5000) -> dict[str, str]:
    """Run atheris on each for so many inputs; what became of it, in words."""
    if find_spec("atheris") is None:
        return dict.fromkeys(PYTHON, "not run: atheris has no wheel for this Python")
    said = {}
    for name in PYTHON:
        print(f"{name}: guided", file=sys.stderr)
        with tempfile.TemporaryDirectory() as found:
            command = [sys.executable, "-m", "tests.fuzz.guided", name, str(count), found]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
            new = len(list(Path(found).iterdir()))
        # it stops at the first input that breaks a promise; how the process ends after all of them says nothing
        if f"Done {count} in" in done.stderr:
            said[name] = f"{count} inputs, {new} of them reached new lines; nothing but errors of edgecnn"
        else:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
            said[name] = f"**failed** after {new} inputs that reached new lines: {''.join(last)}"
    return said


def main(name: str, count: int, found: str) -> None:
    """Atheris's own loop, which ends the process: 0 after so many inputs, else at the first that breaks it."""
    import atheris

    with atheris.instrument_imports(include=["edgecnn", "tomllib", "zipfile"]):
        from edgecnn.errors import EdgeCnnError
        from tests.fuzz.targets import CORPUS, TARGETS
        from tests.fuzz.worker import MEMORY

    target = TARGETS[name]

    def one(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="edgecnn-fuzz-", dir=MEMORY) as folder:
            try:
                target.parse(data, Path(folder))
            except EdgeCnnError as error:
                if "\n" in str(error):
                    raise

    options = [
        f"-atheris_runs={count}",
        "-timeout=5",
        "-max_len=65536",
        "-seed=1",
        f"-artifact_prefix={KEPT}/guided-{name}-",
    ]
    atheris.Setup([sys.argv[0], *options, found, str(CORPUS / name)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
