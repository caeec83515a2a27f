"""A face / no-face classifier for sliding windows.

The network is meant to be asked about every window of an image pyramid, so its cost a window
matters more than its depth, and nothing in it may depend on where a window lies. There is no
padding and no pooling over a size that changes with the input: run over a larger image by
:meth:`FaceWindowNet.dense`, each output cell is exactly the logit of the window cropped there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WINDOW = 48
"""Side of the square window in pixels."""

STRIDE = 8
"""Pixels between neighbouring windows of the dense output."""


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class FaceWindowNet(nn.Module):
    """Six convolutions and a linear read-out; one logit for a 48-pixel window.

    Input is RGB, ``(x / 255 - 0.5) / 0.5``, NCHW. The side shrinks 48 → 23 → 11 → 9 → 4 → 2 → 1.
    The receptive field is 47 pixels: the last row and column of a window are not looked at.
    """

    def __init__(self) -> None:
        """Builds the network with random weights."""
        super().__init__()
        self.features = nn.Sequential(
            _block(3, 16, 3, 2),
            _block(16, 24, 3, 2),
            _block(24, 24, 3),
            _block(24, 48, 3, 2),
            _block(48, 96, 3),
            _block(96, 32, 1),
        )
        self.head = nn.Conv2d(32, 1, 2)

    def dense(self, x: Tensor) -> Tensor:
        """Scores all windows of an image at once.

        Args:
            x: Normalised images ``[N, 3, H, W]``, no side shorter than ``WINDOW``.

        Returns:
            Logits ``[N, 1, (H - WINDOW) // STRIDE + 1, ...]`` (a further row or column may follow
            where the image ends one pixel short of another window).
        """
        logits: Tensor = self.head(self.features(x))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Scores windows.

        Args:
            x: Normalised windows ``[N, 3, WINDOW, WINDOW]``.

        Returns:
            Logits ``[N, 1]``; above zero means "face".
        """
        return torch.flatten(self.dense(x), 1)


def face_window_net() -> nn.Module:
    """Creates the network with random weights, for training or for loading weights into."""
    return FaceWindowNet()
