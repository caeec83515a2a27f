"""Pure functions on arrays: geometry, windows, boxes, suppression, decoding, drawing, images, video.

Names are loaded when they are first used, so box maths and `nms` work without OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecnn.vision.anchors import anchor_grid, decode_offsets, encode_offsets, row_scores
    from edgecnn.vision.boxes import clip_boxes, convert_boxes, iou_matrix, scale_boxes, size_mask
    from edgecnn.vision.color import check_frame, from_bgr, to_bgr
    from edgecnn.vision.decode import class_scores, decode_windows, top_k
    from edgecnn.vision.detection import decode_detections, each_frame, read_head
    from edgecnn.vision.drawing import draw
    from edgecnn.vision.fusion import fuse_boxes
    from edgecnn.vision.geometry import FrameTransform, fit, resize
    from edgecnn.vision.images import IMAGE_SUFFIXES, list_images, read_image
    from edgecnn.vision.smoothing import ScoreSmoother
    from edgecnn.vision.soft_suppression import soft_nms
    from edgecnn.vision.ssd import SSD_VARIANCES, decode_ssd, prior_boxes
    from edgecnn.vision.suppression import nms
    from edgecnn.vision.video import VideoReader, sample_frames
    from edgecnn.vision.voting import vote
    from edgecnn.vision.windows import Level, pyramid, window_at, window_batches, window_starts
    from edgecnn.vision.yolo import (
        decode_fastestdet,
        decode_yolo_columns,
        decode_yolo_rows,
        yolo_grid_rows,
    )

__all__ = [
    "IMAGE_SUFFIXES",
    "SSD_VARIANCES",
    "FrameTransform",
    "Level",
    "ScoreSmoother",
    "VideoReader",
    "anchor_grid",
    "check_frame",
    "class_scores",
    "clip_boxes",
    "convert_boxes",
    "decode_detections",
    "decode_fastestdet",
    "decode_offsets",
    "decode_ssd",
    "decode_windows",
    "decode_yolo_columns",
    "decode_yolo_rows",
    "draw",
    "each_frame",
    "encode_offsets",
    "fit",
    "from_bgr",
    "fuse_boxes",
    "iou_matrix",
    "list_images",
    "nms",
    "prior_boxes",
    "pyramid",
    "read_head",
    "read_image",
    "resize",
    "row_scores",
    "sample_frames",
    "scale_boxes",
    "size_mask",
    "soft_nms",
    "to_bgr",
    "top_k",
    "vote",
    "window_at",
    "window_batches",
    "window_starts",
    "yolo_grid_rows",
]

_MODULES = {
    "anchors": ("anchor_grid", "decode_offsets", "encode_offsets", "row_scores"),
    "boxes": ("clip_boxes", "convert_boxes", "iou_matrix", "scale_boxes", "size_mask"),
    "color": ("check_frame", "from_bgr", "to_bgr"),
    "decode": ("class_scores", "decode_windows", "top_k"),
    "detection": ("decode_detections", "each_frame", "read_head"),
    "drawing": ("draw",),
    "fusion": ("fuse_boxes",),
    "geometry": ("FrameTransform", "fit", "resize"),
    "images": ("IMAGE_SUFFIXES", "list_images", "read_image"),
    "smoothing": ("ScoreSmoother",),
    "soft_suppression": ("soft_nms",),
    "ssd": ("SSD_VARIANCES", "decode_ssd", "prior_boxes"),
    "suppression": ("nms",),
    "video": ("VideoReader", "sample_frames"),
    "voting": ("vote",),
    "windows": ("Level", "pyramid", "window_at", "window_batches", "window_starts"),
    "yolo": ("decode_fastestdet", "decode_yolo_columns", "decode_yolo_rows", "yolo_grid_rows"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
