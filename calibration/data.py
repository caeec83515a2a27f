"""Samples for a model, drawn from a folder, a video, an npz or frames through its own preprocessing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.manifest import sizes_text
from edgecnn.npz import open_npz
from edgecnn.spec import ModelSpec
from edgecnn.vision.color import check_frame
from edgecnn.vision.geometry import fit, resize
from edgecnn.vision.images import IMAGE_SUFFIXES, list_images, read_image
from edgecnn.vision.video import sample_frames
from edgecnn.vision.windows import pyramid, window_at

__all__ = ["FrameSource", "Samples", "draw_frames", "draw_samples", "generate_frames"]

FrameSource = str | os.PathLike[str] | npt.NDArray[Any] | Iterable[npt.NDArray[np.uint8]]

_T = TypeVar("_T")

NPZ_KEY = "frames"
NPZ_BYTES_MAX = 2**33
# windows come from at most so many frames, however many windows are drawn
WINDOW_FRAMES = 256


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a model.

    Attributes:
        images: uint8 (n, h, w, c), in the model's size and colour order.
        source: Where they came from, in words.
        generated: They were made up; figures measured on them say little of real use.
    """

    images: npt.NDArray[np.uint8]
    source: str
    generated: bool = False

    def __len__(self) -> int:
        return len(self.images)


