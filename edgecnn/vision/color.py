"""What a frame is, and channel orders: frames are uint8 BGR everywhere in edgecnn."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.vision.opencv import cv2

__all__ = ["ChannelOrder", "check_frame", "from_bgr", "to_bgr"]

ChannelOrder = Literal["gray", "bgr", "rgb", "bgra", "rgba"]
_CHANNELS = {"gray": 1, "bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4}


def check_frame(frame: Any) -> None:
    """Refuse everything but uint8 (H, W, 3), saying what it is instead and what to do.

    Raises:
        InputError: Not a frame.
    """
    if frame is None:
        raise InputError("frame is None: it was not read (cv2.imread gives None for a file it cannot read)")
    if not isinstance(frame, np.ndarray):
        raise InputError(_not_an_array(frame))
    what = f"frame is {frame.dtype} {_shape(frame)}, not uint8 (height, width, 3) BGR"
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if frame.ndim not in (2, 3) or frame.size == 0:
        raise InputError(f"{what}: pass one image of at least 1×1 pixels")
    if frame.ndim == 3 and channels not in (1, 3, 4):
        first = frame.shape[0] in (1, 3, 4)
        raise InputError(f"{what}: {'use frame.transpose(1, 2, 0)' if first else 'it has no known channels'}")
    call = {
        1: "to_bgr(frame, 'gray')",
        3: "to_bgr(frame, 'bgr')",
        4: "to_bgr(frame, 'bgra'), or 'rgba' where red comes first",
    }[channels]
    if frame.dtype == np.uint16:
        raise InputError(f"{what}: 16 bits become 8 with edgecnn.vision.{call}")
    if frame.dtype != np.uint8:
        cure = "(frame * 255).round().astype('uint8')" if frame.dtype.kind == "f" else "frame.astype('uint8')"
        raise InputError(f"{what}: scale it to 0..255 and convert it, for instance {cure}")
    if channels != 3 or frame.ndim != 3:
        raise InputError(f"{what}: use edgecnn.vision.{call}")


def to_bgr(image: npt.NDArray[Any], order: ChannelOrder) -> npt.NDArray[np.uint8]:
    """Make a frame of an image; alpha is dropped and 16 bits become 8 (``x / 257``, rounded).

    Args:
        image: uint8 or uint16 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        order: Its channels: ``gray``, ``bgr``, ``rgb``, ``bgra`` or ``rgba``.

    Returns:
        uint8 (H, W, 3) BGR, a new array.

    Raises:
        InputError: The image has other channels or another dtype, or the order is unknown.
    """
    if order not in _CHANNELS:
        raise InputError(f"order {order!r} is unknown, choose {', '.join(_CHANNELS)}")
    if not isinstance(image, np.ndarray):
        raise InputError("image is None" if image is None else _not_an_array(image, "image"))
    what = f"image is {image.dtype} {_shape(image)}"
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{what}: to_bgr takes uint8 or uint16")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.size == 0 or image.shape[2] != _CHANNELS[order]:
        raise InputError(f"{what}: order {order!r} means {_CHANNELS[order]} channel(s), as the last axis")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if order == "gray":
        return np.repeat(image, 3, axis=2)
    bgr = image[:, :, :3] if order.startswith("bgr") else image[:, :, 2::-1]
    return np.array(bgr, np.uint8, order="C")


def from_bgr(frame_bgr: npt.NDArray[np.uint8], color: Literal["rgb", "bgr", "gray"]) -> npt.NDArray[np.uint8]:
    """Give a frame in a model's colours.

    Gray is luma (ITU-R BT.601): ``0.299 R + 0.587 G + 0.114 B``.

    Args:
        frame_bgr: uint8 (H, W, 3) BGR.
        color: ``rgb``, ``bgr`` or ``gray``.

    Returns:
        uint8 (H, W, 3), or (H, W, 1) for gray; contiguous. For ``bgr`` the frame itself where it is
        contiguous, not a copy.

    Raises:
        InputError: The colour is unknown.
    """
    if color == "bgr":
        return np.ascontiguousarray(frame_bgr)
    if color == "rgb":
        return np.asarray(cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB), np.uint8)
    if color == "gray":
        return np.asarray(cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2GRAY), np.uint8)[:, :, None]
    raise InputError(f"color {color!r} is unknown, choose rgb, bgr or gray")


def _shape(array: npt.NDArray[Any]) -> str:
    return f"({', '.join(map(str, array.shape))})"


def _not_an_array(value: Any, name: str = "frame") -> str:
    kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    if kind.startswith("torch."):
        return (
            f"{name} is a {kind}, not a numpy array: pass uint8 (height, width, 3) BGR, "
            "for instance edgecnn.vision.to_bgr(tensor.permute(1, 2, 0).cpu().numpy(), 'rgb')"
        )
    if kind.startswith("PIL."):
        return f"{name} is a {kind}: use edgecnn.vision.to_bgr(numpy.asarray(image.convert('RGB')), 'rgb')"
    return f"{name} is a {kind}, not a numpy array: pass uint8 (height, width, 3) BGR"
