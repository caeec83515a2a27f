"""A window classifier of drawn shapes: the third model of the suite, trained in seconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.vision.opencv import cv2

CLASSES = ("disc", "square", "cross")
SIZE = 24

SPEC = ModelSpec(
    task="window_detection",
    size_hw=(SIZE, SIZE),
    color="rgb",
    interpolation="area",
    mean=(0.5,),
    std=(0.5,),
    activation="softmax",
    labels=("background", *CLASSES),
    background=0,
    threshold=0.9,
    nms_iou=0.3,
    window=WindowGeometry(stride=4, scale_step=1.5),
)


def draw_shape(image: npt.NDArray[np.uint8], kind: str, x: float, y: float, size: float) -> None:
    """Paint a bright shape of a size into a picture, centred at x, y."""
    half = size / 2
    low, high = (round(x - half), round(y - half)), (round(x + half), round(y + half))
    color = (250, 240, 245)
    if kind == "disc":
        cv2.circle(image, (round(x), round(y)), round(half), color, -1)
    elif kind == "square":
        cv2.rectangle(image, low, high, color, -1)
    else:
        width = max(round(size / 6), 2)
        cv2.line(image, low, high, color, width)
        cv2.line(image, (low[0], high[1]), (high[0], low[1]), color, width)


def background(rng: np.random.Generator, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Dark noise."""
    return rng.integers(0, 70, (*size_hw, 3), np.uint8)


def shapes_net() -> nn.Module:
    """No padding inside the window, four classes of which the first is the background."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2), nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2), nn.ReLU(),
        nn.Conv2d(16, 24, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 9, len(CLASSES) + 1),
    )  # fmt: skip


def sample(rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], int]:
    """A window and its class; shapes off the centre or too large for the window are background."""
    image = background(rng, (SIZE, SIZE))
    label = int(rng.integers(0, len(CLASSES) + 1))
    if label:
        x, y = SIZE / 2 + rng.uniform(-2, 2, 2)
        draw_shape(image, CLASSES[label - 1], x, y, rng.uniform(0.62, 0.86) * SIZE)
    elif rng.random() < 0.4:
        x, y = rng.uniform(0, SIZE, 2)
        draw_shape(image, CLASSES[rng.integers(0, 3)], x, y, rng.uniform(1.3, 4.0) * SIZE)
    elif rng.random() < 0.7:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.9) * SIZE
        x, y = SIZE / 2 + distance * np.cos(angle), SIZE / 2 + distance * np.sin(angle)
        draw_shape(image, CLASSES[rng.integers(0, 3)], x, y, rng.uniform(0.4, 2.0) * SIZE)
    return image, label


def train_shapes_net(steps: int = 450) -> nn.Module:
    """Train on windows drawn on the fly; the same call gives the same network."""
    rng = np.random.default_rng(0)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    net = shapes_net()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        images, labels = zip(*(sample(rng) for _ in range(96)))
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        loss = nn.functional.cross_entropy(net(batch), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.random.set_rng_state(state)
    return net.eval()
