"""Where frames come from: one function that knows a camera from a video from a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.stream.address import parse_address
from edgecnn.stream.base import Image, Source
from edgecnn.stream.files import ArraySource, FolderSource, ImageSource, IterableSource, VideoSource
from edgecnn.stream.live import TIMEOUT_S, LiveSource
from edgecnn.stream.pipe import PipeSource
from edgecnn.stream.several import SeveralSources
from edgecnn.stream.watched import WatchedFolder

__all__ = ["Where", "open_source", "open_sources"]

Where = Union[int, str, "os.PathLike[str]", npt.NDArray[Any], Iterable[Image]]

TIMEOUT_S_MAX = 3600.0
WATCH = "watch://"
SUPPORTED = "a camera number, a URL, a video file, an image, a folder of images"


def open_source(
    where: Where, *, timeout_s: float = TIMEOUT_S, frame_hw: tuple[int, int] | None = None
) -> Source:
    """Open a source of frames.

    Args:
        where: A camera's number (``0``, ``"0"``, ``"/dev/video0"``); ``csi://0``, a sensor of a Jetson;
            a URL (``rtsp://``, ``http://``, both with an s); the path of a video, an image or a folder of
            images (searched through, sorted by path); ``watch://FOLDER``, images that come into it;
            ``-``, raw frames in standard input; an array (H, W, 3) or (n, H, W, 3); or an iterable of
            frames. Arrays and frames are uint8 BGR.
        timeout_s: Of cameras and URLs: how long they may take to answer, and to give the next frame, before
            they are opened anew.
        frame_hw: Height and width of raw frames.

    Raises:
        InputError: Of none of these kinds.
        MediaError: The file or folder is missing or holds nothing that can be read.
        DeviceUnavailable: The camera or URL cannot be opened; says what to check.
    """
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise InputError(f"timeout_s: {timeout_s:g} s; give more than 0 and at most {TIMEOUT_S_MAX:g}")
    if isinstance(where, (int, np.integer)) and not isinstance(where, bool):
        if where < 0:
            raise InputError(f"camera: the first one is number 0, there is no {where}")
        return _open_name(str(int(where)), timeout_s, frame_hw)
    if isinstance(where, np.ndarray):
        return ArraySource(where)
    if isinstance(where, (str, os.PathLike)):
        return _open_name(os.fspath(where), timeout_s, frame_hw)
    if isinstance(where, Iterable):
        return IterableSource(where)
    raise InputError(f"source: a {type(where).__name__} holds no frames; give {SUPPORTED} or frames")


def open_sources(
    wheres: Sequence[Where], *, timeout_s: float = TIMEOUT_S, frame_hw: tuple[int, int] | None = None
) -> Source:
    """Open several sources as one, whose frames come in turn; arguments and errors as of `open_source`."""
    opened: list[Source] = []
    with ExitStack() as stack:
        for where in wheres:
            opened.append(stack.enter_context(open_source(where, timeout_s=timeout_s, frame_hw=frame_hw)))
        stack.pop_all()
    return opened[0] if len(opened) == 1 else SeveralSources(opened)


def _open_name(name: str, timeout_s: float, frame_hw: tuple[int, int] | None) -> Source:
    if not name:
        raise InputError(f"source: empty; give {SUPPORTED}")
    if name == "-":
        return PipeSource(frame_hw)
    if name.startswith(WATCH):
        return WatchedFolder(Path(name.removeprefix(WATCH) or "."))
    address = parse_address(name)
    return _open_path(Path(name)) if address is None else LiveSource(address, timeout_s)


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
