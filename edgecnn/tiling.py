"""A detector on frames that are larger than its input: tile by tile, and once as a whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.inference import Inference
from edgecnn.results import Detections
from edgecnn.vision.boxes import Boxes
from edgecnn.vision.detection import decode_detections, each_frame
from edgecnn.vision.geometry import FrameTransform, fit
from edgecnn.vision.tiles import Tile, lay_tiles, merge_tiles

__all__ = ["TiledDetector"]


@dataclass(frozen=True)
class _Placed:
    """Boxes of a tile, back to the frame."""

    tile: Tile
    transform: FrameTransform

    def to_source(self, boxes_xyxy: npt.ArrayLike) -> Boxes:
        corner = (self.tile.left, self.tile.top)
        moved: Boxes = self.transform.to_source(boxes_xyxy) + np.tile(corner, 2).astype(np.float32)
        return moved


class TiledDetector:
    """Finds objects that are small in a large frame. Thread-safe.

    Tiles have the size of the model's input, so that a pixel of the frame is one of the input, and are run in
    batches. The whole frame is looked at as well, for what is larger than the
    overlap; what is smaller is whole in one of the tiles, and seen better there.
    """

    def __init__(self, inference: Inference, overlap: float) -> None:
        """Take a detector, and the share of a tile that its neighbour covers too.

        Raises:
            InputError: No such overlap, not a detector, or one whose boxes are not suppressed as usual.
        """
        if inference.spec.task != "detection":
            raise InputError(f"tiles: go with detection, not with {inference.spec.task}")
        if inference.spec.nms_method != "hard":
            raise InputError(f"tiles: go with nms_method 'hard', not {inference.spec.nms_method!r}")
        lay_tiles((1, 1), (1, 1), overlap)
        self._inference, self._overlap = inference, overlap

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Detections:
        """Detect.

        Args:
            frame: uint8 (H, W, 3) BGR.

        Returns:
            Boxes in pixels of the frame, best first, with ``timing_ms`` of geometry, infer, decode and nms.
        """
        spec = self._inference.spec
        size_hw = (frame.shape[0], frame.shape[1])
        tiles = [Tile(0, 0, size_hw[1], size_hw[0])]
        if size_hw[0] > spec.size_hw[0] or size_hw[1] > spec.size_hw[1]:
            tiles += lay_tiles(size_hw, spec.size_hw, self._overlap)
        found: list[tuple[Tile, Detections]] = []
        seconds = np.zeros(3)
        # as even as can be: an engine prepares itself for each number of tiles
        step = -(-len(tiles) // -(-len(tiles) // self._inference.batch(spec.batch_range[2])))
        for start in range(0, len(tiles), step):
            part, took = self._run(frame, tiles[start : start + step])
            found += part
            seconds += took
        before = time.perf_counter()
        if len(tiles) > 1:
            found[0] = (tiles[0], self._large(found[0][1]))
        merged = merge_tiles(found, spec, size_hw)
        seconds[2] += time.perf_counter() - before
        nms_ms = merged.timing_ms["nms"]
        stages_ms = [*(seconds * 1e3 - (0, 0, nms_ms)), nms_ms]
        names = ("geometry", "infer", "decode", "nms")
        return replace(merged, timing_ms=dict(zip(names, np.round(stages_ms, 3).tolist())))

    def _large(self, found: Detections) -> Detections:
        """Those that need not be whole in a tile."""
        height, width = self._inference.spec.size_hw
        sides_wh = found.boxes[:, 2:] - found.boxes[:, :2]
        larger = sides_wh > np.array([width, height]) * self._overlap
        return found[np.flatnonzero(larger.any(axis=1))]

    def _run(
        self, frame: npt.NDArray[np.uint8], tiles: Sequence[Tile]
    ) -> tuple[list[tuple[Tile, Detections]], npt.NDArray[np.float64]]:
        """What is found in some tiles, and the seconds of the three stages."""
        spec, marks = self._inference.spec, [time.perf_counter()]
        fitted = [fit(frame[tile.top : tile.bottom, tile.left : tile.right], spec) for tile in tiles]
        images = np.stack([image for image, _ in fitted])
        marks.append(time.perf_counter())
        outputs = self._inference.infer(images)
        marks.append(time.perf_counter())
        size_hw = (frame.shape[0], frame.shape[1])
        found = [
            (tile, decode_detections(each, spec, _Placed(tile, transform).to_source, size_hw))
            for tile, (_, transform), each in zip(tiles, fitted, each_frame(outputs))
        ]
        marks.append(time.perf_counter())
        return found, np.diff(marks)
