"""Trains the demonstration face classifier and writes its weights.

Rounds alternate between learning and mining: each round's network scans the training
photographs, and the windows it wrongly takes for faces join the stock of the next round.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from augment import Batches, Stock, shift_colours
from data import Scene, cut_patch, load_crops, load_scenes
from dense import Protocol, detect, normalise, overlaps
from mining import mine
from net import face_window_net
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

BATCH = 256
MOST_HARD = 24000


def build_stock(archive: Path, scenes: list[Scene]) -> Stock:
    """Collects the face patches and the negatives that need no mining.

    Args:
        archive: ``faces64.zip``.
        scenes: Photographs to train on.

    Returns:
        The stock, without hard negatives yet.
    """
    bare, masked = load_crops(archive, "faces"), load_crops(archive, "faces_masked")
    context = [cut_patch(scene.image, window) for scene in scenes for window in scene.faces]
    faces = np.concatenate([bare, masked, np.asarray(context, np.uint8)])
    # Masks are rarer in the field than in this archive, and true surroundings are precious.
    odds = np.repeat([1.0, 0.2, 2.0], [len(bare), len(masked), len(context)])
    filled = np.arange(len(faces)) < len(bare) + len(masked)
    plain = load_crops(archive, "neg")
    return Stock(faces, odds / odds.sum(), filled, plain, plain[:0], scenes)


def train_round(
    net: nn.Module, average: nn.Module, stock: Stock, steps: int, peak: float, seed: int
) -> float:
    """Runs one cosine schedule.

    Args:
        net: Network being trained.
        average: Exponential moving average of ``net``, updated in place.
        stock: Training material.
        steps: Optimiser steps.
        peak: Highest learning rate.
        seed: Random stream of this round.

    Returns:
        Mean loss of the last tenth of the steps.
    """
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(Batches(stock, BATCH, seed), batch_size=None, num_workers=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=0.01)
    warm = min(100, steps // 5)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * step / steps)),
    )
    net.train()
    recent = []
    for step, (windows, labels) in zip(range(steps), loader):
        x = shift_colours(normalise(windows.numpy()), generator)
        loss = nn.functional.binary_cross_entropy_with_logits(
            net(x.contiguous(memory_format=torch.channels_last))[:, 0], labels
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        follow(average, net, min(0.998, (step + 1) / (step + 10)))
        if step >= steps * 0.9:
            recent.append(loss.item())
    return float(np.mean(recent))


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Moves the averaged network a little towards the trained one, statistics included."""
    current: dict[str, Tensor] = net.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - keep)


def validate(net: nn.Module, scenes: list[Scene]) -> None:
    """Prints recall and false detections on held-out photographs for a few thresholds."""
    found = [detect(net, scene.image, Protocol(min_size=36, threshold=0.3)) for scene in scenes]
    total = sum(len(s.faces) for s in scenes)
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
        hits = wrong = 0
        for scene, rows in zip(scenes, found):
            rows = rows[rows[:, 4] >= threshold]
            hits += sum(bool((overlaps(f, rows[:, :4]) > 0.3).any()) for f in scene.faces)
            wrong += sum(scene.verdict(_window(row)) == "none" for row in rows)
        print(f"  >= {threshold}: {hits}/{total} faces, {wrong / len(scenes):.3f} wrong a photo")


def _window(row: np.ndarray) -> np.ndarray:
    centre, half = (row[:2] + row[2:4]) / 2, (row[2:4] - row[:2]) / 2 / Protocol().box_scale
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def save(net: nn.Module, path: Path) -> None:
    """Writes the weights beside their final place, then moves them there."""
    state = {k: v.contiguous() for k, v in net.state_dict().items() if v.is_floating_point()}
    part = path.with_suffix(".part")
    save_file(state, part)
    part.replace(path)


def main() -> None:
    """Reads the command line and trains."""
    default = os.environ.get("EDGECNN_DATA", "../shared/data")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(default), help="the data folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("face.safetensors"))
    parser.add_argument("--labels", type=Path, default=Path("labels.json"), help="label cache")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps a round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    scenes = load_scenes(options.data, options.labels)
    held_out = scenes[::8]
    scenes = [scene for index, scene in enumerate(scenes) if index % 8]
    stock = build_stock(options.data / "faces64" / "faces64.zip", scenes)
    net = face_window_net().to(memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval()
    print(f"{len(stock.faces)} faces, {len(scenes)} photographs", flush=True)
    start = time.monotonic()
    for turn in range(options.rounds):
        peak = 3e-3 if turn == 0 else 1.5e-3 * (1 - 0.7 * turn / options.rounds)
        loss = train_round(net, average, stock, options.steps, peak, options.seed + turn)
        save(average, options.out)
        minutes = (time.monotonic() - start) / 60
        print(f"round {turn}: loss {loss:.4f}, {minutes:.1f} min", flush=True)
        validate(average, held_out)
        if turn + 1 < options.rounds:
            found = mine(average, scenes, rng, 0.2, 24)
            stock.hard = np.concatenate([stock.hard, found])[-MOST_HARD:]
            print(f"  {len(found)} mined, {len(stock.hard)} hard", flush=True)


if __name__ == "__main__":
    main()
