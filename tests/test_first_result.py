"""A fresh process looks at a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn import ModelSpec, first_result
from edgecnn.errors import InputError
from edgecnn.first_result import measure_first_result
from edgecnn.runtimes import RuntimeOptions
from tests.bundles import write_mean_color

SPEC = ModelSpec(task="classification", size_hw=(8, 8), activation="none")


def test_time_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_result, "RUNS", 1)
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    found = measure_first_result(
        bundle, "onnx-fp32", "ort", RuntimeOptions(threads=1), np.zeros((9, 9, 3), np.uint8)
    )
    assert found.ms is not None
    assert found.ms > 0
    assert found.reason == ""
    # an interpreter with numpy takes more than that, and the parent's own memory is not in it
    assert found.rss_mb is None or 20 < found.rss_mb < 1000


def test_error_of_the_child_is_the_parents(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    with pytest.raises(InputError, match="no runtime 'nope'"):
        measure_first_result(bundle, "onnx-fp32", "nope", RuntimeOptions(), np.zeros((9, 9, 3), np.uint8))
