"""Whether samples are fit to find ranges on: enough of them, different ones, as the spec expects them."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError
from edgecnn.spec import ModelSpec

__all__ = ["SAMPLES_MIN", "check_samples"]

SAMPLES_MIN = 32

# photographs use nearly all of the 256 grey levels; even a dim or foggy camera uses more than these
LEVELS_MIN = 16
# the share of pixels that does not count at either end, so that a few stray ones do not hide the rest
STRAY = 0.001
# inputs of a network are some units wide, or raw pixels: a network trained on values beyond these, or on
# values that all but equal one another, is not to be expected
INPUT_MAX = 256.0
SPREAD_MIN = 0.01


def check_samples(
    images: npt.NDArray[np.uint8], spec: ModelSpec, *, minimum: int = SAMPLES_MIN
) -> tuple[str, ...]:
    """What is doubtful about samples, with numbers.

    Args:
        images: uint8 (n, h, w, c), as the model takes them.
        spec: The model's spec; its scale, mean and std count.
        minimum: Fewer samples than this are told of.

    Returns:
        One line each: too few samples, exact duplicates, images of one colour, pixels that use fewer than
        16 grey levels (0.1 % at either end left out), normalised values beyond ±256, or with a standard
        deviation below 0.01.

    Raises:
        InputError: Nothing useful remains: all images are of one colour, or all are equal.
    """
    n = len(images)
    distinct = len({hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images})
    constant = sum(bool((image == image[0, 0]).all()) for image in images)
    if constant == n:
        raise InputError(f"calibration: all of the {n} samples are of one colour; pass real images")
    if distinct < 2:
        raise InputError(f"calibration: there is 1 distinct image in {n} samples; pass different images")
    warnings = []
    if n < minimum:
        warnings.append(f"{n} samples are few to find ranges on; pass at least {minimum}")
    if distinct < n:
        warnings.append(f"{n - distinct} of {n} samples are exact duplicates of others")
    if constant:
        warnings.append(f"{constant} of {n} samples are of one colour")
    return (*warnings, *_values(images, spec))


def _values(images: npt.NDArray[np.uint8], spec: ModelSpec) -> list[str]:
    """What is doubtful about the pixels and what the spec makes of them."""
    # all figures come from how often each of the 256 levels stands in each channel
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    below = np.cumsum(counts.sum(axis=0)) / images.size
    low, high = (int(level) for level in np.searchsorted(below, (STRAY, 1 - STRAY)))
    if high <= 1:
        return [
            f"pixels go from {low} to {high}: normalised already? samples are 0..255 before the spec's scale"
        ]
    if high - low < LEVELS_MIN:
        return [f"pixels go from {low} to {high} only, of 0..255"]
    mean, std = np.array(spec.mean)[:, None], np.array(spec.std)[:, None]
    inputs = (np.arange(256) * spec.scale - mean) / std
    extreme = float(np.abs(np.where(counts > 0, inputs, 0)).max())
    centre = np.average(inputs, axis=1, weights=counts)[:, None]
    spread = math.sqrt(np.average((inputs - centre) ** 2, axis=1, weights=counts).max())
    normalisation = f"scale {spec.scale:.3g}, mean {_listed(spec.mean)}, std {_listed(spec.std)}"
    if extreme > INPUT_MAX:
        return [f"with {normalisation} the model's input reaches ±{extreme:,.0f}: do they go together?"]
    if spread < SPREAD_MIN:
        return [f"with {normalisation} the model's input varies by {spread:.2g} only: do they go together?"]
    return []


def _listed(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
