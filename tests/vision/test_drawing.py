from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import Classification, Detections, Tensors
from edgecnn.errors import InputError
from edgecnn.vision import draw
from edgecnn.vision.drawing import class_color, label_area

BOXES = [
    [0, 0, 20, 20],
    [100, 0, 160, 40],
    [150, 110, 160, 120],
    [0, 100, 30, 120],
    [-9, -9, 900, 900],
    [5, 5, 5, 5],
]


def detections(boxes: Any = BOXES, label: Any = "person") -> Detections:
    n = len(boxes)
    return Detections(np.array(boxes), np.linspace(1, 0.2, n), np.arange(n), (label,) * n)


def classes(label: Any = "cat") -> Classification:
    return Classification(np.array([2, 0, 1]), np.array([0.87, 0.1, 0.03]), (label, "dog", "a" * 60))


@pytest.mark.parametrize("result", [detections(), classes()])
def test_the_source_frame_is_not_changed(result: Any) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    before = frame.copy()
    drawn = draw(frame, result)
    np.testing.assert_array_equal(frame, before)
    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    assert not np.shares_memory(drawn, frame)
    assert (drawn != frame).any()


@pytest.mark.parametrize(
    "result", [Detections.empty(), Tensors({}), classes().__class__(np.empty(0), np.empty(0), ())]
)
def test_nothing_to_draw_is_a_copy(result: Any) -> None:
    frame = np.full((40, 50, 3), 9, np.uint8)
    drawn = draw(frame, result)
    np.testing.assert_array_equal(drawn, frame)
    assert not np.shares_memory(drawn, frame)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 200), (200, 9), (30, 30), (1080, 1920)])
@pytest.mark.parametrize("label", ["x", "", "a very long label that does not fit", "zwei\nZeilen", "猫"])
def test_every_size_of_frame_and_label(size: Any, label: Any) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    assert draw(frame, detections(label=label)).shape == frame.shape
    assert draw(frame, classes(label)).shape == frame.shape


def test_a_view_of_a_frame_can_be_drawn() -> None:
    frame = np.zeros((240, 320, 3), np.uint8)[::2, ::-2]
    np.testing.assert_array_equal(draw(frame, detections()), draw(frame.copy(), detections()))


def test_the_box_is_drawn_on_its_pixels_in_its_colour() -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    drawn = draw(frame, Detections(np.array([[40, 60, 80, 100]]), np.array([0.87]), np.array([1]), ("",)))
    color = class_color(1)
    assert tuple(drawn[60, 60]) == color
    assert tuple(drawn[99, 60]) == color
    assert tuple(drawn[80, 40]) == color
    assert tuple(drawn[80, 79]) == color
    assert not drawn[62:98, 43:77].any()
    assert not drawn[101:].any()


def test_colours_are_those_of_the_class() -> None:
    assert class_color(3) == class_color(3)
    assert len({class_color(i) for i in range(12)}) == 12
    assert class_color(12_345) in {class_color(i) for i in range(12)}


@settings(max_examples=200)
@given(
    st.tuples(*[st.integers(-50, 300)] * 4),
    st.tuples(st.integers(1, 80), st.integers(1, 30)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_labels_stay_inside_the_frame(box: Any, text_wh: Any, frame_hw: Any) -> None:
    area = label_area(box, text_wh, frame_hw)
    if text_wh[0] > frame_hw[1] or text_wh[1] > frame_hw[0]:
        assert area is None
        return
    assert area is not None
    x1, y1, x2, y2 = area
    assert (x2 - x1, y2 - y1) == text_wh
    assert x1 >= 0
    assert y1 >= 0
    assert x2 <= frame_hw[1]
    assert y2 <= frame_hw[0]


@pytest.mark.parametrize(
    ("box", "area"),
    [
        ((50, 50, 80, 80), (50, 40, 90, 50)),  # on the box
        ((50, 4, 80, 80), (50, 4, 90, 14)),  # no room above: below the upper edge
        ((180, 50, 199, 80), (160, 40, 200, 50)),  # at the right border
        ((-20, 0, 10, 10), (0, 0, 40, 10)),
    ],
)
def test_where_labels_stand(box: Any, area: Any) -> None:
    assert label_area(box, (40, 10), (100, 200)) == area


def test_the_text_of_a_box_at_the_upper_edge_is_whole() -> None:
    frame = np.full((200, 300, 3), 255, np.uint8)
    ink = []
    for top in (0, 60):
        found = Detections(np.array([[100, top, 220, top + 90]]), np.array([0.87]), np.array([0]), ("face",))
        ink.append(int((draw(frame, found) < 40).all(axis=2).sum()))
    assert ink[0] == ink[1] > 10


def test_what_is_not_a_frame_is_refused() -> None:
    with pytest.raises(InputError, match="to_bgr"):
        draw(np.zeros((5, 5), np.uint8), detections())
