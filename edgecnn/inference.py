"""A loaded model on images, up to its scores: what prediction and evaluation share."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.runtimes import Outputs, Runtime
from edgecnn.spec import ModelSpec
from edgecnn.vision.color import from_bgr
from edgecnn.vision.decode import class_scores
from edgecnn.vision.dense import pieces
from edgecnn.vision.windows import Level, level_boxes, level_image, pyramid, window_batches

__all__ = ["Inference", "ScoredWindows"]

log = logging.getLogger(__name__)

# a frame of 640×480 has this many windows of 16 px every 2 px
WINDOWS_MANY = 100_000


@dataclass(frozen=True, eq=False)
class ScoredWindows:
    """What a window model says of every place of a frame.

    Attributes:
        scores: float32 (n, K).
        boxes_xyxy: float32 (n, 4), in source pixels.
        infer_s: Seconds that the engine took.
    """

    scores: npt.NDArray[np.float32]
    boxes_xyxy: npt.NDArray[np.float32]
    infer_s: float


class Inference:
    """A loaded model on images, up to its scores: what prediction and evaluation share.

    Attributes:
        runtime: The loaded model.
        spec: Its spec.
    """

    def __init__(self, runtime: Runtime, spec: ModelSpec) -> None:
        """Take a loaded model and its spec.

        Raises:
            InputError: It scores windows at other places than those of the spec.
        """
        self.runtime = runtime
        self.spec = spec
        self._warned = False
        batch = runtime.inputs[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None
        dense = runtime.artifact.dense_stride
        if dense is not None and (spec.window is None or spec.window.stride % dense):
            raise InputError(
                f"{runtime.artifact.name}: scores windows {dense} px apart, which the spec does not ask for; "
                "load it with dense=False"
            )

    @property
    def is_dense(self) -> bool:
        """All windows of an image are scored at once."""
        return self.runtime.artifact.dense_stride is not None

    def batch(self, wanted: int) -> int:
        """Images to give at once: as many as wanted, or what the model was built for."""
        return self._fixed_batch or wanted

    def infer(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Run a batch of at most the size that `batch` tells; a smaller one is filled up and cut again.

        Args:
            images: uint8 (n, h, w, channels), as the model takes them.
        """
        name = self.runtime.inputs[0].name
        count = len(images)
        if self._fixed_batch is None or self._fixed_batch == count:
            return self.runtime.run({name: images})
        padded = np.zeros((self._fixed_batch, *images.shape[1:]), np.uint8)
        padded[:count] = images
        return {key: value[:count] for key, value in self.runtime.run({name: padded}).items()}

    def score_windows(
        self, frame: npt.NDArray[np.uint8], levels: Sequence[Level] | None = None
    ) -> ScoredWindows:
        """Score every window of a frame.

        Args:
            frame: uint8 (H, W, 3) BGR.
            levels: Where to look; None is the pyramid that the spec describes.

        Raises:
            InputError: The frame is smaller than the smallest window.
        """
        if levels is None:
            levels = pyramid((frame.shape[0], frame.shape[1]), self.spec)
        self._warn_of_many(sum(level.count for level in levels))
        return (self._all_at_once if self.is_dense else self._cut_out)(frame, levels)

    def _cut_out(self, frame: npt.NDArray[np.uint8], levels: Sequence[Level]) -> ScoredWindows:
        """Score windows one by one, in batches."""
        scores, boxes, infer_s = [], [], 0.0
        for windows, boxes_xyxy in window_batches(
            frame, levels, self.spec, self.batch(self.spec.batch_range[1])
        ):
            before = time.perf_counter()
            outputs = self.infer(windows)
            infer_s += time.perf_counter() - before
            scores.append(class_scores(outputs, self.spec))
            boxes.append(boxes_xyxy.copy())
        return ScoredWindows(np.concatenate(scores), np.concatenate(boxes), infer_s)

    def _all_at_once(self, frame: npt.NDArray[np.uint8], levels: Sequence[Level]) -> ScoredWindows:
        """Score the windows of each level together."""
        image = from_bgr(frame, self.spec.color)
        scores, infer_s = [], 0.0
        for level in levels:
            found, seconds = self._score_level(level_image(image, level, self.spec), level)
            scores.append(found)
            infer_s += seconds
        boxes = [level_boxes(level, self.spec.size_hw) for level in levels]
        return ScoredWindows(np.concatenate(scores), np.concatenate(boxes), infer_s)

    def _score_level(
        self, image: npt.NDArray[np.uint8], level: Level
    ) -> tuple[npt.NDArray[np.float32], float]:
        """Scores of the windows of a level, (n, K), row by row, and the seconds that the engine took."""
        own = self.runtime.artifact.dense_stride
        assert self.spec.window is not None
        assert own is not None
        stride, name = self.spec.window.stride, self.runtime.inputs[0].name
        every, infer_s = stride // own, 0.0
        scores: npt.NDArray[np.float32] | None = None
        for piece in pieces(level, self.spec.size_hw, stride):
            height, width = piece.size_hw
            part = image[piece.top : piece.top + height, piece.left : piece.left + width]
            before = time.perf_counter()
            (found, *_) = self.runtime.run({name: np.ascontiguousarray(part)[None]}).values()
            infer_s += time.perf_counter() - before
            if scores is None:
                scores = np.empty((len(level.starts_y), len(level.starts_x), found.shape[1]), np.float32)
            rows, columns = piece.rows, piece.columns
            scores[rows.start : rows.stop, columns.start : columns.stop] = np.moveaxis(
                found[0, :, ::every, ::every][:, : len(rows), : len(columns)], 0, -1
            )
        assert scores is not None
        flat = scores.reshape(-1, scores.shape[-1])
        return class_scores({self.spec.output or "scores": flat}, self.spec), infer_s

    def _warn_of_many(self, windows: int) -> None:
        # what is scored at once costs a fraction of it
        if windows > WINDOWS_MANY and not self._warned and not self.is_dense:
            self._warned = True
            log.warning("%d windows a frame: this is slow; a larger min_size or stride has fewer", windows)
