"""A zoo of networks: every one is to be converted, or refused by name.

The networks and operations are those of common courses on convolutional networks, written anew in PyTorch with
the shapes used there, and those of torchvision and timm. Weights are random. `benchmarks/coverage.py` runs the
whole zoo through every engine; the suite runs a slice of it.
"""

from __future__ import annotations

from tests.zoo.models import MODELS
from tests.zoo.operations import OPERATIONS
from tests.zoo.published import PUBLISHED
from tests.zoo.rows import Row, images

__all__ = ["ROWS", "Row", "images"]

ROWS: dict[str, Row] = {row.name: row for row in (*MODELS, *OPERATIONS, *PUBLISHED)}
