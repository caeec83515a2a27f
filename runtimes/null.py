"""No engine: answers that are known beforehand, to test what stands around an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.runtimes.base import Artifact, Feeds, Runtime, RuntimeOptions

__all__ = ["Backend"]

Answer = Callable[[Feeds], Sequence[npt.NDArray[Any]]]


class Backend(Runtime):
    """Gives zeros of the listed shapes, or what ``answer`` makes of the feeds."""

    name = "null"
    is_engine = False
    formats = ("onnx", "torch", "null")

    def __init__(
        self, artifact: Artifact, options: RuntimeOptions | None = None, answer: Answer | None = None
    ) -> None:
        self._answer = answer or self._zeros
        super().__init__(artifact, options)

    @classmethod
    def version(cls) -> str:
        """Always the same: there is no engine."""
        return "1"

    def _load(self) -> None:
        self.inputs, self.outputs = self.artifact.inputs, self.artifact.outputs

    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        return self._answer(feeds)

    def _zeros(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        batch = next(iter(feeds.values())).shape[0] if feeds else 1
        return [
            np.zeros([size if isinstance(size, int) else batch for size in info.shape], info.dtype)
            for info in self.outputs
        ]
