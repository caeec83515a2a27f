"""Where the inputs come from that a conversion is measured on."""

from __future__ import annotations

from edgecnn.calibration.data import Samples, draw_samples

__all__ = ["Samples", "draw_samples"]
