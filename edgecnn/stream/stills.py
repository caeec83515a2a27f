"""Annotated pictures: the best of a stream, or one for each picture of a folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgecnn.errors import InputError
from edgecnn.results import Classification, Detections, Result
from edgecnn.stream.base import Frame, Image, Source, Summary
from edgecnn.stream.outputs import encode_image, make_parent, make_ready, write_whole

__all__ = ["STILL_SUFFIXES", "FolderSink", "StillSink"]

STILL_SUFFIXES = (".png", ".jpg", ".jpeg")


class StillSink:
    """Keeps one annotated picture on disk: that of the surest frame so far.

    For detections that is the highest mean score (of two decimals), then the most boxes: by their number
    alone, a false one would win. For classes it is the highest score. The first frame is written in any case.
    """

    def __init__(self, path: Path) -> None:
        """Prepare the file: ``.png``, ``.jpg`` or ``.jpeg``.

        Raises:
            InputError: Its folder cannot be made or written.
            Unavailable: The disk is full.
        """
        self._path = path
        self._best: tuple[float, ...] | None = None
        make_ready(path)

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Replace the picture when this frame is surer.

        Raises:
            WriteFailed: It cannot be written; the one before stays.
        """
        rank = _rank(result)
        if self._best is None or rank > self._best:
            write_whole(self._path, encode_image(annotated(), self._path))
            self._best = rank

    def close(self, summary: Summary) -> None:
        """Nothing is left to do."""


class FolderSink:
    """Writes one annotated picture a frame, under the same names and sub-folders as the source's."""

    def __init__(self, folder: Path, source: Source) -> None:
        """Choose the names and make the folder.

        Args:
            folder: Where the pictures go.
            source: An image or a folder of images.

        Raises:
            InputError: A picture would replace one of the source, or the folder cannot be made.
        """
        self._targets = {str(path): folder / name for path, name in _names(source).items()}
        originals = {path.resolve() for path in source.paths}
        for target in self._targets.values():
            if target.resolve() in originals:
                raise InputError(f"--save {folder}: would replace {target}; choose another folder")
        make_parent(folder / "any")

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Write the picture of one frame."""
        path = self._targets[frame.source]
        make_parent(path)
        write_whole(path, encode_image(annotated(), path))

    def close(self, summary: Summary) -> None:
        """Nothing is left to do."""


def _names(source: Source) -> dict[Path, Path]:
    """Choose a name for each picture, below the folder; formats that are not written here become PNG."""
    names: dict[Path, Path] = {}
    taken: set[Path] = set()
    for path in source.paths:
        name = path.relative_to(source.root or path.parent)
        if name.suffix.lower() not in STILL_SUFFIXES:
            name = name.with_name(f"{name.name}.png")
        unique, number = name, 2
        while unique in taken:
            unique = name.with_name(f"{name.stem}-{number}{name.suffix}")
            number += 1
        taken.add(unique)
        names[path] = unique
    return names


def _rank(result: Result) -> tuple[float, ...]:
    if isinstance(result, Detections):
        return (round(_comparable(result.scores.mean()), 2), len(result)) if len(result) else (-math.inf, 0)
    if isinstance(result, Classification):
        # scores without an activation may all be negative
        return (_comparable(result.scores.max(initial=-np.inf)),)
    return (0.0,)


def _comparable(score: float) -> float:
    """Put what is not a number below all that are: nothing compares with it."""
    return -math.inf if math.isnan(score) else float(score)
