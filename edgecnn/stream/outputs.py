"""What all outputs share: folders that are made, failures in one line, inputs that stay as they are."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, Unavailable
from edgecnn.paths import cannot_write
from edgecnn.stream.base import Image, Source

__all__ = [
    "WriteFailed",
    "create_beside",
    "encode_image",
    "json_text",
    "make_parent",
    "make_ready",
    "protect_source",
    "write_whole",
]


class WriteFailed(Unavailable):
    """An output that was opened cannot be written, as on a full disk; it may be the next time.

    Attributes:
        output: Its name.
        reason: Of the system.
    """

    def __init__(self, output: str | os.PathLike[str], reason: str | None) -> None:
        self.output, self.reason = os.fspath(output), reason
        super().__init__(f"{self.output}: writing failed ({reason}); check the space and the disk")


def make_parent(path: Path) -> None:
    """Make the folder that a file goes into.

    Raises:
        InputError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be made a folder ({error.strerror})") from error


def make_ready(path: Path) -> None:
    """Make the folder of a file that is written later, and see that files can be written there.

    Raises:
        InputError: They cannot, or the path is a folder.
        Unavailable: The disk is full.
    """
    make_parent(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        create_beside(path).unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def create_beside(path: Path) -> Path:
    """Create a new, empty file to write into until it is whole: hidden, in the same folder, same suffix.

    Its name cannot be guessed, so it is never a file of the user's.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    # not made of the name itself, which may be as long as names can be
    beside = path.with_name(f".edgecnn-{secrets.token_hex(8)}{path.suffix}")
    beside.touch(exist_ok=False)
    return beside


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it, so that it is never half there.

    Raises:
        WriteFailed: The folder cannot be written, or the disk is full or broken.
    """
    try:
        beside = create_beside(path)
        try:
            beside.write_bytes(data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(path, error.strerror) from error


def json_text(value: Any, indent: int | None = None) -> str:
    """Write JSON as the standard has it: numbers that are not finite become null."""
    # ASCII: a file name that is not valid UTF-8 must not break the line
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def encode_image(image: Image, path: Path) -> bytes:
    """Encode an image file, in the format of its suffix.

    Args:
        image: uint8 (H, W, 3) BGR.
        path: Where it will go.

    Raises:
        InputError: The format cannot hold it.
    """
    from edgecnn.vision.opencv import cv2

    try:
        ok, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        ok, data = False, None
    if not ok or data is None:
        height, width = image.shape[:2]
        raise InputError(f"{path}: a picture of {width}×{height} cannot be written as {path.suffix}")
    return bytes(data.tobytes())


def protect_source(path: Path, source: Source, option: str) -> None:
    """Refuse an output that would replace an input.

    Raises:
        InputError: ``path`` is a file that the source reads, or its folder; or no file can have that
            name.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written ({error.strerror})") from error
    for taken in (*source.paths, *([source.root] if source.root else [])):
        if taken.exists() and path.samefile(taken):
            raise InputError(f"{option} {path}: is the source itself; choose another name")
