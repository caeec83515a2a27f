"""What a report tells: small frozen values, filled by the conversion and read by the page.

Shares, metrics and drops are fractions (0.5 points are 0.005). None stands for what was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

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
]


@dataclass(frozen=True)
class Verdict:
    """Whether the budget was met (None: none was set), and one sentence with the figures that say so."""

    met: bool | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """One artifact that was made.

    Attributes:
        id, format, precision, placement: As in the manifest.
        bytes: Size of its files.
        latency_ms: Median for one input on the machine of the report.
        metric, metric_fp32: The report's metric of this artifact and of the float model.
        drop: ``metric_fp32 - metric``: above 0 is a loss.
        agreement, cosine, max_abs: As in the manifest's fidelity.
        status: ``dropped`` artifacts were tried and are not in the bundle.
        reason: Why it was kept or dropped.
    """

    id: str
    format: str
    precision: str
    placement: str | None = None
    bytes: int
    latency_ms: float | None = None
    metric: float | None = None
    metric_fp32: float | None = None
    drop: float | None = None
    agreement: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    status: Literal["kept", "dropped"] = "kept"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer that can be quantised, in network order.

    Attributes:
        name, op: As in the manifest's network.
        macs: Multiply-adds for one input.
        macs_share: Of all layers.
        precision: What it runs in.
        error: Relative error of the model's output when only this layer is int8.
        reason: Why it was kept in float.
    """

    name: str
    op: str
    macs: int
    macs_share: float
    precision: Literal["int8", "fp32"]
    error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Histogram:
    """Counts of values in neighbouring bins: bin ``i`` starts at ``start + i * width``."""

    counts: tuple[int, ...]
    start: float
    width: float

    @classmethod
    def coarse(cls, counts: Sequence[int], start: float, width: float, bins: int = 64) -> Histogram:
        """Merge neighbouring bins until there are at most ``bins``; the last may reach past the data."""
        merge = -(-len(counts) // bins)
        padded = np.pad(np.asarray(counts, np.int64), (0, -len(counts) % merge))
        return cls(tuple(padded.reshape(-1, merge).sum(1).tolist()), start, width * merge)

    def share_outside(self, low: float, high: float) -> float:
        """Share of the values that lie outside ``low..high``, taken as spread evenly in each bin."""
        counts = np.asarray(self.counts, np.float64)
        if not counts.sum() > 0 or not self.width > 0:
            return 0.0
        edges = self.start + self.width * np.arange(len(counts) + 1)
        inside = np.diff(np.clip(edges, low, high)) / self.width
        return max(0.0, 1.0 - float(counts @ inside / counts.sum()))


@dataclass(frozen=True, kw_only=True)
class RangeRow:
    """One activation that was quantised.

    Attributes:
        tensor: Its name in the graph.
        layer: The layer that makes it.
        low, high: Observed on the calibration inputs.
        clip_low, clip_high: The chosen range; values outside it saturate.
        method: How the range was chosen.
        histogram: The observed values.
    """

    tensor: str
    layer: str
    low: float
    high: float
    clip_low: float
    clip_high: float
    method: str
    histogram: Histogram | None = None

    @property
    def clipped(self) -> float | None:
        """Share of the observed values that saturate."""
        if self.histogram is None:
            return None
        if self.clip_low <= self.low and self.high <= self.clip_high:
            return 0.0  # coarse bins reach past what was observed
        return self.histogram.share_outside(self.clip_low, self.clip_high)


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstImage:
    """A calibration input that int8 sees differently.

    Attributes:
        image: uint8 (h, w, 3) BGR, any size.
        label_float, label_int8: What the two models make of it.
        difference: Largest absolute difference of the scores.
        name: File or frame it comes from.
    """

    image: npt.NDArray[np.uint8]
    label_float: str
    label_int8: str
    difference: float
    name: str = ""


@dataclass(frozen=True)
class Samples:
    """The calibration inputs: where they came from, how many, and what is doubtful about them."""

    source: str
    n: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One step of the budget search: so many layers in float, and the drop that was measured."""

    float_layers: int
    drop: float


@dataclass(frozen=True)
class PruningRow:
    """Output channels of one layer before and after pruning."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Step:
    """One step of the conversion and the time it took."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page; sections without data are left out.

    Attributes:
        title: Name of the bundle.
        created: When, as text.
        artifacts: The float model first; kept and dropped ones.
        model, task: What was converted.
        machine: The machine that measured latency.
        command: The command line that makes the same bundle.
        verdict: None where no gate was asked for.
        metric_name: What `ArtifactRow.metric` is: ``top-1``, ``AP50``, ``agreement with the float model``.
        max_drop: The accuracy budget.
        layers, ranges: In network order.
        worst: Worst first.
        samples, trials, pruning, steps: See their classes.
    """

    title: str
    created: str
    artifacts: tuple[ArtifactRow, ...]
    model: str = ""
    task: str = ""
    machine: str = ""
    command: str = ""
    verdict: Verdict | None = None
    metric_name: str = "metric"
    max_drop: float | None = None
    layers: tuple[LayerRow, ...] = ()
    ranges: tuple[RangeRow, ...] = ()
    worst: tuple[WorstImage, ...] = ()
    samples: Samples | None = None
    trials: tuple[Trial, ...] = ()
    pruning: tuple[PruningRow, ...] = ()
    steps: tuple[Step, ...] = ()
