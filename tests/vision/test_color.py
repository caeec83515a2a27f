from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn.errors import InputError
from edgecnn.vision import check_frame, from_bgr, to_bgr

PIXEL = np.array([[[10, 20, 30]]], np.uint8)  # blue 10, green 20, red 30


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (480, 640, 3)])
def test_frames_pass(shape: Any) -> None:
    check_frame(np.zeros(shape, np.uint8))


def test_a_view_of_a_frame_is_a_frame() -> None:
    check_frame(np.zeros((8, 8, 3), np.uint8)[::2, ::-1])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "frame is None: it was not read"),
        (np.zeros((4, 5), np.uint8), r"uint8 \(4, 5\).*edgecnn.vision.to_bgr\(frame, 'gray'\)"),
        (np.zeros((4, 5, 1), np.uint8), r"uint8 \(4, 5, 1\).*to_bgr\(frame, 'gray'\)"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 \(4, 5, 4\).*to_bgr\(frame, 'bgra'\), or 'rgba'"),
        (
            np.zeros((4, 5, 3), np.uint16),
            r"uint16 \(4, 5, 3\).*16 bits become 8 with .*to_bgr\(frame, 'bgr'\)",
        ),
        (np.zeros((4, 5), np.uint16), r"16 bits become 8 with .*to_bgr\(frame, 'gray'\)"),
        (np.zeros((4, 5, 3), np.float32), r"float32 \(4, 5, 3\).*scale it to 0..255"),
        (np.zeros((4, 5, 3), bool), r"bool \(4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), "at least 1×1"),
        (np.zeros((2, 4, 5, 3), np.uint8), "one image"),
        (np.zeros((3, 40, 50), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((7, 40, 50), np.uint8), "no known channels"),
        (np.uint8(3), "frame is a numpy.uint8"),
        ([[1, 2]], "frame is a list, not a numpy array"),
    ],
)
def test_what_is_not_a_frame_is_refused_with_the_cure(frame: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message) as raised:
        check_frame(frame)
    assert "\n" not in str(raised.value)


def test_tensors_and_pillow_images_are_told_apart() -> None:
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(InputError, match=r"frame is a torch.Tensor.*numpy\(\), 'rgb'"):
        check_frame(torch.zeros(3, 4, 5))
    with pytest.raises(InputError, match=r"frame is a PIL.Image.Image.*convert\('RGB'\)"):
        check_frame(image.new("RGB", (4, 5)))


@pytest.mark.parametrize(
    ("pixel", "order", "bgr"),
    [
        ([7], "gray", [7, 7, 7]),
        ([1, 2, 3], "bgr", [1, 2, 3]),
        ([1, 2, 3], "rgb", [3, 2, 1]),
        ([1, 2, 3, 9], "bgra", [1, 2, 3]),
        ([1, 2, 3, 9], "rgba", [3, 2, 1]),
    ],
)
def test_orders_become_bgr(pixel: Any, order: Any, bgr: Any) -> None:
    for scale, dtype in ((1, np.uint8), (257, np.uint16)):
        image = np.array([[pixel] * 3] * 2, dtype) * dtype(scale)
        frame = to_bgr(image, order)
        check_frame(frame)
        assert frame.flags.c_contiguous
        assert not np.shares_memory(frame, image)
        assert frame.tolist() == [[bgr] * 3] * 2


def test_gray_without_a_channel_axis() -> None:
    assert to_bgr(np.array([[5, 6]], np.uint8), "gray").tolist() == [[[5] * 3, [6] * 3]]


def test_sixteen_bits_are_rounded_to_eight() -> None:
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.floor(deep / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(to_bgr(deep, "gray")[:, :, 0], expected)


@pytest.mark.parametrize(
    ("image", "order", "message"),
    [
        (np.zeros((2, 2, 3), np.uint8), "rgba", r"uint8 \(2, 2, 3\).*'rgba' means 4 channel"),
        (np.zeros((2, 2, 4), np.uint8), "gray", "'gray' means 1 channel"),
        (np.zeros((2, 2, 3), np.uint8), "hsv", "order 'hsv' is unknown, choose gray, bgr"),
        (np.zeros((2, 2, 3), np.float32), "rgb", "takes uint8 or uint16"),
        (None, "rgb", "image is None"),
    ],
)
def test_images_of_another_order_are_refused(image: Any, order: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        to_bgr(image, order)


def test_models_colours() -> None:
    assert from_bgr(PIXEL, "bgr").tolist() == [[[10, 20, 30]]]
    assert from_bgr(PIXEL, "rgb").tolist() == [[[30, 20, 10]]]
    gray = from_bgr(PIXEL, "gray")
    assert gray.shape == (1, 1, 1)
    assert gray[0, 0, 0] == round(0.114 * 10 + 0.587 * 20 + 0.299 * 30)
    with pytest.raises(InputError, match="color 'lab' is unknown"):
        from_bgr(PIXEL, "lab")  # type: ignore[arg-type]


def test_gray_is_luma_not_the_mean_of_the_channels() -> None:
    blue, green, red = (
        from_bgr(np.eye(3, dtype=np.uint8)[None, i : i + 1] * 255, "gray")[0, 0, 0] for i in range(3)
    )
    assert (blue, green, red) == (29, 150, 76)
