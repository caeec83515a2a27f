"""Conversions from a trained model to the artifacts of a bundle, one file an arrow.

`load_model` finds the model, `canonical` makes the ONNX that everything else is derived from.
"""

from __future__ import annotations

from edgecnn.converters.base import Arrow, Step, run_chain
from edgecnn.converters.load import LoadedModel, load_model
from edgecnn.converters.onnx_canonical import Canonical, canonical

__all__ = ["Arrow", "Canonical", "LoadedModel", "Step", "canonical", "load_model", "run_chain"]
