"""Where the tests find the project, the real data and the engines, and what happens where those are missing."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent


def leave_out(kind: str, reason: str) -> NoReturn:
    """Skip a test, or all of a module; where ``$EDGECNN_MUST_RUN`` lists its kind, it fails instead."""
    if kind in os.environ.get("EDGECNN_MUST_RUN", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def data(name: str) -> Path:
    """A file or folder of the shared test data; of the kind ``data``."""
    root = Path(os.environ.get("EDGECNN_DATA") or ROOT.parent / "shared" / "data")
    path = root / name
    if not path.exists():
        leave_out("data", f"test data {name} is not at {root}; set EDGECNN_DATA to the folder that holds it")
    return path


def engine(module: str) -> Any:
    """A module of OpenVINO, TensorRT or CUDA; of the kind ``engines``."""
    try:
        return importlib.import_module(module)
    except ImportError:
        leave_out("engines", f"{module} is not installed: pip install 'edgecnn[openvino,tensorrt]'")
