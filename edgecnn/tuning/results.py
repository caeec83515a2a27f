"""What tuning found: plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Tuning", "TuningRow"]


@dataclass(frozen=True, kw_only=True)
class TuningRow:
    """What was seen of one setting.

    Attributes:
        id, runtime, precision, compute: The artifact, what ran it, and the arithmetic of its float layers.
        threads: Of one inference; None where that is not the processor's work.
        streams, batch: Inferences side by side, and inputs of each.
        ms: Time for one input; of a model of windows, for all windows of a small picture.
        per_second: Inputs a second.
        ratio: Time over that of the best.
    """

    id: str
    runtime: str
    precision: str
    compute: str
    threads: int | None
    streams: int
    batch: int
    ms: float
    per_second: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `tune` found.

    Attributes:
        bundle: Its name.
        objective: ``latency`` or ``throughput``.
        created: When, in UTC.
        cpu, cores: The processor, and how many of its cores this process may use.
        rows: What was tried, the fastest first.
        best: The fastest in words.
        left_out: What could not be tried, and why.
        stored: The file that keeps the fastest for ``auto``.
    """

    bundle: str
    objective: str
    created: str
    cpu: str
    cores: int
    rows: tuple[TuningRow, ...]
    best: str
    left_out: dict[str, str]
    stored: str

    def to_json(self) -> dict[str, Any]:
        """Plain values by the names above."""
        return asdict(self)
