"""Windows over a pyramid of the frame: where a classifier looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.spec import ModelSpec, WindowGeometry
from edgecnn.vision.color import from_bgr
from edgecnn.vision.geometry import resize
from edgecnn.vision.opencv import IMAGE_PIXELS_MAX

__all__ = [
    "Level",
    "cut_windows",
    "level_boxes",
    "level_image",
    "pyramid",
    "window_at",
    "window_batches",
    "window_starts",
]


@dataclass(frozen=True)
class Level:
    """The frame at one size, and where windows stand on it.

    Attributes:
        size_hw: Height and width of the resized frame.
        scale_xy: Source pixels per level pixel.
        starts_y: Top edges of the windows, in level pixels.
        starts_x: Left edges of the windows, in level pixels.
    """

    size_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    starts_y: tuple[int, ...]
    starts_x: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts_y) * len(self.starts_x)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows start along one axis: every ``stride``, and a last one that ends at the border.

    Args:
        length: Pixels of the axis, at least ``window``.
        window: Pixels of a window.
        stride: Pixels between windows; the last step may be shorter.

    Raises:
        InputError: A size is below 1 or the window is longer than the axis.
    """
    if window < 1 or stride < 1:
        raise InputError(f"window and stride must be at least 1, not {window} and {stride}")
    if length < window:
        raise InputError(f"a window of {window} px does not fit into {length} px")
    last = length - window
    return [*range(0, last, stride), last]


def pyramid(frame_hw: tuple[int, int], spec: ModelSpec) -> tuple[Level, ...]:
    """Lay out the levels on which a window model looks at a frame, smallest objects first.

    Level k shows objects of ``min_size * scale_step**k`` source pixels (the window's shorter side)
    at the size of the model's window; levels go on while the window fits and that size is at most
    ``max_size``.

    Args:
        frame_hw: Height and width of the frame.
        spec: size_hw and window count.

    Raises:
        InputError: The frame is smaller than the smallest window, or would have to be enlarged
            beyond the largest image that is allowed.
    """
    geometry = spec.window or WindowGeometry()
    height, width = spec.size_hw
    smallest = float(geometry.min_size or min(height, width))
    levels: list[Level] = []
    while True:
        size = smallest * geometry.scale_step ** len(levels)
        scale = size / min(height, width)
        level_hw = (round(frame_hw[0] / scale), round(frame_hw[1] / scale))
        fits = level_hw[0] >= height and level_hw[1] >= width
        if not fits or (geometry.max_size is not None and size > geometry.max_size * (1 + 1e-9)):
            break
        if level_hw[0] * level_hw[1] > IMAGE_PIXELS_MAX:
            raise InputError(
                f"windows of {smallest:g} px enlarge a frame of {frame_hw[0]}×{frame_hw[1]} to "
                f"{level_hw[0]}×{level_hw[1]}: raise min_size"
            )
        levels.append(
            Level(
                level_hw,
                (frame_hw[1] / level_hw[1], frame_hw[0] / level_hw[0]),
                tuple(window_starts(level_hw[0], height, geometry.stride)),
                tuple(window_starts(level_hw[1], width, geometry.stride)),
            )
        )
    if not levels:
        scale = smallest / min(height, width)
        raise InputError(
            f"a frame of {frame_hw[0]}×{frame_hw[1]} px (height×width) is smaller than the smallest window, "
            f"{height * scale:g}×{width * scale:g} px: lower min_size (--min-size) or use larger frames"
        )
    return tuple(levels)


