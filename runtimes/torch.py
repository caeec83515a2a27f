"""PyTorch: the reference that every artifact is compared with. Needs a module, not a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import EngineError, first_line, require
from edgecnn.runtimes.base import Feeds, Runtime

__all__ = ["Backend"]


class Backend(Runtime):
    """Runs a ``torch.nn.Module`` on the CPU in its own precision.

    The artifact's content is a module that takes the artifact's inputs in their order and returns a
    tensor or a sequence of tensors in the order of its outputs; both are listed in the artifact.
    """

    name = "torch"
    is_engine = False
    formats = ("torch",)

    @classmethod
    def version(cls) -> str:
        """Version of torch."""
        return str(require("torch", "convert").__version__)

    def _load(self) -> None:
        self._torch = require("torch", "convert")
        self.inputs, self.outputs = self.artifact.inputs, self.artifact.outputs

    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        torch = self._torch
        # torch warns of arrays it may not write to, and copies are cheap beside a reference run
        tensors = [torch.from_numpy(np.array(feeds[info.name])) for info in self.inputs]
        try:
            with torch.inference_mode():
                values = self.artifact.content(*tensors)
        except Exception as error:
            raise EngineError(f"{self.artifact.name}: torch failed ({first_line(error)})") from error
        values = values if isinstance(values, (tuple, list)) else [values]
        return [value.numpy() for value in values]
