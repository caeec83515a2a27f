"""What a device profile says, and what is left to be built on the device itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgecnn.manifest import ArtifactEntry

__all__ = [
    "DeviceProfile",
    "JetsonSoftware",
    "Placement",
    "Precision",
    "Runs",
    "Source",
    "built_there",
    "engine_source",
]

Precision = Literal["fp32", "fp16", "int8"]
Placement = Literal["cpu", "tensorrt"]


@dataclass(frozen=True)
class Runs:
    """What one runtime can run on a device.

    Attributes:
        runtime: Its name in `edgecnn.runtimes`.
        precisions: Artifacts that pay there, the best first.
    """

    runtime: str
    precisions: tuple[Precision, ...]


@dataclass(frozen=True)
class Source:
    """Where a fact of a profile can be looked up."""

    fact: str
    title: str
    url: str


@dataclass(frozen=True, kw_only=True)
class JetsonSoftware:
    """The software of a Jetson, as ranges of versions.

    Attributes:
        jetpack, l4t, tensorrt, python: Oldest to newest, such as ``6.1–7.2``.
        opset: The newest ONNX opset that the parser of the oldest of these TensorRTs reads.
    """

    jetpack: str
    l4t: str
    tensorrt: str
    python: str
    opset: int


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """One device, or family of devices, to convert for.

    Attributes:
        name: As ``--device`` takes it.
        title: Its name in words.
        architecture: Of its processor, as ``platform.machine()`` says; None for any.
        runs: The runtimes to try, in this order, and what each can run.
        targets: What ``convert --target`` is there; the ONNX in fp32 that all is made from is always written.
        placement: Where its INT8 artifacts have their QuantizeLinear and DequantizeLinear.
        memory_mb: MiB of the smallest variant that was sold; None where it can be anything.
        compute_capabilities: Of its NVIDIA GPU. A Jetson builds its engine itself; for other GPUs ``convert``
            builds one for each.
        dla_cores: Deep-learning accelerators of the smallest variant.
        jetson: Its software; None where it is no Jetson.
        openvino_device: The device to ask OpenVINO for; None where it is not used.
        fixed_batch: The batch size that artifacts must have; None where it may vary.
        notes: What an integrator has to know.
        sources: Where the facts come from.
    """

    name: str
    title: str
    architecture: str | None
    runs: tuple[Runs, ...]
    targets: tuple[str, ...]
    placement: Placement = "cpu"
    memory_mb: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    dla_cores: int = 0
    jetson: JetsonSoftware | None = None
    openvino_device: str | None = None
    fixed_batch: int | None = None
    notes: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes to try, in this order."""
        return tuple(entry.runtime for entry in self.runs)

    @property
    def default_precision(self) -> Precision:
        """The precision that pays most with the runtime that is tried first."""
        return self.runs[0].precisions[0]

    @property
    def opset(self) -> int | None:
        """The newest ONNX opset that all its runtimes read; None where nothing limits it."""
        return self.jetson.opset if self.jetson and "tensorrt" in self.runtimes else None

    def precisions(self, runtime: str) -> tuple[Precision, ...]:
        """What a runtime can run there, the best first; empty where it is not among the runtimes."""
        return next((entry.precisions for entry in self.runs if entry.runtime == runtime), ())


def built_there(profile: DeviceProfile, artifacts: Sequence[ArtifactEntry]) -> tuple[str, ...]:
    """What a device makes of a bundle's artifacts when it first loads them, one sentence each.

    Args:
        profile: The device.
        artifacts: What the bundle holds, as its manifest lists it.
    """
    found = []
    if "tensorrt" in profile.runtimes:
        source = engine_source(artifacts)
        if source is not None:
            engines = [entry for entry in artifacts if entry.format == "tensorrt"]
            found.append(_engine_sentence(profile, source, engines))
    if profile.openvino_device is not None and profile.openvino_device != "CPU":
        found += [
            f"{entry.path} is compiled by OpenVINO for {profile.openvino_device} on first use "
            "and kept in the cache"
            for entry in artifacts
            if entry.format == "openvino"
        ]
    return tuple(found)


def engine_source(artifacts: Sequence[ArtifactEntry]) -> ArtifactEntry | None:
    """The ONNX artifact that TensorRT makes its engine of: the smallest, INT8 only where it is placed for it.

    Args:
        artifacts: What the bundle holds, as its manifest lists it.
    """
    in_onnx = {
        entry.precision: entry
        for entry in artifacts
        if entry.format == "onnx" and entry.placement in (None, "tensorrt")
    }
    return in_onnx.get("int8") or in_onnx.get("fp16") or in_onnx.get("fp32")


def _engine_sentence(profile: DeviceProfile, source: ArtifactEntry, engines: Sequence[ArtifactEntry]) -> str:
    engine = f"TensorRT engine {source.precision} from {source.path}"
    cost = "on first use, which can take minutes, and kept in the cache"
    if profile.jetson is not None:
        return f"{engine}, by the device's TensorRT ({profile.jetson.tensorrt}) {cost}"
    if not engines:
        return f"{engine} {cost}"
    capabilities = ", ".join(entry.requires["compute_capability"] for entry in engines)
    return f"{engine}, {cost}, where the GPU has another compute capability than {capabilities}"
