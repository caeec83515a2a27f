"""Windows of a level in pieces that a dense network takes: images in which windows stand on its grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgecnn.vision.windows import Level

__all__ = ["PIECE_PIXELS", "Piece", "pieces"]

# a piece has about as many pixels as this at most: what a network holds of it grows with it
PIECE_PIXELS = 1 << 20


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


def _runs(starts: Sequence[int], stride: int, most: int) -> Iterator[range]:
    """Indices of starts that are one stride apart, at most so many at a time."""
    on_grid = len(starts) if starts[-1] % stride == 0 else len(starts) - 1
    for first in range(0, on_grid, most):
        yield range(first, min(first + most, on_grid))
    if on_grid < len(starts):
        yield range(on_grid, len(starts))


def _extent(starts: Sequence[int], indices: range, window: int) -> int:
    return starts[indices[-1]] - starts[indices[0]] + window
