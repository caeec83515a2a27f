"""Structured channel pruning: fewer channels in ordinary layers, with accuracy recovered without training."""

from __future__ import annotations

from edgecnn.pruning.latency import prune_to_latency
from edgecnn.pruning.pruner import Pruned, PrunedLayer, Pruner, prune

__all__ = ["Pruned", "PrunedLayer", "Pruner", "prune", "prune_to_latency"]
