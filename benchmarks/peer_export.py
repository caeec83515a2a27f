"""Exports YOLO11n and its classifier with random weights; runs in the environment of the peers (see peers.py).

usage: build/peers/bin/python benchmarks/peer_export.py FOLDER CLIP

Untrained networks say nothing: batch norm is measured on frames of the clip, and the last biases of the detectors are set so
that about 10 places a frame pass the threshold, with boxes of a few cells. What they find is no object; times do not
depend on that.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox

# name of the file, network, side of its input
NETWORKS = (
    ("yolo11n-640", "yolo11n.yaml", 640),
    ("yolo11n-320", "yolo11n.yaml", 320),
    ("yolo11n-cls-224", "yolo11n-cls.yaml", 224),
)
EVERY = 4
FOUND = 10
THRESHOLD = 0.25


def frames(clip: Path, side: int) -> torch.Tensor:
    """Each fourth frame of the clip, on squares: float32 (n, 3, side, side) RGB, 0..1."""
    capture, fitted, images = cv2.VideoCapture(str(clip)), LetterBox(side), []
    while (read := capture.read())[0]:
        images.append(fitted(image=read[1])[..., ::-1].transpose(2, 0, 1))
        for _ in range(EVERY - 1):
            capture.grab()
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255)


def measure_batch_norm(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Let each layer's outputs have the mean and spread that batch norm believes they have."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    network.train()
    network(images)
    network.eval()


def let_find(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Make boxes a few cells large, and class scores such that `FOUND` places a frame pass the threshold."""
    head = network.model[-1]
    scores = network(images)[0][:, 4:].amax(1)
    limit = torch.quantile(torch.logit(scores), 1 - FOUND / scores.shape[1])
    for boxes, classes in zip(head.cv2, head.cv3):
        # of each side the distance to the border, in cells, as so many logits
        boxes[-1].bias -= torch.arange(head.reg_max).repeat(4)
        classes[-1].bias += torch.logit(torch.tensor(THRESHOLD)) - limit


def main(folder: Path, clip: Path) -> None:
    """Write NAME.onnx for each of the networks."""
    for name, recipe, side in NETWORKS:
        torch.manual_seed(0)
        model = YOLO(recipe)
        images = frames(clip, side)
        with torch.no_grad():
            measure_batch_norm(model.model, images)
            if model.task == "detect":
                let_find(model.model, images)
        exported = model.export(format="onnx", imgsz=side, simplify=False, device="cpu")
        Path(exported).replace(folder / f"{name}.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
