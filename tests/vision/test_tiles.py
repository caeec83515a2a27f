"""Tiles of a frame by hand, and what is made of boxes that their borders cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import Detections, ModelSpec
from edgecnn.errors import InputError
from edgecnn.vision.tiles import Tile, lay_tiles, merge_tiles

SPEC = ModelSpec(task="detection", decoder="yolo_anchor_free", size_hw=(100, 100), labels=("a", "b"))
LEFT, RIGHT = Tile(0, 0, 100, 100), Tile(80, 0, 180, 100)
FRAME = (100, 180)


def found(*rows: tuple[Any, ...]) -> Detections:
    """x1, y1, x2, y2, score and perhaps a class each."""
    class_ids = np.array([row[5] if len(row) > 5 else 0 for row in rows], np.int64)
    labels = tuple(SPEC.labels[i] for i in class_ids)
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([row[4] for row in rows], np.float32), class_ids, labels)


def merged(left: Detections, right: Detections, **changes: Any) -> list[list[float]]:
    both = merge_tiles([(LEFT, left), (RIGHT, right)], SPEC.replace(**changes), FRAME)
    turned = merge_tiles([(RIGHT, right), (LEFT, left)], SPEC.replace(**changes), FRAME)
    assert both.boxes.tolist() == turned.boxes.tolist()
    return [[float(v) for v in box] for box in both.boxes]


def test_tiles_by_hand() -> None:
    assert lay_tiles((100, 180), (100, 100), 0.2) == (LEFT, RIGHT)
    assert lay_tiles((50, 60), (100, 100), 0.2) == (Tile(0, 0, 60, 50),)
    assert lay_tiles((150, 100), (100, 100), 0.0) == (Tile(0, 0, 100, 100), Tile(0, 50, 100, 150))


@pytest.mark.parametrize("overlap", [-0.1, 1, float("nan")])
def test_an_overlap_is_a_share(overlap: float) -> None:
    with pytest.raises(InputError, match="tiles: an overlap is at least 0 and below 1"):
        lay_tiles((10, 10), (5, 5), overlap)


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(1, 99), st.integers(1, 99)),
    st.floats(0, 0.9),
    st.data(),
)
def test_small_objects_are_whole_in_a_tile(
    frame_hw: tuple[int, int], tile_hw: tuple[int, int], overlap: float, data: st.DataObject
) -> None:
    tiles = lay_tiles(frame_hw, tile_hw, overlap)
    assert len({(tile.right - tile.left, tile.bottom - tile.top) for tile in tiles}) == 1
    sides = [max(1, int(min(frame, tile) * overlap)) for frame, tile in zip(frame_hw, tile_hw)]
    top, left = (data.draw(st.integers(0, frame - side)) for frame, side in zip(frame_hw, sides))
    assert any(
        tile.left <= left
        and tile.top <= top
        and left + sides[1] <= tile.right
        and top + sides[0] <= tile.bottom
        for tile in tiles
    )


def test_an_object_that_both_see_is_one() -> None:
    assert merged(found((82, 10, 98, 30, 0.9)), found((83, 10, 98, 30, 0.8))) == [[82, 10, 98, 30]]


def test_a_part_gives_way_to_the_whole_though_it_scores_more() -> None:
    assert merged(found((70, 10, 100, 30, 0.99)), found((82, 10, 120, 30, 0.7))) == [[82, 10, 120, 30]]


def test_two_parts_of_one_object_stay_where_nobody_saw_it_whole() -> None:
    assert merged(found((60, 10, 100, 30, 0.9)), found((80, 10, 140, 30, 0.8))) == [
        [60, 10, 100, 30],
        [80, 10, 140, 30],
    ]


def test_a_border_of_the_frame_cuts_nothing_off() -> None:
    assert merged(found((0, 0, 20, 20, 0.9)), found((170, 80, 180, 100, 0.8))) == [
        [0, 0, 20, 20],
        [170, 80, 180, 100],
    ]


def test_classes_have_nothing_to_do_with_each_other_unless_asked() -> None:
    left, right = found((70, 10, 100, 30, 0.9, 1)), found((82, 10, 120, 30, 0.7, 0))
    assert len(merged(left, right)) == 2
    assert merged(left, right, nms="class_agnostic") == [[82, 10, 120, 30]]


def test_best_first_and_no_more_than_asked_for() -> None:
    left, right = found((0, 0, 9, 9, 0.2), (20, 0, 29, 9, 0.9)), found((120, 0, 129, 9, 0.5))
    assert merged(left, right, max_detections=2) == [[20, 0, 29, 9], [120, 0, 129, 9]]


def test_nothing_is_found() -> None:
    assert merged(found(), found()) == []
