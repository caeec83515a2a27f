"""The smallest cut that is fast enough, by what was measured on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecnn.errors import GateMissed, InputError
from edgecnn.pruning.pruner import Finetune, OnProgress, Pruned, Pruner
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.pruning.importance import Criterion

__all__ = ["prune_to_latency"]

RATIO_STEP = 0.02


def prune_to_latency(
    module: nn.Module,
    images: npt.NDArray[np.uint8],
    spec: ModelSpec,
    *,
    max_latency_ms: float,
    measure: Callable[[nn.Module], float],
    criterion: Criterion = "activation",
    recover: bool = True,
    finetune: Finetune | None = None,
    on_progress: OnProgress | None = None,
) -> Pruned:
    """Cut as little as makes a network fast enough, by its measured latency.

    The share is found by halving, to 2 %, in about eight measurements. What comes out has met the limit
    twice: one lucky measurement is not taken for a fast network.

    Args:
        module: As in `prune`.
        images: As in `prune`.
        spec: As in `prune`.
        max_latency_ms: The limit.
        measure: Gives the latency of a module in milliseconds.
        criterion: As in `prune`.
        recover: As in `prune`.
        finetune: As in `prune`.
        on_progress: As in `prune`; measurements are not counted.

    Raises:
        InputError: As in `prune`.
        GateMissed: Not even the largest cut is fast enough.
    """
    if not max_latency_ms > 0:
        raise InputError(f"max_latency_ms must be above 0, not {max_latency_ms}")
    pruner = Pruner(module, images, spec, criterion=criterion, on_progress=on_progress)
    measured: dict[float, float] = {}

    def meets(ratio: float) -> bool:
        measured[ratio] = measure(pruner.cut(ratio, recover=False).module)
        return measured[ratio] <= max_latency_ms

    if meets(0.0):
        return pruner.cut(0.0)
    if meets(pruner.ratio_max):
        too_slow, fast_enough = 0.0, [pruner.ratio_max]
        while fast_enough[0] - too_slow > RATIO_STEP:
            middle = (fast_enough[0] + too_slow) / 2
            if meets(middle):
                fast_enough.insert(0, middle)
            else:
                too_slow = middle
        for ratio in fast_enough:
            if meets(ratio):
                return pruner.cut(ratio, recover=recover, finetune=finetune)
    raise GateMissed(
        f"{type(module).__name__}: {measured[pruner.ratio_max]:.2f} ms with {pruner.ratio_max:.0%} of its "
        f"multiply-accumulates cut, {measured[0.0]:.2f} ms with none: {max_latency_ms:g} ms cannot be met",
        {
            "max_latency_ms": max_latency_ms,
            "latency_ms": measured[pruner.ratio_max],
            "latency_before_ms": measured[0.0],
            "ratio": pruner.ratio_max,
        },
    )
