"""Results drawn onto a copy of their frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgecnn.results import Classification, Detections, Result
from edgecnn.vision.color import check_frame
from edgecnn.vision.opencv import cv2

__all__ = ["class_color", "draw", "label_area"]

FONT = cv2.FONT_HERSHEY_SIMPLEX
Color = tuple[int, int, int]
# BGR; neighbours differ in hue so that classes 0, 1, 2 … are told apart at a glance
PALETTE: tuple[Color, ...] = (
    (96, 214, 46), (56, 128, 255), (255, 160, 48), (200, 80, 235), (40, 214, 250), (80, 80, 240),
    (210, 205, 40), (160, 100, 110), (150, 180, 255), (60, 150, 90), (220, 130, 160), (120, 220, 190),
)  # fmt: skip


class _Pen(NamedTuple):
    """Sizes that suit a frame."""

    line: int
    font_scale: float
    stroke: int
    margin: int


def class_color(class_id: int) -> Color:
    """Give the BGR colour of a class: the same in every frame and every run."""
    return PALETTE[class_id % len(PALETTE)]


def draw(frame_bgr: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
    """Draw boxes with their labels, or the best classes in a corner.

    Args:
        frame_bgr: uint8 (H, W, 3) BGR, the source frame; not changed.
        result: `Detections` or `Classification`; there is nothing to draw of `Tensors`.

    Returns:
        A new frame.

    Raises:
        InputError: Not a frame.
    """
    check_frame(frame_bgr)
    canvas = np.array(frame_bgr, order="C")
    if isinstance(result, Detections):
        _draw_detections(canvas, result)
    elif isinstance(result, Classification):
        _draw_classes(canvas, result)
    return canvas


def label_area(
    box_xyxy: tuple[int, int, int, int], text_wh: tuple[int, int], frame_hw: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Where a label stands: on the box, else below its upper edge, always inside the frame.

    Args:
        box_xyxy: The box in pixels.
        text_wh: Width and height of the label with its margins.
        frame_hw: Height and width of the frame.

    Returns:
        x1, y1, x2, y2 of the label; None where the frame is smaller than the label.
    """
    width, height = text_wh
    if width > frame_hw[1] or height > frame_hw[0]:
        return None
    left = min(max(box_xyxy[0], 0), frame_hw[1] - width)
    top = box_xyxy[1] - height
    if top < 0:
        top = box_xyxy[1]
    top = min(max(top, 0), frame_hw[0] - height)
    return left, top, left + width, top + height


def _pen(frame_hw: tuple[int, ...]) -> _Pen:
    size = (frame_hw[0] * frame_hw[1]) ** 0.5
    font_scale = min(max(size / 1100, 0.35), 2.5)
    return _Pen(
        line=max(1, round(size / 300)),
        font_scale=font_scale,
        stroke=max(1, round(font_scale * 1.6)),
        margin=max(2, round(size / 160)),
    )


def _draw_detections(canvas: npt.NDArray[np.uint8], result: Detections) -> None:
    pen = _pen(canvas.shape)
    height, width = canvas.shape[:2]
    corners = np.rint(result.boxes).astype(int)
    # the last pixel of a box is the one before its end
    corners[:, 2:] = np.maximum(corners[:, 2:] - 1, corners[:, :2])
    corners = np.clip(corners, 0, [width - 1, height - 1, width - 1, height - 1])
    boxes = [tuple(box) for box in corners.tolist()]
    # the best last: it lies on top, and all labels on all boxes
    for i in reversed(range(len(result))):
        x1, y1, x2, y2 = boxes[i]
        inset = pen.line // 2
        upper = (min(x1 + inset, x2), min(y1 + inset, y2))
        lower = (max(x2 - inset, x1), max(y2 - inset, y1))
        cv2.rectangle(canvas, upper, lower, class_color(int(result.class_ids[i])), pen.line, cv2.LINE_4)
    for i in reversed(range(len(result))):
        color = class_color(int(result.class_ids[i]))
        _draw_label(canvas, f"{result.labels[i]} {result.scores[i]:.2f}", boxes[i], color, pen)


def _draw_label(
    canvas: npt.NDArray[np.uint8], text: str, box: tuple[int, int, int, int], color: Color, pen: _Pen
) -> None:
    frame_hw = (canvas.shape[0], canvas.shape[1])
    text, (width, height), baseline = _fitting(text, frame_hw[1] - 2 * pen.margin, pen)
    area = label_area(box, (width + 2 * pen.margin, height + baseline + pen.margin), frame_hw)
    if not text or area is None:
        return
    cv2.rectangle(canvas, area[:2], (area[2] - 1, area[3] - 1), color, cv2.FILLED)
    _write(canvas, text, (area[0] + pen.margin, area[1] + pen.margin // 2 + height), _ink(color), pen)


def _draw_classes(canvas: npt.NDArray[np.uint8], result: Classification) -> None:
    pen = _pen(canvas.shape)
    frame_hw = (canvas.shape[0], canvas.shape[1])
    pad = 2 * pen.margin
    room = frame_hw[1] - 2 * pad - 3 * pen.margin
    lines = [_fitting(f"{score:.2f}  {label}", room, pen) for _, score, label in result]
    step = max((height + baseline for _, (_, height), baseline in lines), default=0) + pen.margin
    lines = [line for line in lines if line[0]][: max(0, (frame_hw[0] - 2 * pad) // max(step, 1))]
    if not lines:
        return
    right = 2 * pad + 3 * pen.margin + max(width for _, (width, _), _ in lines)
    lower = 2 * pad + step * len(lines) - pen.margin
    panel = canvas[:lower, :right]
    panel[...] = (panel * 0.35).astype(np.uint8)
    for row, ((text, (_, height), _), class_id) in enumerate(zip(lines, result.class_ids.tolist())):
        top = pad + row * step
        mark = (pad + pen.margin, top + height)
        cv2.rectangle(canvas, (pad, top), mark, class_color(class_id), cv2.FILLED)
        _write(canvas, text, (pad + 3 * pen.margin, top + height), (255, 255, 255), pen)


def _fitting(text: str, width: int, pen: _Pen) -> tuple[str, tuple[int, int], int]:
    """Cut a text until it is no wider than ``width``; with its size and baseline."""
    text = " ".join(text.split())
    while True:
        (text_width, height), baseline = cv2.getTextSize(text, FONT, pen.font_scale, pen.stroke)
        if text_width <= width or not text:
            return text, (text_width, height), baseline
        text = text[:-1]


def _write(
    canvas: npt.NDArray[np.uint8], text: str, origin: tuple[int, int], color: Color, pen: _Pen
) -> None:
    cv2.putText(canvas, text, origin, FONT, pen.font_scale, color, pen.stroke, cv2.LINE_AA)


def _ink(color: Color) -> Color:
    """Black or white, whichever is read better on a colour."""
    blue, green, red = color
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else (255, 255, 255)
