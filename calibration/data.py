"""Samples for a model, drawn from a folder, a video, an npz or frames through its own preprocessing."""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.spec import ModelSpec

__all__ = ["FrameSource", "Samples", "draw_samples"]

Frames = Sequence[npt.NDArray[np.uint8]]
FrameSource = str | os.PathLike[str] | npt.NDArray[Any] | Iterable[npt.NDArray[np.uint8]]

NPZ_KEY = "frames"


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

    Frames are taken evenly over the whole source. For window detection, windows are drawn at random
    from the places and scales the runtime looks at; otherwise each frame is fitted to the model's
    input. Both go through the functions that the predictor uses.

    Args:
        source: A folder of images, a video, an ``.npz`` that holds ``frames`` (n, h, w, 3), such an
            array, or any iterable of frames; all uint8 BGR. None generates frames.
        spec: The model's spec.
        count: Number of samples; fewer are returned when the source has fewer frames.
        seed: Of the random windows.

    Raises:
        InputError: The source is of no known kind or its frames are not uint8 BGR.
        MediaError: The source holds no frame.
    """
    if count < 1:
        raise InputError(f"samples must be at least 1, not {count}")
    if source is None:
        frames: Frames = generate_frames(count, seed)
        name = "generated images"
    else:
        frames, name = _frames(source, count)
    if len(frames) == 0:
        raise MediaError(f"{name}: holds no frame")
    images = _windows(frames, spec, count, seed) if spec.task == "window_detection" else _fitted(frames, spec)
    return Samples(images, name, generated=source is None)


def generate_frames(count: int, seed: int = 0, size_hw: tuple[int, int] = (360, 480)) -> Frames:
    """Frames with structure at every scale (noise of several octaves, edges, flat parts), uint8 BGR."""
    from edgecnn.vision.geometry import resize

    rng = np.random.default_rng(seed)
    frames = []
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
        frames.append(frame.astype(np.uint8))
    return frames


def _frames(source: FrameSource, count: int) -> tuple[Frames, str]:
    if isinstance(source, np.ndarray):
        return _evenly(_checked_array(source, "frames"), count), f"{len(source)} frames"
    if isinstance(source, (str, os.PathLike)):
        return _frames_of_path(Path(source), count)
    if not isinstance(source, Iterable):
        raise InputError(f"calibration: a {type(source).__name__} is no source of frames")
    frames = list(itertools.islice(source, count))
    return frames, f"{len(frames)} frames"


def _frames_of_path(path: Path, count: int) -> tuple[Frames, str]:
    from edgecnn.vision.images import IMAGE_SUFFIXES, list_images, read_image
    from edgecnn.vision.video import sample_frames

    if not path.exists():
        raise MediaError(f"{path}: no such file or folder")
    if path.is_dir():
        files = list_images(path)
        return [read_image(file) for file in _evenly(files, count)], f"{path.name} ({len(files)} images)"
    if path.suffix.lower() == ".npz":
        array = _checked_array(_load_npz(path), str(path))
        return _evenly(array, count), f"{path.name} ({len(array)} frames)"
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return [read_image(path)], path.name
    frames = sample_frames(path, count)
    return frames, f"{path.name} ({len(frames)} frames spread over it)"


def _load_npz(path: Path) -> npt.NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            if NPZ_KEY not in names and len(names) != 1:
                raise MediaError(f"{path}: holds {', '.join(names) or 'nothing'}; name the array {NPZ_KEY!r}")
            array: npt.NDArray[Any] = archive[NPZ_KEY if NPZ_KEY in names else names[0]]
    except MediaError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path}: not an npz of plain arrays ({error})") from error
    return array


def _checked_array(array: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise InputError(
            f"{where}: {array.dtype} {'×'.join(map(str, array.shape))}, "
            "frames are uint8 (n, height, width, 3) BGR"
        )
    return array


def _evenly(items: Any, count: int) -> Any:
    if len(items) <= count:
        return items
    chosen = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[i] for i in chosen]


def _fitted(frames: Frames, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    from edgecnn.vision.geometry import fit

    return np.stack([fit(frame, spec)[0] for frame in frames])


def _windows(frames: Frames, spec: ModelSpec, count: int, seed: int) -> npt.NDArray[np.uint8]:
    from edgecnn.vision.windows import pyramid, window_batches

    rng = np.random.default_rng(seed)
    per_frame = -(-count // len(frames))
    drawn = []
    for frame in frames:
        levels = pyramid(frame.shape[:2], spec)
        # levels first, then places: by place alone nearly all windows would be of the smallest objects
        for index in rng.integers(0, len(levels), per_frame):
            batches = window_batches(frame, (levels[index],), spec, batch=levels[index].count)
            windows, _ = next(iter(batches))
            drawn.append(windows[rng.integers(0, len(windows))].copy())
    return np.stack(drawn[:count])
