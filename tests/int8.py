"""What the tests of INT8 share: a network that it breaks, data for it, and a clock that knows the answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgecnn import ModelSpec
from edgecnn.timing import SpeedComparison
from edgecnn.vision.opencv import cv2

LABELS = ("black", "green", "dim", "dim green", "red", "red green")

SPEC = ModelSpec(task="classification", size_hw=(8, 8), labels=LABELS)

# one input: 8 × 8 places × 2 channels × 3 inputs, and 6 classes × 2 features
CONV_MACS, HEAD_MACS = 384, 12

RED, GREEN = np.array([0, 0, 0.5, 0.5, 1, 1]), np.array([0, 1, 0, 1, 0, 1])


class Head(nn.Module):
    """The nearest of six classes by two features, of which the first is a thousand times the second.

    Eight bits for both make steps of 4, where the second one is 0 or 1: INT8 does not see green.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 6)
        self.scale = nn.Buffer(torch.tensor([1000.0, 1.0]))
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor(16 * np.stack([RED / 1000, GREEN], axis=1)))
            self.linear.bias.copy_(torch.tensor(-8 * (RED**2 + GREEN**2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.linear(x[:, :2].mean((2, 3)) * self.scale)
        return scores


class TwoScales(nn.Module):
    """A convolution, which INT8 suits, and a head that it breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.head = Head()
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2, 3)[:, :, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.conv(x).relu())
        return scores


def frames(count: int = 36) -> npt.NDArray[np.uint8]:
    """Frames uint8 (n, 8, 8, 3) BGR of the classes in turn, with noise."""
    rng = np.random.default_rng(0)
    made = np.zeros((count, 8, 8, 3))
    made[..., 2] = 255 * RED[np.arange(count) % 6, None, None]
    made[..., 1] = 255 * GREEN[np.arange(count) % 6, None, None]
    return (made + rng.integers(-20, 21, made.shape)).clip(0, 255).astype(np.uint8)


def write_frames(folder: Path, images: npt.NDArray[np.uint8], *, labelled: bool = True) -> Path:
    """Write such frames as files, into a folder a class where labelled."""
    for index, image in enumerate(images):
        path = (folder / LABELS[index % 6] if labelled else folder) / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
    return folder


def clock(*ratios: float) -> Callable[..., SpeedComparison]:
    """In place of `compare_speed`: one ratio of candidate to reference a call, the last one for ever."""
    left = list(ratios)

    def compared(candidate: Callable[[], object], reference: Callable[[], object]) -> SpeedComparison:
        candidate()
        reference()
        ratio = left.pop(0) if len(left) > 1 else left[0]
        return SpeedComparison(candidate_ms=2 * ratio, reference_ms=2.0, ratio=ratio, rounds=1)

    return compared


FASTER, SLOWER = 0.5, 1.5
