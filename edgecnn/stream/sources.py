"""Where frames come from: one function that knows a camera from a video from a folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.stream.base import Image, Source
from edgecnn.stream.camera import CameraSource
from edgecnn.stream.files import ArraySource, FolderSource, ImageSource, IterableSource, VideoSource

__all__ = ["Where", "open_source"]

Where = Union[int, str, "os.PathLike[str]", npt.NDArray[Any], Iterable[Image]]

SUPPORTED = "a camera number, a video file, an image, a folder of images"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE = re.compile(r"/dev/video(\d+)")


def open_source(where: Where) -> Source:
    """Open a source of frames.

    Args:
        where: A camera's number (``0``, ``"0"``, ``"/dev/video0"``); the path of a video, an image or
            a folder of images (searched through, sorted by path); an array (H, W, 3) or
            (n, H, W, 3); or an iterable of frames. Arrays and frames are uint8 BGR.

    Raises:
        InputError: Of none of these kinds.
        MediaError: The file or folder is missing or holds nothing that can be read.
        DeviceUnavailable: The camera cannot be opened; says what to check.
    """
    if isinstance(where, (int, np.integer)) and not isinstance(where, bool):
        return CameraSource(int(where))
    if isinstance(where, np.ndarray):
        return ArraySource(where)
    if isinstance(where, (str, os.PathLike)):
        return _open_name(os.fspath(where))
    if isinstance(where, Iterable):
        return IterableSource(where)
    raise InputError(f"source: a {type(where).__name__} holds no frames; give {SUPPORTED} or frames")


def _open_name(name: str) -> Source:
    if not name:
        raise InputError(f"source: empty; give {SUPPORTED}")
    if scheme := _SCHEME.match(name):
        # the rest of the URI is kept out of the message: it may hold a password
        raise InputError(f"source: {scheme[1]}:// is not supported; give {SUPPORTED}")
    if device := _DEVICE.fullmatch(name):
        return CameraSource(int(device[1]))
    if name.isascii() and name.isdigit():
        return CameraSource(int(name))
    return _open_path(Path(name))


def _open_path(path: Path) -> Source:
    from edgecnn.vision.images import IMAGE_SUFFIXES

    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            reason = "no such file or folder"
        else:
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise MediaError(f"{path}: {reason}") from error
    if stat.S_ISDIR(mode):
        return FolderSource(path)
    if not stat.S_ISREG(mode):
        raise MediaError(f"{path}: not a file or folder; give {SUPPORTED}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path)
    return VideoSource(path)
