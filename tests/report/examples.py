"""Reports with known figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecnn.report import (
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


def layer(name: str = "conv", error: float | None = 0.01, **changes: Any) -> LayerRow:
    values: dict[str, Any] = {"op": "Conv", "macs": 1000, "macs_share": 0.25, "precision": "int8"}
    return LayerRow(name=name, error=error, **(values | changes))


def activation(tensor: str = "relu_out", **changes: Any) -> RangeRow:
    values: dict[str, Any] = {
        "layer": "relu",
        "low": 0.0,
        "high": 8.0,
        "clip_low": 0.0,
        "clip_high": 6.0,
        "method": "entropy",
        "histogram": Histogram((4, 2, 1, 1), 0.0, 2.0),
    }
    return RangeRow(tensor=tensor, **(values | changes))


def picture(height: int = 240, width: int = 320) -> WorstImage:
    image = np.full((height, width, 3), (30, 60, 200), np.uint8)
    return WorstImage(image=image, label_float="cat", label_int8="dog", difference=0.25, name="a.jpg")


def full(met: bool = True, layers: int = 4, pictures: int = 2) -> Report:
    """Every section, with the last layer in float."""
    names = [f"features.{i}.conv" for i in range(layers)]
    rows = [layer(name, 0.01 * (i + 1)) for i, name in enumerate(names)]
    rows[-1] = layer(names[-1], 0.5, precision="fp32", reason="brings the drop from 2.4 to 0.2 points")
    return Report(
        title="net.edge",
        created="2030-01-02 03:04 UTC",
        model="zoo:net",
        task="classification",
        machine="a small computer",
        command="edgecnn convert zoo:net --precision int8",
        verdict=Verdict(met, "int8 loses 0.2 points of top-1 (79.4 % → 79.2 %)."),
        metric_name="top-1",
        max_drop=0.005,
        artifacts=(
            ArtifactRow(id="onnx-fp32", format="onnx", precision="fp32", bytes=14_000_000, latency_ms=7.5, metric=0.794),
            ArtifactRow(
                id="onnx-int8",
                format="onnx",
                precision="int8",
                placement="cpu",
                bytes=3_500_000,
                latency_ms=3.0,
                metric=0.792,
                metric_fp32=0.794,
                drop=0.002,
                agreement=0.985,
                cosine=0.9961,
                max_abs=float("nan"),
                status="kept" if met else "dropped",
            ),
            ArtifactRow(id="onnx-fp16", format="onnx", precision="fp16", bytes=7_000_000, latency_ms=9.0,
                        status="dropped", reason="slower here than fp32"),
        ),
        layers=tuple(rows),
        ranges=tuple(activation(name) for name in names),
        worst=(picture(),) * pictures,
        samples=Samples("photos", 128, ("3 of 128 images are constant",)),
        trials=(Trial(0, 0.024), Trial(2, -0.001), Trial(1, 0.002)),
        pruning=(PruningRow("features.0", 32, 24),),
        steps=(Step("calibrate", 41.04),),
    )  # fmt: skip
