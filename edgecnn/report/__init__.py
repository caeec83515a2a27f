"""``report.html`` of a bundle: what a conversion cost in accuracy, where, and why.

Conversion fills a `Report` with plain values; `render` makes one file of it that needs nothing else.
"""

from __future__ import annotations

from edgecnn.report.data import (
    ArtifactRow,
    Histogram,
    LayerRow,
    PruningRow,
    RangeRow,
    Report,
    Samples,
    Step,
    Trial,
    Verdict,
    WorstImage,
)
from edgecnn.report.html import render, style

__all__ = [
    "ArtifactRow",
    "Histogram",
    "LayerRow",
    "PruningRow",
    "RangeRow",
    "Report",
    "Samples",
    "Step",
    "Trial",
    "Verdict",
    "WorstImage",
    "render",
    "style",
]
