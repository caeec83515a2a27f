"""Running a network that is pruned: its inputs, its outputs, and what each layer sees and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.reference import reference_module
from edgecnn.converters.torch_eager import named_outputs
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "LayerCost",
    "batch_norms",
    "input_batches",
    "is_depthwise",
    "layer_costs",
    "layers",
    "oriented",
    "outputs",
    "watched",
]

VALUES_A_BATCH = 2**19
"""Small batches: where activations outgrow the caches, most of the time goes into fetching memory."""

Watch = Callable[[str, Any, "Tensor", "Tensor"], None]


def input_batches(images: npt.NDArray[np.uint8], spec: ModelSpec) -> list[Tensor]:
    """Images uint8 [N, H, W, C] as the network takes them: float32 [n, C, H, W], normalised, in batches."""
    import torch

    # the arithmetic of the spec alone: no network behind it, no activation
    arithmetic = reference_module(torch.nn.Identity(), spec.replace(activation="none"), None)
    step = max(1, VALUES_A_BATCH // images[0].size)
    return [arithmetic(torch.from_numpy(images[i : i + step]))[0] for i in range(0, len(images), step)]


def outputs(module: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """Every output of a network over all batches, each as float32 [N, values of an image]."""
    import torch

    with torch.inference_mode():
        runs = [list(named_outputs(module(batch)).values()) for batch in batches]
    return [torch.cat([run[i].flatten(1) for run in runs]) for i in range(len(runs[0]))]


def layers(module: nn.Module) -> dict[str, Any]:
    """The convolutions and linear layers of a module by name."""
    from torch import nn

    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}


def batch_norms(module: nn.Module) -> dict[str, Any]:
    """The BatchNorm layers of a module by name."""
    from torch import nn

    kind = nn.modules.batchnorm._BatchNorm
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, kind)}


def is_depthwise(layer: Any) -> bool:
    """Whether a layer computes each of its channels from one channel of its own."""
    groups = getattr(layer, "groups", 1)
    return bool(groups > 1 and groups == layer.in_channels == layer.out_channels)


def oriented(layer: Any, weight: Tensor) -> Tensor:
    """A layer's weights as a view (outputs, inputs, taps…); transposed convolutions keep inputs first."""
    return weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight


@dataclass(frozen=True)
class LayerCost:
    """How often a layer runs and its multiply-accumulates for one image."""

    calls: int
    macs: int


def layer_costs(module: nn.Module, image: Tensor) -> dict[str, LayerCost]:
    """Calls and multiply-accumulates of the layers that run, in the order of their first call.

    A convolution costs its output values × (input channels / groups) × kernel taps, a transposed one its
    input values × (output channels / groups) × kernel taps, a linear layer its output values × inputs.

    Args:
        module: In eval mode.
        image: float32 [1, C, H, W].
    """
    costs: dict[str, LayerCost] = {}

    def count(name: str, layer: Any, x: Tensor, y: Tensor) -> None:
        before = costs.get(name, LayerCost(0, 0))
        values = x.numel() if getattr(layer, "transposed", False) else y.numel()
        costs[name] = LayerCost(before.calls + 1, before.macs + values * prod(layer.weight.shape[1:]))

    with watched(module, layers(module), count):
        outputs(module, [image])
    return costs


@contextmanager
def watched(module: nn.Module, names: Iterable[str], watch: Watch) -> Iterator[None]:
    """Call ``watch(name, layer, input, output)`` whenever one of the named layers has run."""

    def hook(name: str) -> Any:
        return lambda layer, inputs, output: watch(name, layer, inputs[0], output)

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
