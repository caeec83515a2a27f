"""Where a model looks: the windows of a frame, and the priors of a head."""

from __future__ import annotations

import math

import msgspec

from edgecnn.schema import check_types, demand

__all__ = ["PriorMap", "WindowGeometry"]


class WindowGeometry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a window classifier looks in a frame.

    A pyramid level ``k`` shows objects of ``min_size * scale_step**k`` source pixels at the size of
    the model's window; levels go on while the window fits into the frame.

    Attributes:
        stride: Step between windows on a level, in pixels of the model's input, both axes.
        scale_step: Ratio of the object sizes of neighbouring levels, above 1.
        min_size: Shorter side of the smallest window in source pixels; None is the model's own size.
        max_size: Shorter side of the largest window in source pixels; None is the frame's.
        box_scale: Size of the reported box relative to its window, about the same centre.
        box_voting: Report the mean of the windows around a detection instead of its best window.
    """

    stride: int = 16
    scale_step: float = 1.25
    min_size: int | None = None
    max_size: int | None = None
    box_scale: float = 1.0
    box_voting: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        demand(self.stride >= 1, f"window.stride must be at least 1, not {self.stride}")
        demand(
            math.isfinite(self.scale_step) and self.scale_step > 1.01,
            f"window.scale_step must be above 1.01, not {self.scale_step}",
        )
        for name, value in (("min_size", self.min_size), ("max_size", self.max_size)):
            demand(value is None or value >= 4, f"window.{name} must be at least 4 px, not {value}")
        if self.min_size is not None and self.max_size is not None:
            demand(
                self.min_size <= self.max_size,
                f"window.min_size ({self.min_size}) is above window.max_size ({self.max_size})",
            )
        demand(0.1 <= self.box_scale <= 4.0, f"window.box_scale must be in 0.1..4, not {self.box_scale}")


class PriorMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The priors of one feature map of an SSD head: the same boxes about the middle of every cell.

    Attributes:
        stride: Input pixels a cell, which need not be whole; the map has ``ceil(size / stride)`` cells.
        sizes_wh: Width and height of each prior of a cell in input pixels, in the order of the head.
    """

    stride: float
    sizes_wh: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        check_types(self)
        demand(
            math.isfinite(self.stride) and self.stride >= 1,
            f"priors.stride must be at least 1 px, not {self.stride}",
        )
        numbers = [side for size in self.sizes_wh for side in size]
        demand(
            bool(numbers) and all(math.isfinite(n) and n > 0 for n in numbers),
            f"priors.sizes_wh must be widths and heights above 0, not {list(self.sizes_wh)}",
        )
