"""What a layer was before `edgecnn.converters.onnx_packed` let it take four pixels at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

__all__ = ["FOUR", "PREFIX", "Unpacked"]

FOUR = 4
PREFIX = "edgecnn/packed"


class Unpacked(NamedTuple):
    """A kernel along its rows, and its padding; written down in the names of the nodes that were put in."""

    columns: int
    stride: int
    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, name: str) -> Unpacked:
        """As a node's name says it."""
        return cls(*map(int, name.removeprefix(PREFIX).split("/")[1].split(",")))

    def name(self, node: str) -> str:
        """The name of a node."""
        return f"{PREFIX}/{','.join(map(str, self))}/{node}"

    @property
    def begin(self) -> int:
        """Column of the first four pixels at which the kernel begins."""
        return -self.left % FOUR

    def codes(self, packed: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Its weights (outputs, channels, rows, columns), which those for four pixels hold at position 0."""
        outputs, (rows, fours) = len(packed) * self.stride // FOUR, packed.shape[2:]
        apart = packed[:outputs].reshape(outputs, FOUR, -1, rows, fours).transpose(0, 2, 3, 4, 1)
        codes: npt.NDArray[Any] = apart.reshape(outputs, -1, rows, fours * FOUR)
        return codes[..., self.begin : self.begin + self.columns]
