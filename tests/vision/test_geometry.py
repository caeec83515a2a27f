from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import ModelSpec
from edgecnn.errors import InputError
from edgecnn.vision import FrameTransform, fit, resize
from edgecnn.vision.opencv import cv2
from tests.paths import data

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec(**{"task": "classification", "size_hw": (32, 48), "color": "bgr", **fields})


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_hw", [(1, 1), (7, 90), (60, 3), (31, 40), (100, 100)])
def test_resize_keeps_channels_and_gives_a_new_array(interpolation: Any, channels: Any, size_hw: Any) -> None:
    image = noise(31, 40, channels)
    resized = resize(image, size_hw, interpolation)
    assert resized.shape == (*size_hw, channels)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert not np.shares_memory(resized, image)
    assert resize(image[:, :, 0], size_hw, interpolation).shape == size_hw


def test_area_averages_when_shrinking() -> None:
    image = np.array([[0, 100, 10, 30], [0, 100, 20, 40]], np.uint8)
    assert resize(image, (1, 2), "area").tolist() == [[50, 25]]


def test_area_is_bilinear_when_enlarging() -> None:
    image = noise(10, 12)
    np.testing.assert_array_equal(resize(image, (25, 30), "area"), resize(image, (25, 30), "bilinear"))


def test_area_averages_the_axis_that_shrinks_though_the_other_grows() -> None:
    image = np.tile(np.array([0, 200], np.uint8), (3, 50))
    assert set(resize(image, (9, 10), "area").ravel().tolist()) == {100}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((97, 61), (13, 29)),
        ((20, 30), (45, 31)),
        ((8, 64), (64, 8)),
        ((1, 1), (5, 7)),
        ((480, 640), (224, 224)),
    ],
)
def test_antialias_as_pillow(interpolation: Any, source: Any, target: Any) -> None:
    image = noise(*source)
    ours = resize(image, target, interpolation, antialias=True)
    assert_as_pillow(image, ours, interpolation)
    assert resize(image[:, :, :1], target, interpolation, antialias=True).shape == (*target, 1)
    gray = resize(image[:, :, 0], target, interpolation, antialias=True)
    assert np.abs(gray.astype(int) - ours[:, :, 0]).max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_antialias_as_pillow_on_photos(interpolation: Any) -> None:
    for path in sorted(data("coco128/images").iterdir())[:4]:
        image = cv2.imread(str(path))
        ours = resize(image, (224, 224), interpolation, antialias=True)
        assert_as_pillow(image, ours, interpolation)


def assert_as_pillow(image: Any, ours: Any, interpolation: Any) -> None:
    pillow = pytest.importorskip("PIL.Image")
    kernel = getattr(pillow.Resampling, interpolation.upper())
    expected = np.asarray(pillow.fromarray(image).resize((ours.shape[1], ours.shape[0]), kernel))
    assert np.abs(ours.astype(int) - expected).max() <= 2


def test_antialias_takes_out_what_plain_bilinear_aliases() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 64))
    assert resize(stripes, (8, 8), "bilinear", antialias=True).std() < 5
    pattern = np.zeros((64, 128), np.uint8)
    pattern[:, 7::16] = 255  # bilinear of 128 to 8 looks at columns 7 and 8 of every 16 only
    assert resize(pattern, (8, 8), "bilinear").mean() == pytest.approx(127.5, abs=1)
    assert resize(pattern, (8, 8), "bilinear", antialias=True).mean() == pytest.approx(255 / 16, abs=1)


