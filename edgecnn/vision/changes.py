"""What changed in a scene since it was last looked at, and which windows see it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.opencv import cv2
from edgecnn.vision.windows import Level

__all__ = ["TILE", "ChangedTiles", "touched_windows"]

# side of a tile in pixels of the frame
TILE = 16
# a resized pixel is made of those up to this many beside it, of the frame or the level, whichever are larger
REACH = 3


class ChangedTiles:
    """Compares each frame of one camera with what was last looked at, tile by tile. Not thread-safe.

    A tile counts as changed when a value in it differs by more than the threshold from the frame in which it
    last counted as changed: what creeps is noticed as soon as it adds up.

    Args:
        threshold: Grey levels, 0..254, above the noise of the camera.

    Raises:
        InputError: No such threshold.
    """

    def __init__(self, threshold: int) -> None:
        if not 0 <= threshold <= 254:
            raise InputError(f"still: a threshold is in 0..254 grey levels, not {threshold}")
        self._threshold = threshold
        self._seen: npt.NDArray[np.uint8] | None = None

    def __call__(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
        """Look at the next frame.

        Args:
            frame: uint8 (H, W, 3) BGR.

        Returns:
            bool (rows, columns) of `TILE` pixels, those at the right and lower border cut off; None if there
            is nothing to compare with: the first frame, or one of another size.
        """
        seen = self._seen
        if seen is None or seen.shape != frame.shape:
            self._seen = frame.copy()
            return None
        height, width, channels = frame.shape
        difference = cv2.absdiff(frame, seen).reshape(height, width * channels)
        whole = height - height % TILE
        # forty times as fast as reduceat along this axis
        bands = [difference[:whole].reshape(-1, TILE, width * channels).max(axis=1)]
        if whole < height:
            bands.append(difference[whole:].max(axis=0, keepdims=True))
        largest = np.concatenate(bands)
        largest = np.maximum.reduceat(largest, np.arange(0, width * channels, TILE * channels), axis=1)
        changed: npt.NDArray[np.bool_] = largest > self._threshold
        if changed.all():
            np.copyto(seen, frame)
        else:
            for row, column in np.argwhere(changed):
                tile = np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                seen[tile] = frame[tile]
        return changed

    def reset(self) -> None:
        """Forget the scene."""
        self._seen = None


def touched_windows(
    changed: npt.NDArray[np.bool_], level: Level, window_hw: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Windows of a level that show a changed tile.

    Args:
        changed: From `ChangedTiles`, of the frame that the level was laid out for.
        level: From `pyramid`.
        window_hw: Height and width of a window in level pixels.

    Returns:
        bool (rows, columns) of windows.
    """
    above = np.zeros((changed.shape[0] + 1, changed.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(changed, axis=0), axis=1, out=above[1:, 1:])
    ranges = []
    for starts, window, scale, tiles in zip(
        (level.starts_y, level.starts_x), window_hw, level.scale_xy[::-1], changed.shape
    ):
        edges, reach = np.array(starts) * scale, REACH * max(scale, 1)
        first = np.floor((edges - reach) / TILE)
        last = np.ceil((edges + window * scale + reach) / TILE)
        ranges.append((first.clip(0, tiles).astype(np.int64), last.clip(0, tiles).astype(np.int64)))
    (top, bottom), (left, right) = ranges
    count = above[bottom][:, right] - above[top][:, right] - above[bottom][:, left] + above[top][:, left]
    found: npt.NDArray[np.bool_] = count > 0
    return found
