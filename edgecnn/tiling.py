"""A detector on frames that are larger than its input: tile by tile, and once as a whole."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.inference import Inference
from edgecnn.results import Detections
from edgecnn.runtimes import Outputs
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


class _Clock:
    """What each stage took, in milliseconds."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)
        self._mark = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap was spent on this stage."""
        before, self._mark = self._mark, time.perf_counter()
        self.ms[stage] += (self._mark - before) * 1e3


@dataclass(frozen=True)
class _UnderWay:
    """Tiles that the engine looks at."""

    tiles: Sequence[Tile]
    transforms: Sequence[FrameTransform]
    outputs: Future[Outputs]


class TiledDetector:
    """Finds objects that are small in a large frame. Thread-safe.

    Tiles have the size of the model's input, so that a pixel of the frame is one of the input, and are run in
    batches; an engine that was opened for throughput gets them one by one, several at a time. While it is
    busy the next ones are cut out and the last ones decoded. The whole frame is looked at as well, for what
    is larger than the overlap; what is smaller is whole in one of the tiles, and seen better there.
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
        spec, clock, parallel = self._inference.spec, _Clock(), self._inference.runtime.parallel
        size_hw = (frame.shape[0], frame.shape[1])
        tiles = [Tile(0, 0, size_hw[1], size_hw[0])]
        if size_hw[0] > spec.size_hw[0] or size_hw[1] > spec.size_hw[1]:
            tiles += lay_tiles(size_hw, spec.size_hw, self._overlap)
        batch = self._inference.batch(1 if parallel > 1 else spec.batch_range[2])
        # as even as can be: an engine prepares itself for each number of tiles
        step = -(-len(tiles) // -(-len(tiles) // batch))
        found: list[tuple[Tile, Detections]] = []
        under_way: deque[_UnderWay] = deque()
        for start in range(0, len(tiles), step):
            under_way.append(self._begin(frame, tiles[start : start + step], clock))
            if len(under_way) > parallel:
                found += self._end(under_way.popleft(), size_hw, clock)
        while under_way:
            found += self._end(under_way.popleft(), size_hw, clock)
        if len(tiles) > 1:
            found[0] = (tiles[0], self._large(found[0][1]))
        merged = merge_tiles(found, spec, size_hw)
        clock.lap("decode")
        clock.ms["nms"] = merged.timing_ms["nms"]
        clock.ms["decode"] -= clock.ms["nms"]
        return replace(merged, timing_ms={stage: round(ms, 3) for stage, ms in clock.ms.items()})

    def _large(self, found: Detections) -> Detections:
        """Those that need not be whole in a tile."""
        height, width = self._inference.spec.size_hw
        sides_wh = found.boxes[:, 2:] - found.boxes[:, :2]
        larger = sides_wh > np.array([width, height]) * self._overlap
        return found[np.flatnonzero(larger.any(axis=1))]

    def _begin(self, frame: npt.NDArray[np.uint8], tiles: Sequence[Tile], clock: _Clock) -> _UnderWay:
        """Cut tiles out and hand them to the engine."""
        spec = self._inference.spec
        images = np.empty((len(tiles), *spec.input_shape), np.uint8)
        transforms = [
            fit(frame[tile.top : tile.bottom, tile.left : tile.right], spec, image)[1]
            for tile, image in zip(tiles, images)
        ]
        clock.lap("geometry")
        outputs = self._inference.submit(images)
        clock.lap("infer")
        return _UnderWay(tiles, transforms, outputs)

    def _end(self, part: _UnderWay, size_hw: tuple[int, int], clock: _Clock) -> list[tuple[Tile, Detections]]:
        """Wait for the engine; what is found in the tiles."""
        outputs = part.outputs.result()
        clock.lap("infer")
        found = [
            (tile, decode_detections(each, self._inference.spec, _Placed(tile, transform).to_source, size_hw))
            for tile, transform, each in zip(part.tiles, part.transforms, each_frame(outputs))
        ]
        clock.lap("decode")
        return found