def test_antialias_is_fast_enough_for_video() -> None:
    frame = noise(1080, 1920)
    resize(frame, (224, 224), "bilinear", antialias=True)
    start = time.perf_counter()
    resize(frame, (224, 224), "bilinear", antialias=True)
    assert time.perf_counter() - start < 0.5  # a few ms on an idle core


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 5), "bilinear"), "cannot resize to 0×5"),
        (((5, 5), "lanczos"), "interpolation 'lanczos' is unknown, choose nearest, bilinear, bicubic, area"),
        (((4, 4), "area", True), "antialias goes with bilinear or bicubic"),
    ],
)
def test_resize_refuses(arguments: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        resize(noise(4, 4), *arguments)


def test_resize_refuses_other_dtypes() -> None:
    with pytest.raises(InputError, match="float32"):
        resize(np.zeros((4, 4, 3), np.float32), (2, 2), "bilinear")


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("source", [(1, 1), (1, 300), (300, 1), (33, 47), (32, 48), (200, 100)])
def test_fit_gives_the_models_shape(policy: Any, color: Any, source: Any) -> None:
    given_spec = spec(resize=policy, color=color)
    frame = noise(*source)
    before = frame.copy()
    image, transform = fit(frame, given_spec)
    assert image.shape == given_spec.input_shape
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert not np.shares_memory(image, frame)
    assert transform.source_hw == source
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize(
    ("interpolation", "antialias"),
    [("nearest", False), ("bilinear", False), ("area", False), ("bilinear", True), ("bicubic", True)],
)
@pytest.mark.parametrize("source", [(1, 1), (1, 300), (33, 47), (32, 48), (200, 100), (20, 90)])
def test_fit_fills_the_canvas_it_is_given(
    policy: Any, color: Any, interpolation: Any, antialias: Any, source: Any
) -> None:
    given_spec = spec(resize=policy, color=color, interpolation=interpolation, antialias=antialias)
    frame = noise(*source)
    expected, expected_transform = fit(frame, given_spec)
    batch = np.stack([noise(*given_spec.input_shape, seed=seed) for seed in range(3)])
    before = batch.copy()
    image, transform = fit(frame, given_spec, out=batch[1])
    assert np.shares_memory(image, batch)
    assert transform == expected_transform
    np.testing.assert_array_equal(batch[1], expected)
    np.testing.assert_array_equal(batch[::2], before[::2])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((32, 48, 3), np.float32), r"out is float32 of shape \(32, 48, 3\): it has to be uint8"),
        (
            np.zeros((48, 32, 3), np.uint8),
            r"of shape \(48, 32, 3\): it has to be uint8 of shape \(32, 48, 3\)",
        ),
        (
            np.zeros((32, 96, 3), np.uint8)[:, ::2],
            "out is a part of another array or read-only: it has to be",
        ),
        (np.broadcast_to(np.uint8(0), (32, 48, 3)), "out is a part of another array or read-only"),
        ([0], "out is a list: it has to be an array"),
    ],
)
def test_fit_refuses_other_canvases(out: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit(noise(5, 5), spec(), out=out)
    assert "\n" not in str(caught.value)


def test_fit_puts_the_models_colours() -> None:
    frame = np.full((4, 4, 3), (10, 20, 30), np.uint8)
    assert fit(frame, spec(color="bgr"))[0][0, 0].tolist() == [10, 20, 30]
    assert fit(frame, spec(color="rgb"))[0][0, 0].tolist() == [30, 20, 10]
    assert fit(frame, spec(color="gray"))[0][0, 0].tolist() == [22]


def test_letterbox_by_hand() -> None:
    frame = np.full((10, 20, 3), 200, np.uint8)
    image, transform = fit(frame, spec(size_hw=(40, 40), resize="letterbox", pad_value=7))
    assert set(image[:10].ravel()) == {7}
    assert set(image[10:30].ravel()) == {200}
    assert set(image[30:].ravel()) == {7}
    assert transform == FrameTransform((2.0, 2.0), (0.0, 10.0), (10, 20))
    assert transform.to_input([[0, 0, 20, 10]]).tolist() == [[0, 10, 40, 30]]
    assert transform.to_source([[0, 10, 40, 30]]).tolist() == [[0, 0, 20, 10]]


def test_letterbox_uses_the_size_as_rounded() -> None:
    # 3 rows at 32/100 are 0.96 of a pixel: one row is laid, so the real scale is 1/3
    _, transform = fit(noise(3, 100), spec(size_hw=(32, 32), resize="letterbox"))
    assert transform.scale_xy == (0.32, 1 / 3)
    assert transform.offset_xy == (0.0, 15.0)


def test_stretch_scales_the_axes_apart() -> None:
    _, transform = fit(noise(64, 24), spec(size_hw=(32, 48)))
    assert transform == FrameTransform((2.0, 0.5), (0.0, 0.0), (64, 24))


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, st.sampled_from(["stretch", "letterbox", "center_crop"]), st.integers(0, 10**6))
def test_boxes_go_to_the_input_and_back(source: Any, target: Any, policy: Any, seed: Any) -> None:
    _, transform = fit(np.zeros((*source, 3), np.uint8), spec(size_hw=target, resize=policy))
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-10, 410, (8, 4))
    np.testing.assert_allclose(transform.to_source(transform.to_input(boxes)), boxes, atol=1e-6)
    np.testing.assert_allclose(transform.to_input(transform.to_source(boxes)), boxes, atol=1e-6)
    single = boxes.astype(np.float32)
    back = transform.to_source(transform.to_input(single))
    assert back.dtype == np.float32
    # float32 in input pixels, seen through the scale
    resolution = max(1.0, max(map(abs, transform.offset_xy)) / min(transform.scale_xy)) * 2e-7
    np.testing.assert_allclose(back, single, atol=max(1e-3, resolution))


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("source", [(120, 90), (91, 167), (48, 200)])
def test_a_mark_in_the_frame_is_found_where_the_transform_says(policy: Any, source: Any) -> None:
    frame = np.zeros((*source, 3), np.uint8)
    cy, cx = source[0] // 2, source[1] // 2
    frame[cy - 6 : cy + 6, cx - 9 : cx + 9] = 255
    image, transform = fit(frame, spec(size_hw=(64, 64), resize=policy, interpolation="area", pad_value=0))
    rows, columns = np.nonzero(image[:, :, 0] > 127)
    seen = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    expected = transform.to_input([[cx - 9, cy - 6, cx + 9, cy + 6]])
    np.testing.assert_allclose(seen, expected, atol=0.75)


