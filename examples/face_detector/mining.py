"""Hard negatives: what the current network mistakes for a face in the training photographs."""

from __future__ import annotations

import numpy as np
from data import PATCH, Patches, Scene, cut_patch
from dense import Protocol, scan, suppress
from torch import nn


def mine(
    net: nn.Module,
    scenes: list[Scene],
    rng: np.random.Generator,
    threshold: float,
    per_scene: int,
) -> Patches:
    """Scans photographs and keeps the best-scored windows that show no face.

    Args:
        net: The network in evaluation mode.
        scenes: Photographs to scan.
        rng: Chooses each photograph's finest level and mirroring, so that rounds differ.
        threshold: Lowest score worth keeping.
        per_scene: Most windows kept of one photograph.

    Returns:
        Patches ``[N, PATCH, PATCH, 3]``.
    """
    found = [np.empty((0, PATCH, PATCH, 3), np.uint8)]
    for scene in scenes:
        finest = float(rng.uniform(26, 36))
        windows = scan(net, scene.image, Protocol(min_size=finest, threshold=threshold))
        # Half of a face's neighbourhood would be suppressed with a lower limit.
        windows = windows[suppress(windows[:, :4], windows[:, 4], 0.5)]
        wrong = [row for row in windows if scene.verdict(row[:4]) == "none"][:per_scene]
        if wrong:
            found.append(np.stack([cut_patch(scene.image, row[:4]) for row in wrong]))
    return np.concatenate(found)
