"""Where the tests find the project and the real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def data(name: str) -> Path:
    """A file or folder of the shared test data; the test is skipped, with the reason, without it.

    With ``EDGECNN_MUST_RUN=data`` it fails instead.
    """
    root = Path(os.environ.get("EDGECNN_DATA") or ROOT.parent / "shared" / "data")
    path = root / name
    if not path.exists():
        reason = f"test data {name} is not at {root}; set EDGECNN_DATA to the folder that holds it"
        if "data" in os.environ.get("EDGECNN_MUST_RUN", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
