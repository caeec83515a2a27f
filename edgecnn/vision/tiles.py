"""Large frames in tiles of a detector's own size, and one answer of what was found in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.results import Detections
from edgecnn.spec import ModelSpec
from edgecnn.vision.boxes import iou_matrix
from edgecnn.vision.decode import survivors
from edgecnn.vision.windows import window_starts

__all__ = ["Tile", "lay_tiles", "merge_tiles"]

# a box that comes this near to a border inside the frame may be a part of an object
CUT_PX = 2.0
# and is one where so much of it lies in another
COVERED = 0.5


@dataclass(frozen=True)
class Tile:
    """A part of a frame, in its pixels.

    Attributes:
        left, top, right, bottom: Its borders; the last two are the first column and row beyond it.
    """

    left: int
    top: int
    right: int
    bottom: int

    def cuts(self, boxes_xyxy: npt.NDArray[np.float32], frame_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which boxes reach a border of the tile that is not one of the frame."""
        height, width = frame_hw
        x1, y1, x2, y2 = boxes_xyxy.T
        at_left = (x1 < self.left + CUT_PX) & (self.left > 0)
        at_top = (y1 < self.top + CUT_PX) & (self.top > 0)
        at_right = (x2 > self.right - CUT_PX) & (self.right < width)
        at_bottom = (y2 > self.bottom - CUT_PX) & (self.bottom < height)
        found: npt.NDArray[np.bool_] = at_left | at_top | at_right | at_bottom
        return found


def lay_tiles(frame_hw: tuple[int, int], tile_hw: tuple[int, int], overlap: float) -> tuple[Tile, ...]:
    """Cover a frame with tiles of one size, row by row; the last ones end at its borders.

    Args:
        frame_hw: Height and width of the frame.
        tile_hw: Height and width of a tile; a frame that is smaller has one that is the frame's size.
        overlap: Share of a tile that its neighbour covers too, at least 0 and below 1: an object no larger
            than that is whole in one of them.

    Raises:
        InputError: No such overlap.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"tiles: an overlap is at least 0 and below 1, not {overlap:g}")
    sizes = [min(frame, tile) for frame, tile in zip(frame_hw, tile_hw)]
    tops, lefts = (
        window_starts(frame, size, max(1, round(size * (1 - overlap))))
        for frame, size in zip(frame_hw, sizes)
    )
    return tuple(Tile(left, top, left + sizes[1], top + sizes[0]) for top in tops for left in lefts)


def merge_tiles(
    found: Sequence[tuple[Tile, Detections]], spec: ModelSpec, frame_hw: tuple[int, int]
) -> Detections:
    """One answer of several tiles of a frame.

    Whole boxes suppress one another as in a single frame. Then those that a border inside the frame may have
    cut are taken, best first, where they overlap none that is kept and do not mostly lie in one.

    Args:
        found: Of each tile what was found in it, in pixels of the frame.
        spec: nms, nms_iou and limits count.
        frame_hw: Height and width of the frame.

    Returns:
        Best first; the same whatever the order of the tiles, but for boxes with equal scores. ``timing_ms``
        has ``nms``, that of the tiles included.
    """
    start = time.perf_counter()
    boxes = np.concatenate([part.boxes for _, part in found])
    scores = np.concatenate([part.scores for _, part in found])
    class_ids = np.concatenate([part.class_ids for _, part in found])
    cut = np.concatenate([tile.cuts(part.boxes, frame_hw) for tile, part in found])
    unlimited = spec.replace(max_detections=max(len(boxes), 1))
    whole = np.flatnonzero(~cut)
    kept = [*whole[survivors(boxes[whole], scores[whole], class_ids[whole], unlimited)]]
    parts = np.flatnonzero(cut)
    for part in parts[np.argsort(-scores[parts], kind="stable")]:
        others = np.array(kept, np.int64)
        if spec.nms == "per_class":
            others = others[class_ids[others] == class_ids[part]]
        overlaps = iou_matrix(boxes[part][None], boxes[others])[0] > spec.nms_iou
        if not (overlaps | (_covered(boxes[part], boxes[others]) > COVERED)).any():
            kept.append(part)
    order = np.array(kept, np.int64)
    order = order[np.argsort(-scores[order], kind="stable")][: spec.max_detections]
    labels = tuple(spec.label(int(i)) for i in class_ids[order])
    of_tiles = sum(part.timing_ms.get("nms", 0.0) for _, part in found)
    timing_ms = {"nms": (time.perf_counter() - start) * 1e3 + of_tiles}
    return Detections(boxes[order], scores[order], class_ids[order], labels, timing_ms)


def _covered(
    box_xyxy: npt.NDArray[np.float32], others_xyxy: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Share of a box that lies in each of the others."""
    sides = np.minimum(box_xyxy[2:], others_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    shared: npt.NDArray[np.float32] = (
        np.clip(sides, 0, None).prod(axis=1) / (box_xyxy[2:] - box_xyxy[:2]).prod()
    )
    return shared
