"""Where edgecnn keeps what outlives a run, and how it writes there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecnn.errors import EdgeCnnError, InputError, Unavailable

__all__ = [
    "NO_ROOM",
    "cache_dir",
    "cannot_write",
    "check_name",
    "is_private",
    "locked",
    "make_private",
    "replace_file",
    "state_dir",
    "trim",
]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_dir() -> Path:
    """The folder for compiled engines and measurements, absolute; it may not exist yet.

    ``$EDGECNN_CACHE``, else ``$XDG_CACHE_HOME/edgecnn``, else ``~/.cache/edgecnn``; for a user without a
    home, as in some containers, a folder of its own among the temporary files.
    """
    own = os.environ.get("EDGECNN_CACHE")
    return Path(own).expanduser().absolute() if own else _home_folder("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """The folder for what cannot be made again, such as results that were not sent; it may not exist yet.

    ``$XDG_STATE_HOME/edgecnn``, else ``~/.local/state/edgecnn``, else as `cache_dir`.
    """
    return _home_folder("XDG_STATE_HOME", ".local/state")


def _home_folder(variable: str, usual: str) -> Path:
    base = os.environ.get(variable, "")
    # a relative one is to be ignored: XDG Base Directory Specification
    if Path(base).is_absolute():
        return Path(base) / "edgecnn"
    try:
        return Path.home() / usual / "edgecnn"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"edgecnn-{os.getuid()}"


def check_name(path: Path) -> None:
    """See that OpenCV can be given the name of a video: it crashes over one that is not UTF-8.

    Raises:
        InputError: It cannot.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: a name that is not UTF-8; rename it") from error


def make_private(folder: Path) -> None:
    """Make a folder in the cache, and the cache itself, for this user alone; those that exist stay.

    Raises:
        OSError: They cannot be made.
    """
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_private(folder: Path) -> bool:
    """Whether nobody but this user and root can change what is in a folder, or put another in its place.

    What engines are loaded from has to be: they are machine code.

    Raises:
        OSError: It cannot be looked at, or is not there.
    """
    if not hasattr(os, "getuid"):  # Windows, where a user's folders are private by themselves
        return True
    # in a folder with the sticky bit, such as /tmp, others cannot rename what is ours
    for path, guard in ((folder, 0), (folder.parent, stat.S_ISVTX)):
        status = path.stat()
        if status.st_uid not in (0, os.getuid()):
            return False
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & guard:
            return False
    return True


def cannot_write(path: Path, error: OSError) -> EdgeCnnError:
    """Make the error for a place that cannot be written: it is the wrong one, or the disk is full."""
    said = f"{path}: cannot be written ({error.strerror})"
    if error.errno in NO_ROOM:
        return Unavailable(f"{said}; free some space, or choose another disk")
    return InputError(said)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which other processes and other threads then wait for; Windows has none such.

    Raises:
        OSError: It cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def trim(cache: Path, most_bytes: int) -> None:
    """Remove folders of a cache, those unused for longest first, until the others take no more than that.

    A folder was used when its time was set last.
    """
    room = most_bytes
    with suppress(OSError):
        folders = [(path.stat().st_mtime, path) for path in cache.iterdir() if path.is_dir()]
        for _, folder in sorted(folders, reverse=True):
            room -= sum(file.stat().st_size for file in folder.iterdir())
            if room < 0:
                shutil.rmtree(folder, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write beside a file and rename, so that a reader finds all of the old or all of the new one.

    Raises:
        OSError: It cannot be written; what was there still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        Path(beside).replace(path)
    finally:
        Path(beside).unlink(missing_ok=True)
