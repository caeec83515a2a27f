"""A loaded model on images, up to its scores: what prediction and evaluation share."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.runtimes import Feeds, Outputs, Runtime
from edgecnn.spec import ModelSpec
from edgecnn.vision.color import from_bgr
from edgecnn.vision.decode import class_scores
from edgecnn.vision.dense import Piece, pieces
from edgecnn.vision.windows import (
    Level,
    cut_windows,
    level_boxes,
    level_image,
    pyramid,
    window_batches,
)

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
        count = len(images)
        outputs = self.runtime.run(self._feeds(images))
        if self._fixed_batch is None or self._fixed_batch == count:
            return outputs
        return {key: value[:count] for key, value in outputs.items()}

    def submit(self, images: npt.NDArray[np.uint8]) -> Future[Outputs]:
        """Start `infer`; outputs may have rows more than there are images, which are of no use.

        Raises:
            InputError: As `Runtime.submit`.
        """
        return self.runtime.submit(self._feeds(images))

    def _feeds(self, images: npt.NDArray[np.uint8]) -> Feeds:
        """A batch as the model takes it, filled up where its size is fixed."""
        if self._fixed_batch is not None and self._fixed_batch != len(images):
            filled = np.zeros((self._fixed_batch, *images.shape[1:]), np.uint8)
            filled[: len(images)] = images
            images = filled
        return {self.runtime.inputs[0].name: images}

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
            shown, found = level_image(image, level, self.spec), None
            for piece in pieces(level, self.spec.size_hw, self._stride):
                part, seconds = self._score_piece(shown, piece)
                if found is None:
                    found = np.empty((len(level.starts_y), len(level.starts_x), part.shape[2]), np.float32)
                found[piece.place] = part
                infer_s += seconds
            assert found is not None
            scores.append(found.reshape(level.count, -1))
        boxes = [level_boxes(level, self.spec.size_hw) for level in levels]
        return ScoredWindows(np.concatenate(scores), np.concatenate(boxes), infer_s)

    def rescore(
        self,
        image: npt.NDArray[np.uint8],
        level: Level,
        chosen: npt.NDArray[np.bool_],
        scores: npt.NDArray[np.float32],
    ) -> float:
        """Score some windows of a level.

        Args:
            image: From `level_image`.
            level: Where windows stand.
            chosen: Which of them, bool (rows, columns).
            scores: Where their scores go, float32 (rows, columns, K); others may be scored as well.

        Returns:
            Seconds that the engine took.
        """
        infer_s = 0.0
        if self.is_dense:
            for piece in pieces(level, self.spec.size_hw, self._stride):
                here = chosen[piece.place]
                if self.runtime.any_size:
                    parts = list(piece.around(here, self.spec.size_hw, self._stride))
                else:
                    parts = [piece] if here.any() else []
                for part in parts:
                    scores[part.place], seconds = self._score_piece(image, part)
                    infer_s += seconds
            return infer_s
        rows, columns = np.nonzero(chosen)
        step = self.batch(self.spec.batch_range[1])
        for start in range(0, len(rows), step):
            places = rows[start : start + step], columns[start : start + step]
            windows = cut_windows(image, level, *places, self.spec.size_hw)
            before = time.perf_counter()
            outputs = self.infer(windows)
            infer_s += time.perf_counter() - before
            scores[places] = class_scores(outputs, self.spec)
        return infer_s

    @property
    def _stride(self) -> int:
        assert self.spec.window is not None
        return self.spec.window.stride

    def _score_piece(
        self, image: npt.NDArray[np.uint8], piece: Piece
    ) -> tuple[npt.NDArray[np.float32], float]:
        """Scores of the windows of a piece, (rows, columns, K), and the seconds that the engine took."""
        own = self.runtime.artifact.dense_stride
        assert own is not None
        (height, width), every = piece.size_hw, self._stride // own
        part = image[piece.top : piece.top + height, piece.left : piece.left + width]
        before = time.perf_counter()
        outputs = self.runtime.run({self.runtime.inputs[0].name: np.ascontiguousarray(part)[None]})
        infer_s = time.perf_counter() - before
        (found, *_) = outputs.values()
        rows, columns = len(piece.rows), len(piece.columns)
        scores = np.moveaxis(found[0, :, ::every, ::every][:, :rows, :columns], 0, -1)
        flat = class_scores({self.spec.output or "scores": scores.reshape(rows * columns, -1)}, self.spec)
        return flat.reshape(rows, columns, -1), infer_s

    def _warn_of_many(self, windows: int) -> None:
        # what is scored at once costs a fraction of it
        if windows > WINDOWS_MANY and not self._warned and not self.is_dense:
            self._warned = True
            log.warning("%d windows a frame: this is slow; a larger min_size or stride has fewer", windows)
