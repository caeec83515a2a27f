"""What it costs to cut a group of channels alone: the error of the network's output, measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.pruning.groups import STEP, ChannelGroup, Channels
from edgecnn.pruning.importance import Moments
from edgecnn.pruning.network import oriented, outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Curve", "merging", "relative_error", "sensitivity"]

LEFT = (0.75, 0.5, 0.25)
"""Shares of a group's channels with which its error is measured, beside the fewest that may be left."""

RIDGE = 1e-3
"""Share of a channel's mean power; keeps the regression sane where channels are copies of one another."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Output error by the channels that a group has left; ``channels`` rise, the last are all, at error 0."""

    channels: npt.NDArray[np.int64]
    errors: npt.NDArray[np.float64]

    def at(self, channels: int) -> float:
        """The error with so many channels, on the line between two that were measured."""
        return float(np.interp(channels, self.channels, self.errors))


def sensitivity(
    module: nn.Module,
    group: ChannelGroup,
    order: Channels,
    moments: Moments,
    batches: Sequence[Tensor],
    expected: Sequence[Tensor],
) -> Curve:
    """Measure a group's curve: its least important channels are removed, all else is as before.

    What the layers that read them lose is made up from the channels that are left (`merging`), a cheap
    stand-in for the reconstruction that follows a cut.

    Args:
        module: In eval mode; weights are changed and put back.
        group: The group.
        order: Its channels, the least important first.
        moments: Of the channels that its readers see.
        batches: Inputs.
        expected: Outputs of the whole network for them.
    """
    counts = sorted({STEP, *(round(group.channels * share / STEP) * STEP for share in LEFT)})
    counts = [count for count in counts if STEP <= count < group.channels]
    errors = []
    for count in counts:
        with _without(module, group, order[: group.channels - count], moments):
            errors.append(relative_error(outputs(module, batches), expected))
    # fewer channels are never better: what looks so is chance
    rising = np.maximum.accumulate([0.0, *errors[::-1]])[::-1]
    return Curve(np.array([*counts, group.channels]), rising)


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """``Σ(y' - y)² / Σ(y - ȳ)²`` over images, the mean of the outputs; 1 is as bad as a constant answer."""
    parts = [
        float((a - b).square().sum() / (b - b.mean(0)).square().sum().clamp_min(1e-30))
        for a, b in zip(found, expected)
    ]
    return sum(parts) / len(parts)


def merging(moments: npt.NDArray[np.float64], kept: Channels, removed: Channels) -> npt.NDArray[np.float64]:
    """How to make up removed channels from kept ones: the least squares of ``x_removed ≈ M x_kept``.

    ``M = E[x_r x_kᵀ] (E[x_k x_kᵀ] + λ I)⁻¹``, λ a small share of the mean power of a channel.

    Returns:
        float64 (removed, kept).
    """
    inner = moments[np.ix_(kept, kept)]
    inner = inner + (RIDGE * np.diag(inner).mean() + 1e-30) * np.eye(len(kept))
    solved: npt.NDArray[np.float64] = np.linalg.solve(inner, moments[np.ix_(kept, removed)]).T
    return solved


@contextmanager
def _without(module: nn.Module, group: ChannelGroup, removed: Channels, moments: Moments) -> Iterator[None]:
    """Let the readers of a group do without some of its channels for a while."""
    import torch

    kept = np.setdiff1d(np.arange(group.channels), removed)
    readers: dict[str, Any] = {name: module.get_submodule(name) for name in group.readers}
    before = {name: layer.weight for name, layer in readers.items()}
    for name, layer in readers.items():
        changed = layer.weight.detach().clone()
        view, positions = oriented(layer, changed), group.readers[name]
        mix = torch.from_numpy(merging(moments[name], kept, removed)).to(changed.dtype)
        # (outputs, removed, inputs a channel, taps…) times (removed, kept)
        view[:, positions[kept]] += torch.einsum("or...,rk->ok...", view[:, positions[removed]], mix)
        view[:, positions[removed]] = 0
        layer.weight = torch.nn.Parameter(changed, requires_grad=False)
    try:
        yield
    finally:
        for name, layer in readers.items():
            layer.weight = before[name]
