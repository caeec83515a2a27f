"""What a benchmark found: plain values that travel as JSON between machines and back.

Times are in ms of wall-clock time, sizes in units of 10⁶ bytes where they end in ``_mb``. None stands for
what was not measured; the reason is beside it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgecnn.devices.state import MachineState

__all__ = ["STAGES", "Benchmark", "Histogram", "LeftOut", "Machine", "Mode", "Row", "Timed", "row_name"]

Mode = Literal["latency", "throughput"]

# parts of a call: reading a frame, which is not in the latency; frame to input; the engine; outputs to
# results; suppression of overlapping boxes
STAGES = ("read", "geometry", "infer", "decode", "nms")


def row_name(artifact: str, runtime: str, compute: str, mode: Mode, streams: int) -> str:
    """A row in words: arithmetic is named where it is lower than float32, streams for throughput."""
    name = f"{artifact} on {runtime}" + ("" if compute == "f32" else f" in {compute}")
    return f"{name}, {streams} stream{'s' * (streams > 1)}" if mode == "throughput" else name


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured.

    Attributes:
        cpu: The processor's name.
        cores: Processors that this process may use.
        governor: How the clock is set; None where the system does not say.
        clocks_locked: Every processor runs at one fixed frequency.
        ram_mb: Memory in MiB, within a container's limit.
        gpu: An NVIDIA GPU's name.
        jetpack: Version of JetPack on a Jetson.
        power_mode: As ``nvpmodel`` names it on a Jetson.
        system: The operating system.
        versions: Of edgecnn, Python and what computes.
        before, after: The state at both ends.
        yardstick_ms: Medians over consecutive parts of the measurement of a fixed computation that had its
            turn in every round: how fast the machine was, whatever it ran.
        others_share: Part of the processors' time that other programs took meanwhile.
        throttled: Something slowed the machine meanwhile; None where the system does not tell.
        throttled_reason: What did, or why it is not known.
    """

    cpu: str
    cores: int
    governor: str | None
    clocks_locked: bool | None
    ram_mb: int | None
    gpu: str | None
    jetpack: str | None
    power_mode: str | None
    system: str
    versions: dict[str, str]
    before: MachineState
    after: MachineState
    yardstick_ms: tuple[float, ...]
    others_share: float | None
    throttled: bool | None
    throttled_reason: str


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was timed.

    Attributes:
        bundle: Its name.
        task: What it does.
        source: Where the frames came from, in words.
        generated: They were made up.
        frames: How many; every row saw all of them, in the same order.
        sizes_wh: Their sizes.
        what: One call, in words.
    """

    bundle: str
    task: str
    source: str
    generated: bool
    frames: int
    sizes_wh: tuple[tuple[int, int], ...]
    what: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of calls: bin ``i`` starts at ``start_ms + i * width_ms``; the last has all that took longer."""

    start_ms: float
    width_ms: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact on one engine.

    Attributes:
        id, runtime, precision: The artifact, and what ran it.
        compute: Arithmetic of its float layers.
        dense: All windows of a frame are scored at once.
        mode: ``latency``: one frame after the other; ``throughput``: ``streams`` frames at a time, each in a
            thread of its own, on an engine that was opened for that.
        threads: Threads of one inference.
        streams, batch: Frames that are under way at once, and in one call.
        n: Calls that were timed.
        p50_ms, p90_ms, p95_ms, p99_ms, mean_ms: Latency of a call, beside those that are under way with it.
        fps: Frames a second; where they come one after the other 1000 / mean_ms.
        ratio, ratio_low, ratio_high: Median over the rounds of this row's time for a frame over that of the
            best row of its mode in the same round, and its interval of 95 %.
        blocks_ms: Time for a frame, medians of consecutive rounds; how they differ is the noise of the
            machine.
        histogram: All calls.
        warm_calls: Calls before that were not counted.
        settled: The latency was stable when counting began.
        rss_mb: Most memory that a fresh process with this row alone held.
        first_result_ms: From just before that process is started to its first result, its files being in the
            disk's cache.
        first_result_reason: Why these two are missing.
        energy_mj: Energy of one call, of all that ``Benchmark.energy`` names.
        size_bytes: The files it is loaded from.
        metric: Accuracy from the bundle, of the kind that `Benchmark.metric` names.
        stages_ms: Median of each part of a call by `STAGES`, None where a model has no such part; they need
            not add up to the median of the whole.
    """

    id: str
    runtime: str
    precision: str
    compute: str
    dense: bool
    mode: Mode = "latency"
    threads: int
    streams: int = 1
    batch: int = 1
    n: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    fps: float
    ratio: float
    ratio_low: float
    ratio_high: float
    blocks_ms: tuple[float, ...]
    histogram: Histogram
    warm_calls: int
    settled: bool
    rss_mb: float | None = None
    first_result_ms: float | None = None
    first_result_reason: str = ""
    energy_mj: float | None = None
    size_bytes: int
    metric: float | None
    stages_ms: dict[str, float | None]

    @property
    def name(self) -> str:
        """See `row_name`."""
        return row_name(self.id, self.runtime, self.compute, self.mode, self.streams)


@dataclass(frozen=True)
class LeftOut:
    """What could not be run here, and why."""

    id: str
    runtime: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a benchmark found.

    Attributes:
        created: When, in UTC.
        machine: Where.
        timed: What.
        rows: One for each artifact on each engine and mode: those of latency before those of throughput, of
            each the fastest first.
        best: Name of the first row.
        metric: What the rows' accuracy is: ``top1``, ``ap50``, or ``agreement`` with the float model.
        energy: What the energy is of; else why there is none.
        left_out: What could not be run here.
        interrupted: It was ended before its time.
    """

    created: str
    machine: Machine
    timed: Timed
    rows: tuple[Row, ...]
    best: str
    metric: str
    energy: str
    left_out: tuple[LeftOut, ...] = ()
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values by the names above."""
        return asdict(self)
