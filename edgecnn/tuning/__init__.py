"""What runs a bundle fastest on this machine: engine, precision, threads, streams and batch."""

from __future__ import annotations

from edgecnn.tuning.choosing import forget, tune
from edgecnn.tuning.results import Tuning, TuningRow

__all__ = ["Tuning", "TuningRow", "forget", "tune"]
