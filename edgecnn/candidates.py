"""The ways to run a bundle here: which engines there are, what each loads, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgecnn import devices
from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, Unavailable
from edgecnn.loading import artifact_for
from edgecnn.manifest import ArtifactEntry
from edgecnn.runtimes import Runtime, RuntimeOptions, backend, known

__all__ = [
    "Candidate",
    "engines_here",
    "find_candidates",
    "in_lower_arithmetic",
    "intel_target",
    "options_for",
]


@dataclass(frozen=True)
class Candidate:
    """One way to run a bundle here.

    Attributes:
        runtime: What loads it.
        entry: The artifact.
        compute: Arithmetic of its float layers, see `RuntimeOptions`.
    """

    runtime: type[Runtime]
    entry: ArtifactEntry
    compute: str = "f32"

    def __str__(self) -> str:
        lower = "" if self.compute == "f32" else f" in {self.compute}"
        return f"{self.entry.id} on {self.runtime.name}{lower}"


def engines_here(profile: devices.DeviceProfile | None) -> tuple[list[type[Runtime]], list[str]]:
    """Engines that this machine can use, in the order of the device, and why not the others."""
    usable, reasons = [], []
    for name in profile.runtimes if profile is not None else known():
        kind = backend(name)
        if not kind.is_engine:
            continue
        try:
            kind.check_here()
        except Unavailable as error:
            reasons.append(f"{name}: {error}")
        else:
            usable.append(kind)
    return usable, reasons


def find_candidates(
    bundle: Bundle,
    engines: Sequence[type[Runtime]],
    precisions: Sequence[str] = ("auto",),
    profile: devices.DeviceProfile | None = None,
) -> tuple[tuple[Candidate, ...], list[str]]:
    """What each engine takes of a bundle, GPUs first, and why others take nothing.

    Args:
        bundle: The bundle.
        engines: Those that can be used.
        precisions: An engine takes one artifact of each; ``auto`` is the one that it runs best.
        profile: The device, where it is not the processor.
    """
    found: list[Candidate] = []
    reasons = []
    for kind in engines:
        order = profile.precisions(kind.name) if profile is not None else ()
        for precision in precisions:
            try:
                entry = artifact_for(bundle, kind, precision, order)
            except BundleError as error:
                reasons.append(f"{kind.name}: {error}")
                continue
            found += [Candidate(kind, entry), *in_lower_arithmetic(bundle, kind, precision)]
    return tuple(sorted(found, key=lambda candidate: not candidate.runtime.builds_from)), reasons


def in_lower_arithmetic(bundle: Bundle, kind: type[Runtime], precision: str) -> list[Candidate]:
    """Float artifacts whose accuracy held in arithmetic below float32 that this machine has."""
    if len(kind.computes()) == 1:
        return []
    entries = {entry.id: entry for entry in bundle.manifest.artifacts if entry.format in kind.formats}
    return [
        Candidate(kind, entries[row.id], row.compute)
        for row in bundle.manifest.fidelity
        if row.compute != "f32" and row.compute in kind.computes() and row.runtime == kind.name
        if row.id in entries and precision in ("auto", entries[row.id].precision)
    ]


def intel_target(bundle: Bundle) -> devices.DeviceProfile | None:
    """The profile that a bundle was converted for, where that is an Intel GPU or NPU of this machine."""
    target = bundle.manifest.device
    if target is None or not target.profile.startswith("intel-"):
        return None
    profile = devices.profile(target.profile)
    return profile if profile.openvino_device in devices.this_device().intel else None


def options_for(
    candidate: Candidate,
    threads: int | None,
    profile: devices.DeviceProfile | None,
    *,
    mode: Literal["latency", "throughput"] = "latency",
    streams: int | None = None,
) -> RuntimeOptions:
    """How a candidate is opened here; streams are for throughput, and go with threads of the processor."""
    device, compute = "auto", candidate.compute
    if profile is not None and profile.openvino_device and candidate.runtime.name == "openvino":
        device = profile.openvino_device.lower()
        # an NPU has nothing else, and a GPU is given fp16 for the speed of it
        if device == "npu" or (device == "gpu" and candidate.entry.precision != "fp32"):
            compute = "f16"
    return RuntimeOptions(
        threads=threads,
        device=device,
        mode=mode,
        streams=streams if mode == "throughput" and threads is not None else None,
        compute=compute,  # type: ignore[arg-type]
    )
