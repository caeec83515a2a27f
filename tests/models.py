"""Tiny torch models whose answers are known by hand."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LAPLACIAN = ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1))
COLUMNS = ((-1, 0, 1), (-1, 0, 1), (-1, 0, 1))

IMAGE_5X5 = (
    (10, 20, 15, 25, 30),
    (40, 50, 60, 32, 18),
    (25, 33, 45, 60, 80),
    (15, 20, 30, 40, 50),
    (40, 30, 25, 15, 10),
)
LAPLACIAN_OF_5X5 = ((152, 200, -77), (-21, 35, 125), (-83, -28, 5))
SQUARE_5X5 = ((0, 0, 0, 0, 0), (0, 1, 1, 1, 0), (0, 1, 1, 1, 0), (0, 1, 1, 1, 0), (0, 0, 0, 0, 0))
COLUMNS_OF_SQUARE = ((2, 0, -2), (3, 0, -3), (2, 0, -2))

Pair = namedtuple("Pair", "classes box")


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Named(nn.Module):
    """A convolution whose pooled features come out in the form that ``wrap`` gives them."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any], classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.classes = nn.Linear(4, classes)
        self.box = nn.Linear(4, 4)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        pooled = torch.relu(self.features(x)).mean((2, 3))
        return self.wrap(self.classes(pooled), self.box(pooled))


class Residual(nn.Module):
    """Two convolutions and a sum made in place."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.conv2(out)
        out += x
        return functional.relu(out, inplace=True)


def kernel_net(kernel: Sequence[Sequence[float]]) -> nn.Module:
    """One channel through one 3×3 kernel, no padding: output (n, 1, h - 2, w - 2)."""
    conv = nn.Conv2d(1, 1, 3, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(kernel, dtype=torch.float32))
    return conv


def channel_means(factor: float = 1.0) -> nn.Module:
    """Logits (n, 3): the mean of each channel times ``factor``."""
    return Lambda(lambda x: x.mean((2, 3)) * factor)


def flat_net(size: int = 4, classes: int = 3, seed: int = 0) -> nn.Module:
    """Flatten and Linear on 3 × size × size: right only if channels come first when it flattens."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))


def lenet5() -> nn.Module:
    """LeNet-5 for 1×32×32: 61,706 parameters and 416,520 multiply-accumulates."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def collapsing_net() -> nn.Module:
    """Six 3×3 convolutions without padding and three pools: 32 pixels are too few for conv6's pool."""
    layers: dict[str, nn.Module] = {}
    channels = 3
    for index, out in enumerate((8, 8, 16, 16, 32, 32), 1):
        layers[f"conv{index}"] = nn.Conv2d(channels, out, 3)
        if index % 2 == 0:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        channels = out
    return nn.Sequential(OrderedDict(layers))


def trained_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give BatchNorm layers statistics and weights that are not their initial ones; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for tensor, low in ((layer.running_mean, -0.5), (layer.running_var, 0.1), (layer.weight, 0.5)):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return module.eval()
