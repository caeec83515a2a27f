"""Settings to try: where to begin, and which are next to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate
from edgecnn.choices import Objective, setting_text

__all__ = ["Grid", "Setting"]


@dataclass(frozen=True)
class Setting:
    """One way to run a bundle.

    Attributes:
        candidate: The artifact and its engine.
        threads: Of one inference; None where that is not the processor's work.
        streams: Inferences side by side.
        batch: Inputs of one inference.
    """

    candidate: Candidate
    threads: int | None
    streams: int
    batch: int

    def __str__(self) -> str:
        return f"{self.candidate}, {setting_text(self.threads, self.streams, self.batch)}"


@dataclass(frozen=True)
class Grid:
    """All settings of a candidate.

    Attributes:
        objective: For ``latency`` threads vary; for ``throughput`` streams and batches as well.
        processors: How many to use at most; more streams than that, up to twice as many, fill the gaps.
        batches: Inputs of one inference, in ascending order.
    """

    objective: Objective
    processors: int
    batches: tuple[int, ...]

    @classmethod
    def of(cls, bundle: Bundle, objective: Objective, processors: int) -> Grid:
        """The grid of a bundle: powers of two within its batches, or the batch that it is fixed to."""
        spec, size = bundle.manifest.spec, bundle.manifest.inputs[0].shape[0]
        largest = spec.batch_range[-1] if spec.window is None and objective == "throughput" else 1
        powers = tuple(1 << i for i in range(largest.bit_length()))
        batches = (size,) if isinstance(size, int) else powers
        return cls(objective, processors, batches)

    def starts(self, candidate: Candidate, *, on_processor: bool) -> list[Setting]:
        """One or two settings that tell what a candidate can do."""
        batch = self.batches[0]
        if not on_processor:
            return [Setting(candidate, None, 1, batch)]
        if self.objective == "throughput":
            return [Setting(candidate, 1, self.processors, batch)]
        return [Setting(candidate, count, 1, batch) for count in dict.fromkeys((self.processors, 1))]

    def neighbours(self, setting: Setting) -> Iterator[Setting]:
        """Settings that differ in one step: half or twice of one number, or one number for another."""
        batch = self.batches.index(setting.batch)
        for index in (batch - 1, batch + 1):
            if 0 <= index < len(self.batches):
                yield replace(setting, batch=self.batches[index])
        if setting.threads is None:
            return
        fewer, more = max(setting.threads // 2, 1), setting.threads * 2
        if self.objective == "latency":
            yield replace(setting, threads=fewer)
            yield replace(setting, threads=min(more, self.processors))
            return
        half, twice = max(setting.streams // 2, 1), setting.streams * 2
        for threads, streams in (
            (more, half),
            (fewer, twice),
            (setting.threads, half),
            (setting.threads, twice),
        ):
            if threads <= self.processors and threads * streams <= 2 * self.processors:
                yield replace(setting, threads=threads, streams=streams)
