"""Figures of merit as pure functions on arrays; their formulas stand in the docstrings."""

from __future__ import annotations

from edgecnn.metrics.classification import (
    ClassFigures,
    class_figures,
    confusion_matrix,
    top_k_accuracy,
    true_ranks,
)
from edgecnn.metrics.detection import (
    IOU_THRESHOLDS,
    DetectionCounts,
    Objects,
    average_precision,
    count_detections,
    match,
)

__all__ = [
    "IOU_THRESHOLDS",
    "ClassFigures",
    "DetectionCounts",
    "Objects",
    "average_precision",
    "class_figures",
    "confusion_matrix",
    "count_detections",
    "match",
    "top_k_accuracy",
    "true_ranks",
]
