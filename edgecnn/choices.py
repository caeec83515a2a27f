"""What was measured of a bundle on this machine, kept in the user's cache: times, and what tune found.

A file's name is made of all that its figures depend on, so that what has changed is not found again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate
from edgecnn.devices.system import find_cpu
from edgecnn.paths import cache_dir, make_private, replace_file
from edgecnn.runtimes import Runtime

__all__ = [
    "Objective",
    "Tuned",
    "recall_times",
    "recall_tuned",
    "remember_times",
    "setting_text",
    "times_path",
    "tuned_path",
]

log = logging.getLogger(__name__)

Objective = Literal["latency", "throughput"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting that `edgecnn.tune` found to be the best.

    Attributes:
        candidate: The artifact on its engine, in words.
        threads: Of one inference; None where the engine runs on another device than the processor.
        streams: Inferences side by side.
        batch: Inputs of one inference.
        ms: Time for one input.
        settings: How many were tried.
        created: When, in UTC.
    """

    candidate: str
    threads: Count | None
    streams: Count
    batch: Count
    ms: Annotated[float, msgspec.Meta(gt=0)]
    settings: int
    created: str

    def __str__(self) -> str:
        setting = setting_text(self.threads, self.streams, self.batch)
        return f"{setting}: {self.ms:.2f} ms, the best of {self.settings} settings"


def setting_text(threads: int | None, streams: int, batch: int) -> str:
    """A setting in words, such as ``2 streams of 1 thread, batches of 4``."""
    of = "the device" if threads is None else "1 thread" if threads == 1 else f"{threads} threads"
    return (f"{streams} streams of {of}" if streams > 1 else of) + (
        f", batches of {batch}" if batch > 1 else ""
    )


def tuned_path(bundle: Bundle, engines: Sequence[type[Runtime]], objective: str, device: str) -> Path:
    """Where the setting for an objective is kept.

    Args:
        bundle: The bundle.
        engines: All that this machine can use.
        objective: What it is the best for.
        device: The profile whose engines these are; empty where that is any.
    """
    return _path("tuned", bundle, engines, [objective, device])


def recall_tuned(path: Path, candidates: Iterable[Candidate]) -> tuple[Candidate, Tuned] | None:
    """The setting that is kept there; None where there is none, or none of these candidates."""
    try:
        tuned = msgspec.json.decode(path.read_bytes(), type=Tuned)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return next(((each, tuned) for each in candidates if str(each) == tuned.candidate), None)


def times_path(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    devices: Iterable[str],
    threads: int | None,
    *,
    dense: bool,
) -> Path:
    """Where the times of candidates, each on its device, are kept."""
    parts = [str(threads), str(dense), *map(str, candidates), *devices]
    return _path("choices", bundle, [candidate.runtime for candidate in candidates], parts)


def recall_times(path: Path, candidates: Sequence[Candidate]) -> dict[str, float | None] | None:
    """The times that are kept; None where there are none, or not of these candidates."""
    try:
        tried = msgspec.json.decode(path.read_bytes(), type=dict[str, float | None])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    of_these = set(tried) == {str(candidate) for candidate in candidates} and any(tried.values())
    return tried if of_these and all(ms is None or ms > 0 for ms in tried.values()) else None


def remember_times(path: Path, times: dict[str, float | None]) -> None:
    """Keep times where that is possible."""
    try:
        make_private(path.parent)
        replace_file(path, msgspec.json.encode(times))
    except OSError as error:
        log.info("%s: cannot be written (%s), so the next start measures again", path.parent, error.strerror)


def _path(folder: str, bundle: Bundle, engines: Iterable[type[Runtime]], more: Iterable[str]) -> Path:
    cpu = find_cpu()
    versions = sorted({f"{kind.name} {kind.version()}" for kind in engines})
    files = [bundle.file(path).sha256 for entry in bundle.manifest.artifacts for path in entry.paths]
    parts = [cpu.model, str(cpu.usable_cores), *more, *versions, *files]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return cache_dir() / folder / f"{name}.json"
