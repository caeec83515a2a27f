"""A disk of a few megabytes, which tests fill up and empty again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 4096


def mount(folder: Path, megabytes: int) -> str | None:
    """Mount a disk in memory; says why that cannot be done here."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        return "only root can mount a disk that is small enough to be filled"
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() or None


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk for as long as the block takes.

    Raises:
        OSError: It cannot be mounted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if reason := mount(folder, megabytes):
        raise OSError(reason)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Take all room of a disk but so many bytes, which are rounded down to pages."""
    pages = max(shutil.disk_usage(disk).free - leave, 0) // CHUNK
    with (disk / "filled").open("ab", buffering=0) as file, suppress(OSError):
        file.write(bytes(pages * CHUNK))
        while not leave:  # what others write meanwhile leaves a gap
            file.write(bytes(CHUNK))


def empty(disk: Path) -> None:
    """Give back what `fill` took."""
    (disk / "filled").unlink()
