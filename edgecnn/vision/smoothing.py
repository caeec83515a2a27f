"""Class scores averaged over time."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError

__all__ = ["ScoreSmoother"]


class ScoreSmoother:
    """Mean of the class scores of the last frames of one stream. Not thread-safe.

    Args:
        frames: How many frames count, the present one among them; 1 changes nothing.

    Raises:
        InputError: ``frames`` is below 1.
    """

    def __init__(self, frames: int) -> None:
        if frames < 1:
            raise InputError(f"smoothing takes at least 1 frame, not {frames}")
        self._recent: deque[npt.NDArray[np.float32]] = deque(maxlen=frames)

    def __call__(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Take the scores (K,) of the next frame and give the mean (K,) over the last ones.

        Raises:
            InputError: The number of classes changed.
        """
        current = np.array(scores, np.float32)
        if self._recent and self._recent[0].shape != current.shape:
            raise InputError(
                f"scores of shape {current.shape} after {self._recent[0].shape}; reset() before another model"
            )
        self._recent.append(current)
        return np.asarray(np.mean(self._recent, axis=0), np.float32)

    def reset(self) -> None:
        """Forget the frames so far (a new stream begins)."""
        self._recent.clear()
