"""Pieces of a level: every window in one of them, on its grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.vision import Level, dense, pyramid
from edgecnn.vision.dense import Piece, pieces


def test_a_level_on_the_grid_is_one_piece() -> None:
    level = Level((40, 48), (1, 1), (0, 8, 16), (0, 8, 16, 24))
    assert list(pieces(level, (24, 24), 8)) == [Piece(range(3), range(4), 0, 0, (40, 48))]


def test_the_last_row_and_column_are_off_the_grid() -> None:
    level = Level((43, 29), (1, 1), (0, 8, 16, 19), (0, 5))
    assert list(pieces(level, (24, 24), 8)) == [
        Piece(range(3), range(1), 0, 0, (40, 24)),
        Piece(range(3), range(1, 2), 0, 5, (40, 24)),
        Piece(range(3, 4), range(1), 19, 0, (24, 24)),
        Piece(range(3, 4), range(1, 2), 19, 5, (24, 24)),
    ]


def test_large_levels_are_cut_into_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PIECE_PIXELS", 40 * 48)
    level = Level((64, 48), (1, 1), (0, 8, 16, 24, 32, 40), (0, 8, 16, 24))
    bands = list(pieces(level, (24, 24), 8))
    assert [(band.rows, band.top, band.size_hw) for band in bands] == [
        (range(3), 0, (40, 48)),
        (range(3, 6), 24, (40, 48)),
    ]


@settings(deadline=None)
@given(
    st.tuples(st.integers(16, 300), st.integers(16, 300)),
    st.integers(1, 40),
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.integers(100, 40_000),
)
def test_every_window_is_in_one_piece(
    frame_hw: tuple[int, int], stride: int, window_hw: tuple[int, int], pixels: int
) -> None:
    spec = ModelSpec(
        task="window_detection", size_hw=window_hw, window=WindowGeometry(stride=stride, scale_step=1.5)
    )
    if frame_hw[0] < window_hw[0] or frame_hw[1] < window_hw[1]:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "PIECE_PIXELS", pixels)
        for level in pyramid(frame_hw, spec):
            seen = []
            for piece in pieces(level, window_hw, stride):
                tops = [level.starts_y[row] - piece.top for row in piece.rows]
                lefts = [level.starts_x[column] - piece.left for column in piece.columns]
                assert tops == [stride * i for i in range(len(tops))]
                assert lefts == [stride * i for i in range(len(lefts))]
                assert piece.size_hw == (tops[-1] + window_hw[0], lefts[-1] + window_hw[1])
                one_row = piece.size_hw[1] * window_hw[0]
                assert len(tops) == 1 or piece.size_hw[0] * piece.size_hw[1] <= max(pixels, one_row)
                seen += [(row, column) for row in piece.rows for column in piece.columns]
            assert sorted(seen) == [
                (row, column) for row in range(len(level.starts_y)) for column in range(len(level.starts_x))
            ]


def test_parts_hold_what_was_chosen() -> None:
    piece = Piece(range(30), range(20), 0, 0, (24 + 29 * 8, 24 + 19 * 8))
    chosen = np.zeros((30, 20), bool)
    assert list(piece.around(chosen, (24, 24), 8)) == []
    chosen[29, 3] = True
    assert list(piece.around(chosen, (24, 24), 8)) == [Piece(range(22, 30), range(3, 11), 176, 24, (80, 80))]
    chosen[0, 19] = True
    first, second = piece.around(chosen, (24, 24), 8)
    assert (first.rows, first.columns, first.top, first.left) == (range(8), range(12, 20), 0, 96)
    assert second.rows == range(22, 30)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_parts_stay_in_their_piece(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    piece = Piece(range(3, 3 + rows), range(5, 5 + columns), 24, 40, (16 + rows * 8, 16 + columns * 8))
    chosen = rng.uniform(size=(rows, columns)) < rng.choice([0.01, 0.2, 0.9])
    covered = np.zeros((rows, columns), bool)
    for part in piece.around(chosen, (24, 24), 8):
        assert (part.top, part.left) == (part.rows.start * 8, part.columns.start * 8)
        assert part.size_hw == (16 + len(part.rows) * 8, 16 + len(part.columns) * 8)
        assert part.top + part.size_hw[0] <= piece.top + piece.size_hw[0]
        assert part.left + part.size_hw[1] <= piece.left + piece.size_hw[1]
        covered[part.rows.start - 3 : part.rows.stop - 3, part.columns.start - 5 : part.columns.stop - 5] = (
            True
        )
    assert covered[chosen].all()
