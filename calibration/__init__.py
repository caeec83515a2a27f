"""Where the inputs come from that a conversion is measured on, and what is seen of a model on them."""

from __future__ import annotations

from edgecnn.calibration.activations import observe
from edgecnn.calibration.cache import observe_cached
from edgecnn.calibration.checks import check_samples
from edgecnn.calibration.data import Samples, draw_samples, generate_frames
from edgecnn.calibration.observers import Observation, Observer
from edgecnn.calibration.ranges import RECIPES, QuantParams, Recipe, quant_params, value_range, weight_scales

__all__ = [
    "RECIPES",
    "Observation",
    "Observer",
    "QuantParams",
    "Recipe",
    "Samples",
    "check_samples",
    "draw_samples",
    "generate_frames",
    "observe",
    "observe_cached",
    "quant_params",
    "value_range",
    "weight_scales",
]
