"""Benchmarks made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgecnn.benchmarking.figures import block_medians, histogram, percentiles
from edgecnn.benchmarking.results import Benchmark, LeftOut, Machine, Row, Timed
from edgecnn.devices.state import MachineState


def row(name: str = "onnx-fp32", latencies_ms: tuple[float, ...] = (10.0,) * 40, **changes: Any) -> Row:
    """A row of these latencies."""
    made = Row(
        id=name,
        runtime="ort",
        precision="fp32",
        compute="f32",
        dense=False,
        threads=2,
        n=len(latencies_ms),
        **percentiles(latencies_ms),  # type: ignore[arg-type]
        fps=1e3 * len(latencies_ms) / sum(latencies_ms),
        ratio=1.0,
        ratio_low=1.0,
        ratio_high=1.0,
        blocks_ms=block_medians(latencies_ms),
        histogram=histogram(latencies_ms),
        warm_calls=10,
        settled=True,
        rss_mb=115.0,
        first_result_ms=340.0,
        size_bytes=260_000,
        metric=0.98,
        stages_ms={"read": None, "geometry": 1.0, "infer": 8.0, "decode": 1.0, "nms": None},
    )
    return replace(made, **changes)


def machine(**changes: Any) -> Machine:
    """A quiet one."""
    made = Machine(
        cpu="Cortex-A76",
        cores=4,
        governor="performance",
        clocks_locked=True,
        ram_mb=8000,
        gpu=None,
        jetpack=None,
        power_mode=None,
        system="Linux",
        versions={"edgecnn": "0.1.0"},
        before=MachineState(temperature_c=40.0, clock_mhz=2400.0),
        after=MachineState(temperature_c=61.0, clock_mhz=2400.0),
        yardstick_ms=(1.0,) * 20,
        others_share=0.01,
        throttled=False,
        throttled_reason="",
    )
    return replace(made, **changes)


def bench(*rows: Row, **changes: Any) -> Benchmark:
    """A benchmark of these rows."""
    rows = rows or (row(),)
    made = Benchmark(
        created="2026-01-02T03:04:05Z",
        machine=machine(),
        timed=Timed(
            bundle="net",
            task="classification",
            source="frames that were made up",
            generated=True,
            frames=4,
            sizes_wh=((640, 480),),
            what="frame to result",
        ),
        rows=rows,
        best=rows[0].name,
        metric="top1",
        energy="no meter",
        left_out=(LeftOut("onnx-fp32", "tensorrt", "no GPU <here>"),),
    )
    return replace(made, **changes)
