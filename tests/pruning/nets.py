"""Small networks to prune, and images for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn import ModelSpec
from edgecnn.pruning.network import input_batches, outputs

SPEC = ModelSpec(task="classification", size_hw=(8, 8), mean=(0.5,), std=(0.25,))


def noise(count: int = 64, spec: ModelSpec = SPEC) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *spec.input_shape), np.uint8)


def answers(module: nn.Module, images: npt.NDArray[np.uint8], spec: ModelSpec = SPEC) -> Tensor:
    return outputs(module, input_batches(images, spec))[0]


def block(inputs: int, channels: int, **options: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, channels, 3, padding=1, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


class Head(nn.Module):
    """Pooled features to three classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Residual(nn.Module):
    """A stream of 32 channels that two blocks add to."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stem = block(3, channels)
        self.inner = nn.ModuleList(block(channels, 24) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(24, channels, 1) for _ in range(2))
        self.head = Head(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inner, outer in zip(self.inner, self.outer):
            x = functional.relu(x + outer(inner(x)))
        return self.head(x)


class Between(nn.Module):
    """Two convolutions with something between them; ``channels`` reach the second."""

    def __init__(self, between: Callable[[Tensor], Tensor], channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.between = between
        self.second = nn.Conv2d(channels, 16, 1)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.second(self.between(self.first(x)))))


class Grouped(nn.Module):
    """A convolution in four groups between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, groups=4)
        self.last = nn.Conv2d(32, 16, 1)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.last(self.grouped(self.first(x)))))


class Concatenated(nn.Module):
    """Two branches whose channels stand side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 16, 1)
        self.left = nn.Conv2d(16, 16, 1)
        self.right = nn.Conv2d(16, 16, 3, padding=1)
        self.head = Head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return self.head(torch.cat([self.left(x), self.right(x)], 1))


class Tied(nn.Module):
    """One convolution that runs twice, and two layers that hold the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 32, 1)
        self.one = nn.Conv2d(32, 32, 1)
        self.other = nn.Conv2d(32, 32, 1)
        self.other.weight = self.one.weight
        self.free = nn.Conv2d(32, 16, 1)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.twice(torch.relu(self.twice(self.stem(x)))))
        return self.head(torch.relu(self.free(self.other(torch.relu(self.one(x))))))


class TiedBehind(nn.Module):
    """A pair of convolutions that can be cut, and behind it one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 1))
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(torch.relu(self.twice(torch.relu(self.twice(self.pair(x))))))))


def copies() -> nn.Module:
    """Channels 8..15 are channels 0..7 times 0.1: eight channels can say all that sixteen do."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
    with torch.no_grad():
        first.weight[8:] = 0.1 * first.weight[:8]
        first.bias[8:] = 0.1 * first.bias[:8]
        second.weight[:, 8:] *= 5
    return nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
