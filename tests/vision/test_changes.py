"""What changed: tiles by hand, and every window whose pixels differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.errors import InputError
from edgecnn.vision import Level, pyramid
from edgecnn.vision.changes import ChangedTiles, touched_windows
from edgecnn.vision.windows import level_image


def black(height: int = 40, width: int = 50) -> Any:
    return np.zeros((height, width, 3), np.uint8)


def test_the_first_frame_has_nothing_to_compare_with() -> None:
    changes = ChangedTiles(5)
    assert changes(black()) is None
    found = changes(black())
    assert found is not None
    assert found.shape == (3, 4)
    assert not found.any()


@pytest.mark.parametrize(
    ("pixel", "tile"), [((0, 0), (0, 0)), ((15, 16), (0, 1)), ((16, 15), (1, 0)), ((39, 49), (2, 3))]
)
def test_tiles_by_hand(pixel: tuple[int, int], tile: tuple[int, int]) -> None:
    changes, frame = ChangedTiles(5), black()
    changes(black())
    frame[(*pixel, 1)] = 6
    found = changes(frame)
    assert found is not None
    assert np.argwhere(found).tolist() == [list(tile)]
    again = changes(frame)
    assert again is not None
    assert not again.any(), "it was looked at"


def test_noise_is_no_change_and_what_creeps_is() -> None:
    changes, frame = ChangedTiles(5), black()
    changes(frame)
    seen = []
    for _ in range(12):
        frame += 1
        found = changes(frame)
        assert found is not None
        seen.append(bool(found.any()))
    assert seen == ([False] * 5 + [True]) * 2


def test_darker_is_a_change_too() -> None:
    changes = ChangedTiles(5)
    changes(black() + np.uint8(200))
    found = changes(black())
    assert found is not None
    assert found.all()


def test_another_size_starts_anew() -> None:
    changes = ChangedTiles(5)
    changes(black())
    assert changes(black(41)) is None
    changes.reset()
    assert changes(black(41)) is None


@pytest.mark.parametrize("threshold", [-1, 255])
def test_thresholds_are_grey_levels(threshold: int) -> None:
    with pytest.raises(InputError, match=f"a threshold is in 0..254 grey levels, not {threshold}"):
        ChangedTiles(threshold)


def test_touched_by_hand() -> None:
    level = Level((64, 64), (1, 1), (0, 24, 40), (0, 24, 40))
    changed = np.zeros((4, 4), bool)
    changed[0, 3] = True  # rows 0 to 16, columns 48 to 64
    assert touched_windows(changed, level, (24, 24)).tolist() == [
        [False, True, True],
        [False] * 3,
        [False] * 3,
    ]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_every_window_that_shows_a_change_is_touched(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    interpolation = data.draw(st.sampled_from(["nearest", "bilinear", "bicubic", "area"]))
    spec = ModelSpec(
        task="window_detection",
        size_hw=(data.draw(st.integers(8, 24)), data.draw(st.integers(8, 24))),
        color="bgr",
        interpolation=interpolation,
        antialias=interpolation in ("bilinear", "bicubic") and data.draw(st.booleans()),
        window=WindowGeometry(
            stride=data.draw(st.integers(1, 9)),
            scale_step=data.draw(st.sampled_from([1.1, 1.5, 2.3])),
            min_size=data.draw(st.integers(6, 24)),
        ),
    )
    size_hw = (data.draw(st.integers(72, 110)), data.draw(st.integers(72, 110)))
    frame = rng.integers(0, 256, (*size_hw, 3), np.uint8)
    changes = ChangedTiles(0)
    changes(frame)
    after = frame.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        after[rng.integers(size_hw[0]), rng.integers(size_hw[1])] ^= 0xFF
    changed = changes(after)
    assert changed is not None
    height, width = spec.size_hw
    for level in pyramid(size_hw, spec):
        differs = (level_image(frame, level, spec) != level_image(after, level, spec)).any(axis=2)
        touched = touched_windows(changed, level, spec.size_hw)
        for row, top in enumerate(level.starts_y):
            for column, left in enumerate(level.starts_x):
                seen = differs[top : top + height, left : left + width].any()
                assert touched[row, column] or not seen
