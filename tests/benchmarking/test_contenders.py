"""What is opened, what is left out, and why."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecnn import Bundle, ModelSpec, WindowGeometry
from edgecnn.benchmarking import contenders
from edgecnn.benchmarking.contenders import find_candidates, open_contenders
from edgecnn.benchmarking.results import LeftOut
from edgecnn.bundle import write_bundle
from edgecnn.errors import InputError
from edgecnn.manifest import Fidelity
from edgecnn.progress import silent_work
from edgecnn.runtimes import ort
from tests.bundles import entry, mean_color_model, write_artifacts, write_mean_color

SPEC = ModelSpec(task="classification", size_hw=(8, 8), activation="none")
FRAME = np.zeros((9, 9, 3), np.uint8)


def opened(bundle: Bundle, runtime: str = "ort") -> tuple[list[str], list[LeftOut]]:
    """Names of what is ready, and what is left out."""
    with ExitStack() as stack:
        candidates = find_candidates(bundle, runtime, "auto")
        ready, left_out = open_contenders(bundle, candidates, FRAME, 1, ("latency",), stack, silent_work)
        return [str(each.candidate) for each in ready], left_out


def test_int8_of_another_engine_is_no_candidate(tmp_path: Path) -> None:
    entries = [entry("onnx-int8-tensorrt", "onnx", "int8", "tensorrt"), entry("onnx-fp32", "onnx")]
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, entries)
    found = {str(candidate) for candidate in find_candidates(bundle, "ort,tensorrt", "auto")}
    assert found == {"onnx-int8-tensorrt on tensorrt", "onnx-fp32 on tensorrt", "onnx-fp32 on ort"}


def test_runtimes_named_twice_count_once(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    assert len(find_candidates(bundle, "ort, ort", "auto")) == 1


def test_artifact_that_does_not_load_is_left_out(tmp_path: Path) -> None:
    bundle = write_artifacts(
        tmp_path / "a.edge", SPEC, [entry("onnx-fp16", "onnx", "fp16"), entry("onnx-fp32", "onnx")]
    )
    manifest = bundle.manifest
    with write_bundle(bundle.path) as writer:
        writer.add("onnx-fp16.model", b"no model")
        writer.add("onnx-fp32.model", mean_color_model(SPEC))
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))
    ready, left_out = opened(Bundle(bundle.path))
    assert ready == ["onnx-fp32 on ort"]
    assert [(each.id, each.runtime) for each in left_out] == [("onnx-fp16", "ort")]
    assert "onnx-fp16.model" in left_out[0].reason


def test_lower_arithmetic_that_kept_its_accuracy_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort.Backend, "computes", classmethod(lambda cls: ("f32", "bf16")))
    row = Fidelity(
        id="onnx-fp32", runtime="ort", compute="bf16", n=1, max_abs=0, mean_abs=0, cosine=1, agreement=1
    )
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, [entry("onnx-fp32", "onnx")], fidelity=(row,))
    ready, left_out = opened(bundle)
    names = {*ready, *(f"{each.id} on {each.runtime} in bf16" for each in left_out)}
    assert names == {"onnx-fp32 on ort", "onnx-fp32 on ort in bf16"}


def test_what_does_not_fit_beside_the_others_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "has_room", lambda: False)
    bundle = write_artifacts(
        tmp_path / "a.edge", SPEC, [entry("onnx-fp32", "onnx"), entry("onnx-fp16", "onnx", "fp16")]
    )
    ready, left_out = opened(bundle)
    assert ready == ["onnx-fp32 on ort"]
    assert "no memory is left" in left_out[0].reason


def test_frame_that_no_window_fits_is_the_frames_fault(tmp_path: Path) -> None:
    window = WindowGeometry(stride=16)
    spec = ModelSpec(task="window_detection", size_hw=(32, 32), activation="none", window=window)
    with pytest.raises(InputError, match="smaller than the smallest window"):
        opened(write_mean_color(tmp_path / "a.edge", spec))