def draw_samples(source: FrameSource | None, spec: ModelSpec, count: int = 32, seed: int = 0) -> Samples:
    """Draw inputs from a source of frames; the same call draws the same inputs.

    Frames are taken evenly over the whole source (of an iterator, the first ones). For window detection,
    windows are drawn at random from the places and scales the runtime looks at; otherwise each frame is
    fitted to the model's input. Both go through the functions that the predictor uses. One frame is held
    at a time, of an iterator where windows are drawn up to 256.

    Args:
        source: A folder of images, a video, an ``.npz`` that holds ``frames`` (n, h, w, 3), such an
            array, or any iterable of frames; all uint8 BGR. None generates frames.
        spec: The model's spec.
        count: Number of samples; fewer are returned when the source has fewer frames.
        seed: Of the random windows.

    Raises:
        InputError: The source is of no known kind, or a frame of it is not uint8 BGR or does not fit.
        MediaError: The source holds no frame.
    """
    if count < 1:
        raise InputError(f"samples must be at least 1, not {count}")
    if source is None:
        frames = _Frames("generated images", count, _numbered(generate_frames(count, seed)))
    else:
        frames = _frames(
            source, count if spec.window is None else min(count, WINDOW_FRAMES), whole=spec.window is None
        )
    rng = np.random.default_rng(seed)
    each = -(-count // max(frames.count, 1))
    drawn: list[npt.NDArray[np.uint8]] = []
    for name, frame in frames.named:
        try:
            check_frame(frame)
            drawn.extend(_windows(frame, spec, each, rng) if spec.window else [fit(frame, spec)[0]])
        except InputError as error:
            raise type(error)(f"{name}: {error}") from error
    if not drawn:
        raise MediaError(f"{frames.source}: holds no frame")
    # as many windows of each frame may be more than were asked for
    return Samples(np.stack(_evenly(drawn, count)), frames.source, generated=source is None)


def draw_frames(
    source: FrameSource | None, count: int, seed: int = 0
) -> tuple[list[npt.NDArray[np.uint8]], bool]:
    """Whole frames, spread evenly over a source; the same call draws the same.

    Args:
        source: As `draw_samples`. An iterator may have been read already, and counts as None.
        count: How many; fewer where there are no more.
        seed: Of frames that are made up.

    Returns:
        uint8 (h, w, 3) BGR each, and whether they are real.

    Raises:
        InputError: The source is of no known kind.
        MediaError: It holds no frame.
    """
    if source is None or not isinstance(source, (str, os.PathLike, np.ndarray, Sequence)):
        return list(generate_frames(count, seed)), False
    drawn = _frames(source, count, whole=False)
    frames = [frame for _, frame in drawn.named]
    if not frames:
        raise MediaError(f"{drawn.source}: holds no frame")
    return frames, True


@dataclass(frozen=True)
class _Frames:
    """Frames on their way: what they are called, how many come, and each with a name for messages."""

    source: str
    count: int
    named: Iterable[tuple[str, npt.NDArray[np.uint8]]]


def _numbered(frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Give frames that have no file the name ``frame 0``, ``frame 1``…"""
    return ((f"frame {index}", frame) for index, frame in enumerate(frames))


def generate_frames(
    count: int, seed: int = 0, size_hw: tuple[int, int] = (360, 480)
) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames with structure at every scale (noise of several octaves, edges, flat parts), uint8 BGR."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        frame = np.full((*size_hw, 3), 0.0, np.float32)
        for octave in range(2, 8):
            cells = rng.integers(0, 256, (2**octave, 2**octave, 3), np.uint8)
            frame += resize(cells, size_hw, "bilinear").astype(np.float32) / octave
        frame *= 255 / max(float(frame.max()), 1.0)
        for _ in range(8):
            y, x = rng.integers(0, size_hw[0]), rng.integers(0, size_hw[1])
            h, w = rng.integers(8, size_hw[0] // 2), rng.integers(8, size_hw[1] // 2)
            frame[y : y + h, x : x + w] = rng.integers(0, 256, 3)
        yield frame.astype(np.uint8)


def _frames(source: FrameSource, count: int, *, whole: bool) -> _Frames:
    if isinstance(source, np.ndarray):
        source = list(_checked_array(source, "frames"))
    if isinstance(source, (str, os.PathLike)):
        return _frames_of_path(Path(source), count)
    if not isinstance(source, Iterable):
        raise InputError(f"calibration: a {type(source).__name__} is no source of frames")
    # what has no length may have no end
    if whole and not isinstance(source, Sequence):
        return _Frames("frames of an iterator", count, _numbered(itertools.islice(source, count)))
    # how many windows to draw of each frame depends on how many frames there are
    held = list(source if isinstance(source, Sequence) else itertools.islice(source, count))
    return _of_list(f"{len(held)} frames", held, count)


def _of_list(name: str, frames: Sequence[npt.NDArray[np.uint8]], count: int) -> _Frames:
    chosen = _evenly(frames, count)
    return _Frames(name, len(chosen), _numbered(chosen))


def _frames_of_path(path: Path, count: int) -> _Frames:
    if not path.exists():
        raise MediaError(f"{path}: no such file or folder")
    if path.is_dir():
        files = list_images(path)
        chosen = _evenly(files, count)
        named = ((str(file), read_image(file)) for file in chosen)
        return _Frames(f"{path.name} ({len(files)} images)", len(chosen), named)
    if path.suffix.lower() == ".npz":
        array = _checked_array(_load_npz(path), str(path))
        return _of_list(f"{path.name} ({len(array)} frames)", list(array), count)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _Frames(path.name, 1, [(str(path), read_image(path))])
    frames = sample_frames(path, count)
    return _Frames(
        f"{path.name} ({len(frames)} frames spread over it)",
        len(frames),
        ((str(path), frame) for frame in frames),
    )


def _load_npz(path: Path) -> npt.NDArray[Any]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    with file, open_npz(file, str(path), MediaError, NPZ_BYTES_MAX) as arrays:
        names = list(arrays)
        if NPZ_KEY not in names and len(names) != 1:
            raise MediaError(f"{path}: holds {', '.join(names) or 'nothing'}; name the array {NPZ_KEY!r}")
        return arrays[NPZ_KEY if NPZ_KEY in names else names[0]]


def _checked_array(array: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise InputError(
            f"{where}: {array.dtype} {sizes_text(array.shape)}, frames are uint8 (n, height, width, 3) BGR"
        )
    return array


def _evenly(items: Sequence[_T], count: int) -> Sequence[_T]:
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _windows(
    frame: npt.NDArray[np.uint8], spec: ModelSpec, count: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.uint8]]:
    levels = pyramid((frame.shape[0], frame.shape[1]), spec)
    # levels first, then places: by place alone nearly all windows would be of the smallest objects
    for index in rng.integers(0, len(levels), count):
        level = levels[index]
        row, column = rng.integers(0, len(level.starts_y)), rng.integers(0, len(level.starts_x))
        yield window_at(frame, level, int(row), int(column), spec)
