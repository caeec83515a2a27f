"""Where edgecnn keeps what it can make again, and how it writes there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["cache_dir", "replace_file"]


def cache_dir() -> Path:
    """The folder for compiled engines and measurements; it may not exist yet.

    ``$EDGECNN_CACHE``, else ``$XDG_CACHE_HOME/edgecnn``, else ``~/.cache/edgecnn``; for a user without a
    home, as in some containers, a folder of its own among the temporary files.
    """
    own, base = os.environ.get("EDGECNN_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if own:
        return Path(own)
    # a relative one is to be ignored: XDG Base Directory Specification
    if Path(base).is_absolute():
        return Path(base) / "edgecnn"
    try:
        return Path.home() / ".cache" / "edgecnn"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"edgecnn-{os.getuid()}"


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