def window_batches(
    frame_bgr: npt.NDArray[np.uint8], levels: Sequence[Level], spec: ModelSpec, batch: int
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
    """Cut the windows of the levels, row by row, in batches that run on across levels.

    Args:
        frame_bgr: uint8 (H, W, 3) BGR, of the size that the levels were made for.
        levels: From `pyramid`.
        spec: size_hw, color, interpolation and antialias count.
        batch: Windows a batch; only the last batch may be smaller.

    Yields:
        Windows, uint8 (n, h, w, channels) in the spec's colours, and their boxes_xyxy, float32
        (n, 4) in source pixels. Both are views of buffers that the next batch overwrites.

    Raises:
        InputError: The batch is below 1.
    """
    if batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}")
    image = from_bgr(frame_bgr, spec.color)
    batch = min(batch, sum(level.count for level in levels))
    windows = np.empty((batch, *spec.input_shape), np.uint8)
    boxes = np.empty((batch, 4), np.float32)
    filled = 0
    for level in levels:
        shown = level_image(image, level, spec)
        places = _places(shown, spec.size_hw)
        done = 0
        while done < level.count:
            taken = min(batch - filled, level.count - done)
            rows, columns = np.divmod(np.arange(done, done + taken), len(level.starts_x))
            tops, lefts = np.array(level.starts_y)[rows], np.array(level.starts_x)[columns]
            target = windows[filled : filled + taken]
            target.reshape(taken, spec.size_hw[0], -1)[...] = places[tops, lefts]
            boxes[filled : filled + taken] = _boxes(tops, lefts, level, spec.size_hw)
            done += taken
            filled += taken
            if filled == batch:
                yield windows, boxes
                filled = 0
    if filled:
        yield windows[:filled], boxes[:filled]


def window_at(
    frame_bgr: npt.NDArray[np.uint8], level: Level, row: int, column: int, spec: ModelSpec
) -> npt.NDArray[np.uint8]:
    """Cut one window as `window_batches` does.

    Args:
        frame_bgr: uint8 (H, W, 3) BGR, of the size that the level was made for.
        level: From `pyramid`.
        row: Index into ``level.starts_y``.
        column: Index into ``level.starts_x``.
        spec: size_hw, color, interpolation and antialias count.

    Returns:
        uint8 (h, w, channels) in the spec's colours, a new array.
    """
    shown = level_image(from_bgr(frame_bgr, spec.color), level, spec)
    top, left = level.starts_y[row], level.starts_x[column]
    window = shown[top : top + spec.size_hw[0], left : left + spec.size_hw[1]]
    return np.array(window, np.uint8)


def level_image(image: npt.NDArray[np.uint8], level: Level, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """The frame at the size of a level.

    Args:
        image: uint8 (H, W, channels) in the spec's colours.
        level: From `pyramid`.
        spec: interpolation and antialias count.

    Returns:
        uint8 (h, w, channels); the image itself where the sizes are the same.
    """
    if level.size_hw == image.shape[:2]:
        return image
    return resize(image, level.size_hw, spec.interpolation, spec.antialias)


def _places(image: npt.NDArray[np.uint8], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """View every window at once: (top, left, h, w * channels)."""
    height, width, channels = image.shape
    row = width * channels
    return np.lib.stride_tricks.as_strided(
        image,
        (height - size_hw[0] + 1, width - size_hw[1] + 1, size_hw[0], size_hw[1] * channels),
        (row, channels, row, 1),
        writeable=False,
    )


def cut_windows(
    image: npt.NDArray[np.uint8],
    level: Level,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    size_hw: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """Cut some windows out of a level.

    Args:
        image: From `level_image`, C-contiguous.
        level: Where windows stand.
        rows: Indices into ``level.starts_y``.
        columns: Indices into ``level.starts_x``, as many.
        size_hw: Height and width of a window in level pixels.

    Returns:
        uint8 (n, h, w, channels).
    """
    tops, lefts = np.array(level.starts_y)[rows], np.array(level.starts_x)[columns]
    windows: npt.NDArray[np.uint8] = _places(image, size_hw)[tops, lefts]
    return windows.reshape(len(rows), *size_hw, image.shape[2])


def level_boxes(level: Level, size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Boxes of all windows of a level, row by row.

    Args:
        level: From `pyramid`.
        size_hw: Height and width of a window in level pixels.

    Returns:
        float32 (n, 4), x1 y1 x2 y2 in source pixels.
    """
    tops, lefts = np.meshgrid(np.array(level.starts_y), np.array(level.starts_x), indexing="ij")
    return _boxes(tops.ravel(), lefts.ravel(), level, size_hw).astype(np.float32)


def _boxes(
    tops: npt.NDArray[np.int64], lefts: npt.NDArray[np.int64], level: Level, size_hw: tuple[int, int]
) -> npt.NDArray[np.float64]:
    corners = np.stack([lefts, tops, lefts + size_hw[1], tops + size_hw[0]], axis=1)
    return np.asarray(corners * np.tile(level.scale_xy, 2), np.float64)
