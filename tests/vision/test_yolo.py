"""YOLO heads: boxes by hand, and what was encoded comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.vision import (
    convert_boxes,
    decode_fastestdet,
    decode_yolo_columns,
    decode_yolo_rows,
    yolo_grid_rows,
)

SEED = st.integers(0, 2**32 - 1)


def logit(values: Any) -> npt.NDArray[np.float64]:
    share = np.asarray(values, np.float64)
    return np.asarray(np.log(share / (1 - share)))


def drawn(
    seed: int, count: int, classes: int, size: float = 320
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Boxes inside an input, objectness and class probabilities of each."""
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.uniform(0, size, (count, 2, 2)), axis=1).reshape(count, 4)
    boxes[:, 2:] += 1
    return boxes, rng.uniform(0.01, 0.99, (count, 1)), rng.uniform(0.01, 0.99, (count, classes))


def test_columns_by_hand() -> None:
    boxes, scores = decode_yolo_columns([[10, 50], [20, 60], [4, 10], [8, 20], [0.9, 0.1], [0.2, 0.3]])
    assert boxes.tolist() == [[8, 16, 12, 24], [45, 50, 55, 70]]
    np.testing.assert_allclose(scores, [[0.9, 0.2], [0.1, 0.3]])


def test_rows_by_hand() -> None:
    boxes, scores = decode_yolo_rows([[10, 20, 4, 8, 0.5, 0.9, 0.2]])
    assert boxes.tolist() == [[8, 16, 12, 24]]
    np.testing.assert_allclose(scores, [[0.45, 0.1]])


@given(SEED, st.integers(0, 20), st.integers(1, 5))
def test_encoded_boxes_come_back(seed: int, count: int, classes: int) -> None:
    boxes, objectness, probabilities = drawn(seed, count, classes)
    centred = convert_boxes(boxes, "xyxy", "cxcywh")
    found, scores = decode_yolo_columns(np.concatenate([centred, probabilities], axis=1).T)
    np.testing.assert_allclose(found, boxes)
    np.testing.assert_array_equal(scores, probabilities)
    found, scores = decode_yolo_rows(np.concatenate([centred, objectness, probabilities], axis=1))
    np.testing.assert_allclose(found, boxes)
    np.testing.assert_array_equal(scores, objectness * probabilities)


def test_the_type_of_the_model_stays() -> None:
    rows = np.zeros((2, 7), np.float32)
    assert all(part.dtype == np.float32 for part in decode_yolo_rows(rows))
    assert all(part.dtype == np.float32 for part in decode_yolo_columns(rows.T))


def test_a_raw_map_by_hand() -> None:
    """Nought is the middle of the cell and the anchor itself."""
    grid = np.zeros((2 * 6, 2, 3))
    grid[0, 1, 2] = logit(0.75)
    grid[6 + 2, 0, 0] = np.log(2)
    rows = yolo_grid_rows(grid, [(10, 20), (30, 40)], 32)
    assert rows.shape == (12, 6)
    np.testing.assert_allclose(rows[0], [16, 16, 10, 20, 0.5, 0.5])
    np.testing.assert_allclose(rows[5], [(2 + 0.75) * 32, 48, 10, 20, 0.5, 0.5])
    np.testing.assert_allclose(rows[6], [16, 16, 60, 40, 0.5, 0.5])


@given(SEED)
def test_a_raw_map_gives_back_what_was_put_in(seed: int) -> None:
    rng, stride, anchors = np.random.default_rng(seed), 16, np.array([[10.0, 13], [62, 45]])
    count, rows, columns, classes = 2, 3, 4, 2
    inner = rng.uniform(0.01, 0.99, (count, rows, columns, 2))
    sizes = rng.uniform(2, 300, (count, rows, columns, 2))
    others = rng.uniform(0.01, 0.99, (count, rows, columns, 1 + classes))
    ratio = np.log(sizes / anchors[:, None, None])
    raw = np.concatenate([logit(inner), ratio, logit(others)], axis=-1)
    grid = np.moveaxis(raw, -1, 1).reshape(-1, rows, columns)
    cell = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    expected = np.concatenate([(inner + cell) * stride, sizes, others], axis=-1).reshape(-1, 5 + classes)
    np.testing.assert_allclose(yolo_grid_rows(grid, anchors.tolist(), stride), expected)


def test_the_published_map_of_125_channels() -> None:
    """Five anchors and twenty classes on 104×104 cells of 4 px: a row a box."""
    rows = yolo_grid_rows(np.zeros((125, 104, 104), np.float32), [(8, 8)] * 5, 4)
    assert rows.shape == (5 * 104 * 104, 25)
    assert rows[-1, :2].tolist() == [414, 414]


def test_wild_values_stay_finite_also_in_half_precision() -> None:
    grid = np.full((6, 1, 1), 1e4, np.float32)
    for wild in (grid, -grid):
        rows = yolo_grid_rows(wild, [(16, 16)], 32)
        assert np.isfinite(rows.astype(np.float16)).all()


def test_fastestdet_by_hand() -> None:
    grid = np.zeros((7, 2, 4))
    grid[:, 1, 2] = [0.25, np.arctanh(0.5), np.arctanh(-0.5), logit(0.5), logit(0.25), 0.9, 0.1]
    boxes, scores = decode_fastestdet(grid, (100, 200))
    assert boxes.shape == (8, 4)
    # centre (2.5 / 4 * 200, 0.5 / 2 * 100), size (100, 25)
    np.testing.assert_allclose(boxes[6], [75, 12.5, 175, 37.5])
    np.testing.assert_allclose(scores[6], [0.25**0.6 * 0.9**0.4, 0.25**0.6 * 0.1**0.4])
    assert scores[0].tolist() == [0, 0]


@given(SEED)
def test_fastestdet_gives_back_what_was_put_in(seed: int) -> None:
    rng, size_wh = np.random.default_rng(seed), np.array([352, 288])
    offsets = rng.uniform(-0.9, 0.9, (5, 6, 2))
    shares = rng.uniform(0.02, 0.98, (5, 6, 2))
    probabilities = rng.uniform(0, 1, (5, 6, 4))
    raw = [probabilities[..., :1], np.arctanh(offsets), logit(shares), probabilities[..., 1:]]
    boxes, scores = decode_fastestdet(np.moveaxis(np.concatenate(raw, axis=-1), -1, 0), (288, 352))
    cell = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1)
    centred = np.concatenate([(cell + offsets) / (6, 5) * size_wh, shares * size_wh], axis=-1)
    np.testing.assert_allclose(convert_boxes(boxes, "xyxy", "cxcywh"), centred.reshape(-1, 4))
    expected = probabilities[..., :1] ** 0.6 * probabilities[..., 1:] ** 0.4
    np.testing.assert_allclose(scores, expected.reshape(-1, 3))


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"columns are \(4 \+ classes, n\), not \(4, 9\)"):
        decode_yolo_columns(np.zeros((4, 9)))
    with pytest.raises(InputError, match=r"rows are \(n, 5 \+ classes\), not \(9, 5\)"):
        decode_yolo_rows(np.zeros((9, 5)))
    with pytest.raises(InputError, match=r"grid is \(3 anchors \* \(5 \+ classes\), rows, columns\), not"):
        yolo_grid_rows(np.zeros((125, 2, 2)), [(1, 1)] * 3, 8)
    with pytest.raises(InputError, match=r"grid is \(5 \+ classes, rows, columns\), not \(5, 2, 2\)"):
        decode_fastestdet(np.zeros((5, 2, 2)), (8, 8))
