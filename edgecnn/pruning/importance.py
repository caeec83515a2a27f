"""How much each channel of a group matters: three criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.pruning.groups import ChannelGroup
from edgecnn.pruning.network import is_depthwise, oriented, watched

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CRITERIA", "Criterion", "Moments", "Scores", "channel_moments", "importance"]

Criterion = Literal["l1", "activation", "bn_scale"]
CRITERIA: tuple[str, ...] = get_args(Criterion)
Scores = npt.NDArray[np.float64]
Moments = Mapping[str, npt.NDArray[np.float64]]

POSITIONS_AN_IMAGE = 256


def channel_moments(module: nn.Module, groups: Sequence[ChannelGroup], batches: Sequence[Tensor]) -> Moments:
    """Second moments of the channels that layers read, over images and positions.

    Returns:
        Layer name to ``E[x xᵀ]``, float64 (channels, channels) in the order of the group that it reads.
    """
    import torch

    positions = {name: torch.from_numpy(group.readers[name]) for group in groups for name in group.readers}
    sums: dict[str, Any] = dict.fromkeys(positions, 0)
    rows: dict[str, int] = dict.fromkeys(positions, 0)

    def add(name: str, layer: Any, x: Tensor, y: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1], 1) if isinstance(layer, torch.nn.Linear) else x.flatten(2)
        x = x[..., :: max(1, x.shape[-1] // POSITIONS_AN_IMAGE)]
        # (images, channels, inputs a channel, positions) to one row for each place where channels are read
        x = x[:, positions[name]].movedim(1, -1).flatten(0, -2)
        sums[name] += (x.T @ x).double()
        rows[name] += len(x)

    with watched(module, positions, add), torch.inference_mode():
        for batch in batches:
            module(batch)
    return {name: (total / rows[name]).numpy() for name, total in sums.items()}


def importance(module: nn.Module, group: ChannelGroup, criterion: str, moments: Moments) -> Scores:
    """Score the channels of a group; the lowest go first.

    * ``l1``: ``Σ|w|`` of the weights that compute the channel.
    * ``bn_scale``: ``|γ|`` of the BatchNorm that the channel passes.
    * ``activation``: ``E[x²] Σw²``, the mean power of what the channel adds to a layer that reads it.

    Where several layers do, each one's scores are divided by their mean and added: layers count alike.

    Raises:
        InputError: ``bn_scale`` and a group that passes no BatchNorm.
    """
    if criterion == "l1":
        parts = [
            np.abs(_weights(module, name)[positions]).sum((1, 2))
            for name, positions in group.writers.items()
            if not is_depthwise(module.get_submodule(name))
        ]
    elif criterion == "activation":
        parts = [
            np.diag(moments[name]) * np.square(_weights(module, name)[:, positions]).sum((0, 2, 3))
            for name, positions in group.readers.items()
        ]
    else:
        scales: list[Any] = [module.get_submodule(name).weight for name in group.norms]
        parts = [np.abs(scale.detach().double().numpy()) for scale in scales if scale is not None]
        if not parts:
            raise InputError(
                f"{group.root}: criterion bn_scale: no BatchNorm scales its channels; use l1 or activation"
            )
    total: Scores = np.sum([part / max(part.mean(), 1e-30) for part in parts], axis=0)
    return total


def _weights(module: nn.Module, name: str) -> npt.NDArray[np.float64]:
    """A layer's weights (outputs, inputs, taps)."""
    layer: Any = module.get_submodule(name)
    weight: npt.NDArray[np.float64] = oriented(layer, layer.weight.detach()).double().numpy()
    return weight.reshape(*weight.shape[:2], -1)
