"""Windows of a level in pieces that a dense network takes: images in which windows stand on its grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.vision.opencv import cv2
from edgecnn.vision.windows import Level

__all__ = ["PIECE_PIXELS", "Piece", "pieces"]

# a piece has about as many pixels as this at most: what a network holds of it grows with it
PIECE_PIXELS = 1 << 20
# parts of a piece have a multiple of so many rows and columns: engines prepare themselves for every new size
ROUND = 8


@dataclass(frozen=True)
class Piece:
    """A part of a level in which all windows are one stride apart.

    Attributes:
        rows, columns: Its windows, as ranges of indices into the level's ``starts_y`` and ``starts_x``.
        top, left: Its upper left corner, in level pixels.
        size_hw: Height and width: the windows cover it to the last pixel.
    """

    rows: range
    columns: range
    top: int
    left: int
    size_hw: tuple[int, int]

    @property
    def place(self) -> tuple[slice, slice]:
        """Where its windows are in a map of the level, (rows, columns, …)."""
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)

    def around(
        self, chosen: npt.NDArray[np.bool_], window_hw: tuple[int, int], stride: int
    ) -> Iterator[Piece]:
        """Parts of it that hold all chosen windows, and few others.

        Args:
            chosen: Which of its windows, bool (rows, columns).
            window_hw: Height and width of a window in level pixels.
            stride: Pixels between windows.
        """
        if not chosen.any():
            return
        _, _, groups, _ = cv2.connectedComponentsWithStats(chosen.astype(np.uint8), connectivity=8)
        rows, columns = np.nonzero(chosen)
        extent = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        parts = [self._part(group[:4].tolist(), window_hw, stride) for group in groups[1:]]
        together = self._part([int(each) for each in extent], window_hw, stride)
        yield from parts if sum(map(_pixels, parts)) < _pixels(together) else [together]

    def _part(self, extent: Sequence[int], window_hw: tuple[int, int], stride: int) -> Piece:
        """The windows from a column and a row on, so many columns and rows of them, and some around."""
        (column, columns), (row, rows) = (
            _widened(first, count, len(all_of_them))
            for first, count, all_of_them in zip(extent[:2], extent[2:], (self.columns, self.rows))
        )
        return Piece(
            self.rows[row : row + rows],
            self.columns[column : column + columns],
            self.top + row * stride,
            self.left + column * stride,
            (window_hw[0] + (rows - 1) * stride, window_hw[1] + (columns - 1) * stride),
        )


def pieces(level: Level, window_hw: tuple[int, int], stride: int) -> Iterator[Piece]:
    """Divide a level.

    The last row and the last column of windows end at the border and are mostly off the grid; they are
    pieces of their own.

    Args:
        level: From `pyramid`.
        window_hw: Height and width of a window in level pixels.
        stride: Pixels between windows, that the level was laid out with.
    """
    columns = list(_runs(level.starts_x, stride, len(level.starts_x)))
    width = _extent(level.starts_x, columns[0], window_hw[1])
    # as many rows of windows as fit, at least one
    most = max(1, (PIECE_PIXELS // width - window_hw[0]) // stride + 1)
    for rows in _runs(level.starts_y, stride, most):
        for across in columns:
            size_hw = (
                _extent(level.starts_y, rows, window_hw[0]),
                _extent(level.starts_x, across, window_hw[1]),
            )
            yield Piece(rows, across, level.starts_y[rows[0]], level.starts_x[across[0]], size_hw)


def _widened(first: int, count: int, most: int) -> tuple[int, int]:
    count = min(-(-count // ROUND) * ROUND, most)
    return min(first, most - count), count


def _pixels(piece: Piece) -> int:
    return piece.size_hw[0] * piece.size_hw[1]


def _runs(starts: Sequence[int], stride: int, most: int) -> Iterator[range]:
    """Indices of starts that are one stride apart, at most so many at a time."""
    on_grid = len(starts) if starts[-1] % stride == 0 else len(starts) - 1
    for first in range(0, on_grid, most):
        yield range(first, min(first + most, on_grid))
    if on_grid < len(starts):
        yield range(on_grid, len(starts))


def _extent(starts: Sequence[int], indices: range, window: int) -> int:
    return starts[indices[-1]] - starts[indices[0]] + window
