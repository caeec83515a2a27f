"""Frames to the size a model takes, and boxes back to the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.spec import Interpolation, ModelSpec
from edgecnn.vision.boxes import Boxes, as_boxes
from edgecnn.vision.color import from_bgr
from edgecnn.vision.opencv import cv2
from edgecnn.vision.resampling import resample

__all__ = ["FrameTransform", "fit", "resize"]

# where a centre crop would resize a frame to more pixels, as with 1×10000 px for a crop of 224, only
# the middle of the frame is resized, to this many lengths of the crop
PIXELS_MAX = 2**25
STRIP = 16
_FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


@dataclass(frozen=True)
class FrameTransform:
    """How a frame was laid into a model's input: ``input = source * scale + offset`` on each axis.

    Attributes:
        scale_xy: Input pixels per source pixel, of the sizes as they were rounded.
        offset_xy: Where the frame's corner lies in the input, in input pixels; negative after a crop.
        source_hw: Height and width of the frame.
    """

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]
    source_hw: tuple[int, int]

    def to_source(self, boxes_xyxy: npt.ArrayLike) -> Boxes:
        """Boxes (n, 4) in input pixels to source pixels; nothing is rounded or clipped."""
        boxes = as_boxes(boxes_xyxy, "boxes_xyxy")
        source = (boxes.astype(np.float64) - np.tile(self.offset_xy, 2)) / np.tile(self.scale_xy, 2)
        return np.asarray(source, boxes.dtype)

    def to_input(self, boxes_xyxy: npt.ArrayLike) -> Boxes:
        """Boxes (n, 4) in source pixels to input pixels; nothing is rounded or clipped."""
        boxes = as_boxes(boxes_xyxy, "boxes_xyxy")
        laid = boxes.astype(np.float64) * np.tile(self.scale_xy, 2) + np.tile(self.offset_xy, 2)
        return np.asarray(laid, boxes.dtype)


def resize(
    image: npt.NDArray[np.uint8],
    size_hw: tuple[int, int],
    interpolation: Interpolation,
    antialias: bool = False,
) -> npt.NDArray[np.uint8]:
    """Resize an image.

    Args:
        image: uint8 (H, W, C) or (H, W), any channel order.
        size_hw: Height and width wanted, in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``area``: averages over the covered
            area along an axis that shrinks and bilinear along one that grows.
        antialias: Widen the bilinear or bicubic kernel when shrinking, as Pillow does.

    Returns:
        uint8 of as many axes and channels, contiguous, a new array.

    Raises:
        InputError: A size below 1, an unknown interpolation, or antialias with one that has none.
    """
    height, width = size_hw
    if height < 1 or width < 1:
        raise InputError(f"cannot resize to {height}×{width}: both sizes must be at least 1")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"cannot resize {image.dtype} of shape {image.shape}: images are uint8 (H, W, C)")
    if interpolation not in _FLAGS:
        raise InputError(f"interpolation {interpolation!r} is unknown, choose {', '.join(_FLAGS)}")
    kernel = interpolation if interpolation == "bilinear" or interpolation == "bicubic" else None
    if antialias and kernel is None:
        raise InputError(f"antialias goes with bilinear or bicubic interpolation, not {interpolation!r}")
    if image.shape[:2] == (height, width):
        return np.array(image, np.uint8, order="C")
    if antialias and kernel is not None:
        return resample(image, (height, width), kernel)
    if interpolation == "area":
        # one call that shrinks one axis and enlarges the other would not average at all
        image = _resized(image, (min(height, image.shape[0]), min(width, image.shape[1])), cv2.INTER_AREA)
        return _resized(image, (height, width), cv2.INTER_LINEAR)
    return _resized(image, (height, width), _FLAGS[interpolation])


def fit(frame_bgr: npt.NDArray[np.uint8], spec: ModelSpec) -> tuple[npt.NDArray[np.uint8], FrameTransform]:
    """Lay a frame into a model's input by the spec's policy.

    ``stretch`` ignores the aspect. ``letterbox`` keeps it, centres the frame and fills the border
    with ``pad_value``. ``center_crop`` brings the shorter side to ``resize_short`` (None: the
    smallest that covers the crop), the longer to ``int(short * long_source / short_source)``, and cuts
    the centre, rounding as torchvision's Resize and CenterCrop do.

    Args:
        frame_bgr: uint8 (H, W, 3) BGR.
        spec: size_hw, color, resize, resize_short, interpolation, antialias and pad_value count.

    Returns:
        uint8 (h, w, channels) contiguous in the spec's colours, a new array, and its transform.
    """
    source_hw = (int(frame_bgr.shape[0]), int(frame_bgr.shape[1]))
    # luma first: one channel to resize instead of three, and the order Pillow's convert("L") users train with
    image = from_bgr(frame_bgr, "gray") if spec.color == "gray" else frame_bgr
    if spec.resize == "letterbox":
        image, transform = _letterbox(image, source_hw, spec)
    elif spec.resize == "center_crop":
        image, transform = _center_crop(image, source_hw, spec)
    else:
        image = resize(image, spec.size_hw, spec.interpolation, spec.antialias)
        transform = FrameTransform(_scale_xy(source_hw, spec.size_hw), (0.0, 0.0), source_hw)
    if spec.color == "rgb":
        image = from_bgr(image, "rgb")
    return np.ascontiguousarray(image), transform


def _letterbox(
    image: npt.NDArray[np.uint8], source_hw: tuple[int, int], spec: ModelSpec
) -> tuple[npt.NDArray[np.uint8], FrameTransform]:
    height, width = spec.size_hw
    factor = min(height / source_hw[0], width / source_hw[1])
    inner = (
        min(height, max(1, round(source_hw[0] * factor))),
        min(width, max(1, round(source_hw[1] * factor))),
    )
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas = np.full((height, width, image.shape[2]), spec.pad_value, np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = resize(
        image, inner, spec.interpolation, spec.antialias
    )
    return canvas, FrameTransform(_scale_xy(source_hw, inner), (float(left), float(top)), source_hw)


def _center_crop(
    image: npt.NDArray[np.uint8], source_hw: tuple[int, int], spec: ModelSpec
) -> tuple[npt.NDArray[np.uint8], FrameTransform]:
    height, width = spec.size_hw
    strip, (skip_y, skip_x) = _middle(image, spec)
    strip_hw = (int(strip.shape[0]), int(strip.shape[1]))
    inner = _covering(strip_hw, spec)
    top, left = round((inner[0] - height) / 2), round((inner[1] - width) / 2)
    resized = resize(strip, inner, spec.interpolation, spec.antialias)
    scale_x, scale_y = _scale_xy(strip_hw, inner)
    offset_xy = (-left - skip_x * scale_x, -top - skip_y * scale_y)
    crop = resized[top : top + height, left : left + width]
    return crop, FrameTransform((scale_x, scale_y), offset_xy, source_hw)


def _covering(source_hw: tuple[int, int], spec: ModelSpec) -> tuple[int, int]:
    """Size of the whole frame at the scale of the crop."""
    height, width = spec.size_hw
    portrait = source_hw[0] >= source_hw[1]
    short, long = sorted(source_hw)
    crop_short, crop_long = (width, height) if portrait else (height, width)
    new_short = spec.resize_short or max(crop_short, -(-crop_long * short // long))
    new_long = new_short * long // short
    return (new_long, new_short) if portrait else (new_short, new_long)


def _middle(image: npt.NDArray[np.uint8], spec: ModelSpec) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Cut the middle out of a very thin frame, with what is left out of it in front (y, x)."""
    size_hw = (int(image.shape[0]), int(image.shape[1]))
    inner = _covering(size_hw, spec)
    axis = int(np.argmax(size_hw))
    if inner[0] * inner[1] <= PIXELS_MAX or inner[axis] <= STRIP * max(spec.size_hw):
        return image, (0, 0)
    keep = max(1, STRIP * max(spec.size_hw) * size_hw[axis] // inner[axis])
    skip = (size_hw[axis] - keep) // 2
    if axis == 0:
        return image[skip : skip + keep], (skip, 0)
    return image[:, skip : skip + keep], (0, skip)


def _scale_xy(source_hw: tuple[int, int], target_hw: tuple[int, int]) -> tuple[float, float]:
    return target_hw[1] / source_hw[1], target_hw[0] / source_hw[0]


def _resized(image: npt.NDArray[Any], size_hw: tuple[int, int], flag: int) -> npt.NDArray[np.uint8]:
    if image.shape[:2] == size_hw:
        return image
    resized = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=flag)
    return np.asarray(resized, np.uint8).reshape(*size_hw, *image.shape[2:])  # OpenCV drops a single channel
