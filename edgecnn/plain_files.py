"""The files of a bundle on disk: what is a link, a pipe or a device is not opened, let alone followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgecnn.errors import BundleError

__all__ = ["open_plain", "walk", "write_through"]

SHIPPED = Path(__file__).absolute().parent / "models"


def walk(root: Path) -> Iterator[Path]:
    """All that is in a folder but folders; at any depth, which os.walk cannot before Python 3.12."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise BundleError(f"{error.filename}: cannot be read ({error.strerror})") from error
        for entry in found:
            if entry.is_symlink():
                raise BundleError(f"{entry.path}: a link; a bundle holds plain files only")
            if entry.is_dir(follow_symlinks=False):
                folders.append(folder / entry.name)
            else:
                yield folder / entry.name


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """A plain file that has no other name; no link is followed."""
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to must not wait
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        reason = "a link; a bundle holds plain files only" if path.is_symlink() else error.strerror
        raise BundleError(f"{path}: {reason}") from error
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise BundleError(f"{path}: not a plain file")
        if info.st_nlink > 1 and not _installed(path, handle):
            raise BundleError(
                f"{path}: a hard link, what is written to its other name changes it; copy the bundle (cp -r)"
            )
        with open(handle, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        os.close(handle)


def _installed(path: Path, handle: int) -> bool:
    """Whether an installer may have linked a file to its store: uv and conda what a package brings, ostree
    all of a system, which nobody can write to then.
    """
    if path.absolute().is_relative_to(SHIPPED):
        return True
    return hasattr(os, "fstatvfs") and bool(os.fstatvfs(handle).f_flag & os.ST_RDONLY)


def write_through(path: Path, data: bytes) -> None:
    """Write a file so that it is whole after a loss of power once its bundle has its name."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
