"""Anchors and box regression: counts known from the literature, and decoding the inverse of encoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.vision import anchor_grid, decode_offsets, encode_offsets, row_scores

SIZES = [32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]
RATIOS = [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("size", "strides", "count"),
    [(640, (8, 16, 32, 64, 128), 76_725), (800, (8, 16, 32, 64, 128), 120_087), (400, (8,), 22_500)],
)
def test_numbers_of_anchors(size: int, strides: tuple[int, ...], count: int) -> None:
    """RetinaNet's pyramid at two sizes, and a map of 50×50 cells with nine anchors each."""
    assert sum(len(anchor_grid((size, size), stride, SIZES, RATIOS)) for stride in strides) == count


def test_ratio_is_height_over_width_and_keeps_the_area() -> None:
    anchors = anchor_grid((16, 16), 16, [32], [0.5, 1, 2])
    sizes = anchors[:, 2:] - anchors[:, :2]
    assert sizes[0, 0] > sizes[0, 1], "0.5 is a landscape box"
    np.testing.assert_allclose(sizes[:, 1] / sizes[:, 0], [0.5, 1, 2], rtol=1e-6)
    np.testing.assert_allclose(sizes.prod(axis=1), 1024, rtol=1e-6)
    np.testing.assert_allclose((anchors[:, :2] + anchors[:, 2:]) / 2, 8)


def test_decoding_by_hand() -> None:
    anchors = [[0, 0, 10, 20], [0, 0, 10, 20]]
    np.testing.assert_allclose(
        decode_offsets([[0, 0, 0, 0], [0.1, -0.5, np.log(2), 0]], anchors),
        [[0, 0, 10, 20], [-4, -10, 16, 10]],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        decode_offsets([[1, 0, 5 * np.log(2), 0]], anchors[:1], (0.1, 0.2)), [[-4, 0, 16, 20]], atol=1e-6
    )


coordinate = st.floats(-500, 500)
length = st.floats(0.5, 400)


@given(st.lists(st.tuples(*[coordinate, coordinate, length, length] * 2), min_size=1, max_size=5))
def test_decode_is_the_inverse_of_encode(rows: list[tuple[float, ...]]) -> None:
    values = np.array(rows)
    boxes, anchors = values[:, :4].copy(), values[:, 4:].copy()
    boxes[:, 2:] += boxes[:, :2]
    anchors[:, 2:] += anchors[:, :2]
    variances = (0.1, 0.2)
    back = decode_offsets(encode_offsets(boxes, anchors, variances), anchors, variances)
    np.testing.assert_allclose(back, boxes, atol=1e-6, rtol=1e-6)


def test_wild_offsets_stay_finite_also_in_half_precision() -> None:
    boxes = decode_offsets([[0, 0, 1e4, -1e4]], [[0, 0, 16, 16]])
    assert np.isfinite(boxes.astype(np.float16)).all()


def test_boxes_without_area_are_refused() -> None:
    with pytest.raises(InputError, match="must have a width and a height above 0"):
        encode_offsets([[0, 0, 0, 5]], [[0, 0, 5, 5]])
    with pytest.raises(InputError, match="1 boxes or offsets for 2 anchors"):
        decode_offsets([[0, 0, 0, 0]], [[0, 0, 5, 5]] * 2)
    with pytest.raises(InputError, match="all above 0"):
        anchor_grid((10, 10), 0, [1], [1])


def test_objectness_counts() -> None:
    """A sure class in an empty place is no detection."""
    rows = np.array([[0, 0, 1, 1, 0.02, 0.99, 0.01], [0, 0, 1, 1, 0.9, 0.5, 0.4]])
    np.testing.assert_allclose(row_scores(rows), [[0.0198, 0.0002], [0.45, 0.36]])
    with pytest.raises(InputError, match=r"rows are \(n, 5 \+ classes\), not \(2, 5\)"):
        row_scores(rows[:, :5])