@pytest.mark.parametrize("resize_short", [None, 40, 256])
@pytest.mark.parametrize(
    "source", [(100, 100), (97, 61), (61, 97), (33, 500), (500, 33), (227, 227), (5, 9), (24, 24)]
)
@pytest.mark.parametrize("crop", [(24, 24), (25, 25), (24, 37), (37, 24)])
def test_center_crop_as_torchvision(resize_short: Any, source: Any, crop: Any) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    pillow = pytest.importorskip("PIL.Image")
    given_spec = spec(
        size_hw=crop, color="rgb", resize="center_crop", resize_short=resize_short, antialias=True
    )
    frame = noise(*source)
    image, _ = fit(frame, given_spec)
    if resize_short is None:
        resize_short = next(s for s in range(1, 600) if covers(source, s, crop))
    reference = transforms.Compose(
        [
            transforms.Resize(resize_short, transforms.InterpolationMode.BILINEAR, antialias=True),
            transforms.CenterCrop(crop),
        ]
    )
    expected = np.asarray(reference(pillow.fromarray(frame[:, :, ::-1].copy())))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 2


def covers(source: Any, short: Any, crop: Any) -> Any:
    scaled = (short, int(short * max(source) / min(source)))
    height, width = scaled if source[0] < source[1] else scaled[::-1]
    return height >= crop[0] and width >= crop[1]


@pytest.mark.parametrize("source", [(1, 20_000), (20_000, 1), (2, 9_000)])
def test_extremely_thin_frames_are_cropped_without_an_enormous_image(source: Any) -> None:
    frame = np.zeros((*source, 3), np.uint8)
    frame[: source[0] // 2 + 1, : source[1] // 2 + 1] = 255
    start = time.perf_counter()
    image, transform = fit(frame, spec(size_hw=(224, 224), resize="center_crop"))
    assert time.perf_counter() - start < 5
    assert image.shape == (224, 224, 3)
    centre = transform.to_source([[112, 112, 112, 112]])[0]
    assert abs(centre[0] - source[1] / 2) <= 1
    assert abs(centre[1] - source[0] / 2) <= 1
