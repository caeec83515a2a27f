"""Scenes that stand still: windows whose pixels did not change keep their scores."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.inference import Inference, ScoredWindows
from edgecnn.vision.changes import ChangedTiles, touched_windows
from edgecnn.vision.color import from_bgr
from edgecnn.vision.windows import Level, level_image, pyramid

__all__ = ["BUSY", "REFRESH", "StillScene"]

# with more than this share of the windows touched, all are scored: piece by piece they would cost more
BUSY = 0.5
# and everything is scored at least once in so many frames
REFRESH = 300


class StillScene:
    """Scores windows of one camera; thread-safe, though frames of one camera come one after the other.

    A score is that of pixels which differ by at most twice the threshold from those of the frame.
    """

    def __init__(self, inference: Inference, threshold: int) -> None:
        """Take a model of windows, and by how many grey levels a pixel may change before it is looked at.

        Raises:
            InputError: No such threshold, or a model that sees more of a frame than the window.
        """
        artifact = inference.runtime.artifact
        if not artifact.dense_exact:
            raise InputError(
                f"still: {artifact.name} looks beyond its windows, so a change has no end; "
                "load it with dense=False"
            )
        self._inference = inference
        self._changed = ChangedTiles(threshold)
        self._lock = threading.Lock()
        self._age = 0
        self._levels: tuple[Level, ...] = ()
        self._maps: list[npt.NDArray[np.float32]] = []
        self._scores = self._boxes = np.empty((0, 0), np.float32)

    def __call__(self, frame: npt.NDArray[np.uint8]) -> ScoredWindows:
        """Score every window of the next frame.

        Args:
            frame: uint8 (H, W, 3) BGR.

        Returns:
            Scores of this frame; the boxes are read-only.

        Raises:
            InputError: The frame is smaller than the smallest window.
        """
        with self._lock:
            changed = self._changed(frame)
            self._age += 1
            # an error before the scores were there leaves nothing to reuse
            if changed is None or not self._maps or self._age >= REFRESH:
                return self._all(frame)
            infer_s = 0.0
            if changed.any():
                touched = [
                    touched_windows(changed, level, self._inference.spec.size_hw) for level in self._levels
                ]
                if sum(map(np.count_nonzero, touched)) > BUSY * len(self._scores):
                    return self._all(frame)
                maps, self._maps = self._maps, []  # of no use after an error
                infer_s = self._some(frame, touched, maps)
                self._maps = maps
            return ScoredWindows(self._scores.copy(), self._boxes, infer_s)

    def reset(self) -> None:
        """Start anew: the next frame belongs to another stream."""
        with self._lock:
            self._changed.reset()
            self._maps = []

    def _all(self, frame: npt.NDArray[np.uint8]) -> ScoredWindows:
        self._maps = []
        spec = self._inference.spec
        self._levels = pyramid((frame.shape[0], frame.shape[1]), spec)
        found = self._inference.score_windows(frame, self._levels)
        self._scores, self._boxes, self._age = found.scores.copy(), found.boxes_xyxy, 0
        # every frame of the scene is given the same ones
        self._boxes.setflags(write=False)
        ends = np.cumsum([level.count for level in self._levels])
        self._maps = [
            part.reshape(len(level.starts_y), len(level.starts_x), -1)
            for level, part in zip(self._levels, np.split(self._scores, ends[:-1]))
        ]
        return found

    def _some(
        self,
        frame: npt.NDArray[np.uint8],
        touched: Sequence[npt.NDArray[np.bool_]],
        maps: Sequence[npt.NDArray[np.float32]],
    ) -> float:
        """Score what sees a change; gives the seconds that the engine took."""
        spec, infer_s = self._inference.spec, 0.0
        image = from_bgr(frame, spec.color)
        for level, chosen, scores in zip(self._levels, touched, maps):
            if chosen.any():
                infer_s += self._inference.rescore(level_image(image, level, spec), level, chosen, scores)
        return infer_s
