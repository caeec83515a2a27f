"""When a bundle is called slower, and when nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.benchmarking import compare_with, read_benchmark
from edgecnn.errors import InputError
from edgecnn.stream.outputs import json_text
from tests.benchmarking.examples import bench, machine, row

STEADY = (10.0,) * 40


def times(factor: float) -> tuple[float, ...]:
    return tuple(factor * ms for ms in STEADY)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.2, "slower"), (1.04, "same"), (1.0, "same"), (0.97, "same"), (0.8, "faster")]
)
def test_verdict_of_steady_runs(factor: float, verdict: str) -> None:
    found = compare_with(bench(row(latencies_ms=times(factor))), bench(row()))
    (judged,) = found.rows
    assert judged.verdict == verdict
    assert judged.ratio.value == pytest.approx(factor)
    assert bool(found.slower) == (verdict == "slower")
    assert found.to_json()["rows"][0]["verdict"] == verdict


def test_noise_is_not_a_verdict() -> None:
    """A ratio of 1.2 between runs whose blocks differ by a factor of three."""
    rng = np.random.default_rng(0)
    then, now = rng.uniform(5, 15, 40), rng.uniform(5, 15, 40) * 1.2
    found = compare_with(bench(row(latencies_ms=tuple(now))), bench(row(latencies_ms=tuple(then))))
    assert found.rows[0].verdict == "same"


@pytest.mark.parametrize(
    ("factor", "drift", "verdict"), [(1.3, 1.3, "same"), (0.7, 0.7, "same"), (1.5, 1.3, "slower")]
)
def test_machine_that_is_slower_itself_is_not_the_bundles_fault(
    factor: float, drift: float, verdict: str
) -> None:
    now = bench(row(latencies_ms=times(factor)), machine=machine(yardstick_ms=(drift,) * 20))
    found = compare_with(now, bench(row()))
    assert found.machine.value == pytest.approx(drift)
    assert found.rows[0].verdict == verdict


def test_rows_are_found_by_name() -> None:
    now = bench(row("onnx-int8"), row("onnx-fp32", times(2.0)))
    found = compare_with(now, bench(row("onnx-fp32"), row("openvino-fp16")))
    assert [(each.name, each.verdict) for each in found.rows] == [("onnx-fp32 on ort", "slower")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"machine": machine(cpu="AMD EPYC")}, "the machine's cpu was AMD EPYC, now Cortex-A76"),
        ({"machine": machine(governor="powersave")}, "the machine's governor was powersave"),
        (
            {"machine": machine(others_share=0.4)},
            "other programs took 40% of the processors during the baseline",
        ),
        ({"rows": (row("onnx-int8"),)}, "the baseline has none of onnx-fp32 on ort"),
        ({"rows": (row(threads=1),)}, "threads of onnx-fp32 on ort was 1, now 2"),
        ({"timed": replace(bench().timed, sizes_wh=((320, 240),))}, "sizes_wh, was ((320, 240),)"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        compare_with(bench(), bench(**changes))
    assert said in str(refused.value)


def test_benchmark_travels_as_json(tmp_path: Path) -> None:
    found = bench(row(), row("onnx-int8", energy_mj=12.5, metric=None))
    (tmp_path / "old.json").write_text(json_text(found.to_json() | {"verdict": {"more": "keys"}}))
    assert read_benchmark(tmp_path / "old.json") == found


@pytest.mark.parametrize(
    "text", ["", "[]", '{"rows": []}', "\xff", json_text(bench(machine=machine(yardstick_ms=())).to_json())]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "old.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"old\.json: "):
        read_benchmark(tmp_path / "old.json")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_benchmark(tmp_path / "none.json")
