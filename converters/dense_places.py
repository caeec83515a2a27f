"""Where the values of one window lie in a network that looks at all windows at once.

A layer of stride 2 halves the grid on which windows can start. Where the windows are closer than that, the
dense network leaves strides out and spreads the taps of later kernels instead ("à trous": Holschneider et al.
1989; for sliding windows: Giusti et al., Fast image scanning with deep max-pooling networks, 2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Literal

__all__ = ["Axis", "Place", "Slide"]


@dataclass(frozen=True)
class Axis:
    """One side of the picture that a tensor holds of a window.

    Attributes:
        size: Positions of one window.
        stride: Pixels of the input from one of them to the next.
        step: The same in the dense network, whose positions may lie closer; divides stride.
    """

    size: int
    stride: int = 1
    step: int = 1

    @property
    def dilation(self) -> int:
        """Positions of the dense network from one position of a window to its next."""
        return self.stride // self.step

    def after(self, size: int, stride: int, window_stride: int) -> Axis:
        """The same side after an operation.

        Args:
            size: Positions that it leaves of a window.
            stride: Its stride.
            window_stride: Pixels between windows.
        """
        if size == 1:
            return Axis(1, window_stride, window_stride)
        total = self.stride * stride
        return Axis(size, total, gcd(total, window_stride))


@dataclass(frozen=True)
class Place:
    """What a tensor of the windowed network is in the dense one, where all have four axes.

    Attributes:
        channels: How many.
        height, width: Of the picture.
        layout: Order of the axes in the dense network.
        rank: Number of axes in the windowed network; 2 is flattened, channels first.
    """

    channels: int
    height: Axis
    width: Axis
    layout: Literal["nchw", "nhwc"] = "nchw"
    rank: int = 4

    @property
    def channel_axis(self) -> int:
        """Index of the channels in the dense network."""
        return self.layout.index("c")

    @property
    def sides(self) -> tuple[Axis, Axis]:
        """Height and width."""
        return self.height, self.width

    @property
    def size_hw(self) -> tuple[int, int]:
        """Positions of one window."""
        return self.height.size, self.width.size

    @property
    def is_point(self) -> bool:
        """One position is all that is left of a window."""
        return self.size_hw == (1, 1)

    def window_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the tensor in the windowed network."""
        if self.rank == 4:
            sizes = {"n": batch, "c": self.channels, "h": self.height.size, "w": self.width.size}
            return tuple(sizes[axis] for axis in self.layout)
        flat = (batch, self.channels * self.height.size * self.width.size)
        return flat[: self.rank]


@dataclass(frozen=True)
class Slide:
    """An operation with a kernel, of the windowed network or of the dense one; height comes first.

    Attributes:
        kernel_hw: Taps of the kernel.
        strides: Steps of the kernel.
        dilations: Positions from tap to tap.
        pads: Before and after the rows, before and after the columns, as ``((top, bottom), (left, right))``.
    """

    kernel_hw: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    def over(self, place: Place, sizes: Sequence[int], window_stride: int) -> tuple[Slide, Place]:
        """The same operation in the dense network, and the place of what it gives.

        Args:
            place: Of what it looks at.
            sizes: Height and width that it leaves of a window.
            window_stride: Pixels between windows.
        """
        height, width = (
            side.after(size, stride, window_stride)
            for side, size, stride in zip(place.sides, sizes, self.strides)
        )
        strides = (height.step // place.height.step, width.step // place.width.step)
        spread = (place.height.dilation, place.width.dilation)
        pads = tuple((before * by, after * by) for (before, after), by in zip(self.pads, spread))
        dilations = (self.dilations[0] * spread[0], self.dilations[1] * spread[1])
        slide = replace(self, strides=strides, dilations=dilations, pads=(pads[0], pads[1]))
        return slide, replace(place, height=height, width=width)
