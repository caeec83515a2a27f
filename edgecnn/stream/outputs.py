"""What all outputs share: folders that are made, failures in one line, inputs that stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

from edgecnn.errors import InputError, Unavailable
from edgecnn.stream.base import Image, Source

__all__ = ["encode_image", "make_parent", "protect_source", "write_failed", "write_whole"]


def make_parent(path: Path) -> None:
    """Make the folder that a file goes into.

    Raises:
        InputError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be made a folder ({error.strerror})") from error


def write_failed(path: str | os.PathLike[str], error: OSError) -> Unavailable:
    """Make the error for an output that was opened and then cannot be written, as on a full disk."""
    return Unavailable(f"{os.fspath(path)}: writing failed ({error.strerror}); check the space and the disk")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it, so that it is never half there.

    Raises:
        Unavailable: It cannot be written.
    """
    beside = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise write_failed(path, error) from error


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
        InputError: ``path`` is a file that the source reads, or its folder.
    """
    if not path.exists():
        return
    for taken in (*source.paths, *([source.root] if source.root else [])):
        if taken.exists() and path.samefile(taken):
            raise InputError(f"{option} {path}: is the source itself; choose another name")
