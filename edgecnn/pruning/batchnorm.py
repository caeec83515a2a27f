"""BatchNorm re-estimation: a cut changes what the layers before it give, and so their mean and variance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edgecnn.pruning.network import watched

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["reestimate"]

IMAGES_A_BATCH = 32
"""Of fewer, the mean and variance by which a batch is normalised would be too much of chance."""


def reestimate(module: nn.Module, names: Iterable[str], batches: Sequence[Tensor]) -> None:
    """Take mean and variance of BatchNorm layers anew, over all batches as if they were one.

    Each layer normalises by its batch while it is measured, so that those behind it see what they will
    see in the end. ``mean = Σx / n`` and ``var = (Σx² - n mean²) / (n - 1)``, in float64.

    Args:
        module: In eval mode; running statistics are changed.
        names: The BatchNorm layers.
        batches: Inputs, float32 [n, C, H, W].
    """
    import torch

    norms: dict[str, Any] = {name: module.get_submodule(name) for name in names}
    counts = dict.fromkeys(norms, 0)
    sums: dict[str, Any] = dict.fromkeys(norms, 0)
    squares: dict[str, Any] = dict.fromkeys(norms, 0)

    def add(name: str, norm: Any, x: Tensor, y: Tensor) -> None:
        values = x.movedim(1, -1).flatten(0, -2).double()
        counts[name] += len(values)
        sums[name] += values.sum(0)
        squares[name] += values.square().sum(0)

    with watched(module, norms, add), torch.no_grad():
        for norm in norms.values():
            norm.train()
        images = torch.cat(list(batches))
        for batch in images.chunk(-(-len(images) // IMAGES_A_BATCH)):
            module(batch)
        for name, norm in norms.items():
            norm.eval()
            mean = sums[name] / counts[name]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_((squares[name] - counts[name] * mean**2) / max(counts[name] - 1, 1))
