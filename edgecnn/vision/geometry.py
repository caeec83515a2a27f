"""Frames to the size a model takes, and boxes back to the frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.spec import Interpolation, ModelSpec
from edgecnn.vision.boxes import Boxes, as_boxes
from edgecnn.vision.color import from_bgr
from edgecnn.vision.opencv import cv2
from edgecnn.vision.resampling import Kernel, resample

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
    if antialias and interpolation not in ("bilinear", "bicubic"):
        raise InputError(f"antialias goes with bilinear or bicubic interpolation, not {interpolation!r}")
    if image.shape[:2] == (height, width):
        return np.array(image, np.uint8, order="C")
    if antialias:
        return resample(image, size_hw, "bicubic" if interpolation == "bicubic" else "bilinear")
    return _resized(image, size_hw, interpolation)


def fit(
    frame_bgr: npt.NDArray[np.uint8], spec: ModelSpec, out: npt.NDArray[np.uint8] | None = None
) -> tuple[npt.NDArray[np.uint8], FrameTransform]:
    """Lay a frame into a model's input by the spec's policy.

    ``stretch`` ignores the aspect. ``letterbox`` keeps it, centres the frame and fills the border
    with ``pad_value``. ``center_crop`` brings the shorter side to ``resize_short`` (None: the
    smallest that covers the crop), the longer to ``int(short * long_source / short_source)``, and cuts
    the centre, rounding as torchvision's Resize and CenterCrop do.

    Args:
        frame_bgr: uint8 (H, W, 3) BGR.
        spec: size_hw, color, resize, resize_short, interpolation, antialias and pad_value count.
        out: Write here, all of it: uint8 of ``spec.input_shape``, contiguous, apart from the frame. None
            makes a new array.

    Returns:
        uint8 (h, w, channels) contiguous in the spec's colours, ``out`` where that was given, and its
        transform.

    Raises:
        InputError: ``out`` is something else.
    """
    out = _canvas(spec, out)
    # luma first: one channel to resize instead of three, and the order Pillow's convert("L") users train with
    image = from_bgr(frame_bgr, "gray") if spec.color == "gray" else frame_bgr
    if spec.resize == "letterbox":
        return out, _letterbox(image, spec, out)
    if spec.resize == "center_crop":
        return out, _center_crop(image, spec, out)
    _lay(image, spec.size_hw, spec, out)
    source_hw = _size_hw(image)
    return out, FrameTransform(_scale_xy(source_hw, spec.size_hw), (0.0, 0.0), source_hw)


def _canvas(spec: ModelSpec, out: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    if out is None:
        return np.empty(spec.input_shape, np.uint8)
    wanted = f"uint8 of shape {spec.input_shape}, contiguous and writable"
    if not isinstance(out, np.ndarray):
        raise InputError(f"out is a {type(out).__name__}: it has to be an array, {wanted}")
    if out.dtype != np.uint8 or out.shape != spec.input_shape:
        raise InputError(f"out is {out.dtype} of shape {out.shape}: it has to be {wanted}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError(f"out is a part of another array or read-only: it has to be {wanted}")
    return out


def _letterbox(image: npt.NDArray[np.uint8], spec: ModelSpec, out: npt.NDArray[np.uint8]) -> FrameTransform:
    (height, width), source_hw = spec.size_hw, _size_hw(image)
    factor = min(height / source_hw[0], width / source_hw[1])
    inner = (
        min(height, max(1, round(source_hw[0] * factor))),
        min(width, max(1, round(source_hw[1] * factor))),
    )
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    bottom, right = top + inner[0], left + inner[1]
    for border in (out[:top], out[bottom:], out[top:bottom, :left], out[top:bottom, right:]):
        border.fill(spec.pad_value)
    _lay(image, inner, spec, out[top:bottom, left:right])
    return FrameTransform(_scale_xy(source_hw, inner), (float(left), float(top)), source_hw)


def _center_crop(image: npt.NDArray[np.uint8], spec: ModelSpec, out: npt.NDArray[np.uint8]) -> FrameTransform:
    height, width = spec.size_hw
    strip, (skip_y, skip_x) = _middle(image, spec)
    inner = _covering(_size_hw(strip), spec)
    top, left = round((inner[0] - height) / 2), round((inner[1] - width) / 2)
    _lay(strip, inner, spec, out, (top, left))
    scale_x, scale_y = _scale_xy(_size_hw(strip), inner)
    offset_xy = (-left - skip_x * scale_x, -top - skip_y * scale_y)
    return FrameTransform((scale_x, scale_y), offset_xy, _size_hw(image))


def _lay(
    image: npt.NDArray[np.uint8],
    size_hw: tuple[int, int],
    spec: ModelSpec,
    place: npt.NDArray[np.uint8],
    corner_yx: tuple[int, int] = (0, 0),
) -> None:
    """Resize an image and write what lies from a corner of it on, in the spec's colours."""
    top, left = corner_yx
    part_hw = _size_hw(place)
    cut = (slice(top, top + part_hw[0]), slice(left, left + part_hw[1]))
    if _size_hw(image) == size_hw:
        part = image[cut]
    elif spec.antialias:
        kernel: Kernel = "bicubic" if spec.interpolation == "bicubic" else "bilinear"
        part = resample(image, size_hw, kernel, corner_yx, part_hw)
    elif spec.color != "rgb" and part_hw == size_hw:
        _resized(image, size_hw, spec.interpolation, place)
        return
    else:
        part = _resized(image, size_hw, spec.interpolation)[cut]
    if spec.color == "rgb":  # of the small image, not of the frame
        cv2.cvtColor(part, cv2.COLOR_BGR2RGB, place)
    else:
        np.copyto(place, part)


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
    size_hw = _size_hw(image)
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


def _resized(
    image: npt.NDArray[np.uint8],
    size_hw: tuple[int, int],
    interpolation: Interpolation,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """OpenCV's resize."""
    flag = _FLAGS[interpolation]
    smaller = (min(size_hw[0], image.shape[0]), min(size_hw[1], image.shape[1]))
    if interpolation == "area" and smaller != size_hw:
        # one call that shrinks one axis and enlarges the other would not average at all
        if smaller != image.shape[:2]:
            image = _resized(image, smaller, "area")
        flag = cv2.INTER_LINEAR
    resized = cv2.resize(image, (size_hw[1], size_hw[0]), out, interpolation=flag)
    return np.asarray(resized, np.uint8).reshape(*size_hw, *image.shape[2:])  # OpenCV drops a single channel


def _size_hw(image: npt.NDArray[np.uint8]) -> tuple[int, int]:
    return int(image.shape[0]), int(image.shape[1])
