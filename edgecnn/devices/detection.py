"""What this machine has, and the profile that fits it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgecnn.devices.catalog import profile
from edgecnn.devices.jetson import Jetson, find_jetson
from edgecnn.devices.profiles import DeviceProfile
from edgecnn.devices.system import Cpu, board_name, find_cpu, memory_mb, read_text, tool_output

__all__ = ["Detected", "NvidiaGpu", "best_profile", "is_here", "this_device"]

INTEL = "0x8086"
# Turing: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
OLDEST_CAPABILITY = 7.5
# nvidia-smi writes [N/A] for what it does not know
VERSION = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, kw_only=True)
class NvidiaGpu:
    """An NVIDIA GPU; what the driver does not tell is None.

    Attributes:
        name: Such as ``NVIDIA GeForce RTX 4070``.
        compute_capability: Such as ``8.9``.
        memory_mb: Its own memory in MiB.
        driver: Version of the driver.
    """

    name: str
    compute_capability: str | None = None
    memory_mb: int | None = None
    driver: str | None = None


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What a machine has.

    Attributes:
        cpu: Its processor.
        memory_mb, free_memory_mb: MiB, within a container's limit; None where the system does not say.
        nvidia: Its NVIDIA GPUs.
        intel: OpenVINO's names of its Intel devices beside the processor: ``GPU``, ``NPU``.
        jetson: What is known of the Jetson it is; None where it is none.
        board: The board's name where the device tree has one.
    """

    cpu: Cpu
    memory_mb: int | None
    free_memory_mb: int | None
    nvidia: tuple[NvidiaGpu, ...]
    intel: tuple[str, ...]
    jetson: Jetson | None
    board: str | None


def this_device(root: Path = Path("/")) -> Detected:
    """Look at this machine; never fails, and imports no engine.

    Args:
        root: Where its files and tools are; another folder in tests.
    """
    total, free = memory_mb(root)
    return Detected(
        cpu=find_cpu(root),
        memory_mb=total,
        free_memory_mb=free,
        nvidia=_nvidia(root),
        intel=_intel(root),
        jetson=find_jetson(root),
        board=board_name(root),
    )


def best_profile(detected: Detected) -> DeviceProfile:
    """The most special profile that fits a machine."""
    return profile(_profile_name(detected))


def is_here(profile: DeviceProfile, detected: Detected) -> bool:
    """Whether what is timed on a machine says something of a device."""
    best, cpu = best_profile(detected), detected.cpu.architecture
    general = profile.name in ("cpu", "x86", "arm64") and profile.architecture in (None, cpu)
    return general or profile.name == best.name


def _profile_name(detected: Detected) -> str:
    if detected.jetson is not None and detected.jetson.profile is not None:
        return detected.jetson.profile
    if "Raspberry Pi 5" in (detected.board or ""):
        return "raspberry-pi-5"
    if detected.cpu.architecture == "x86_64":
        if any(_is_rtx(gpu) for gpu in detected.nvidia):
            return "rtx"
        return f"intel-{detected.intel[0].lower()}" if detected.intel else "x86"
    return "arm64" if detected.cpu.architecture in ("aarch64", "arm64") else "cpu"


def _is_rtx(gpu: NvidiaGpu) -> bool:
    """Of a generation that today's TensorRT builds engines for, or of one that the driver does not tell."""
    return gpu.compute_capability is None or float(gpu.compute_capability) >= OLDEST_CAPABILITY


def _nvidia(root: Path) -> tuple[NvidiaGpu, ...]:
    fields = "name,compute_cap,memory.total,driver_version"
    text = tool_output(root, "nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    found = [[field.strip() for field in line.split(",")] for line in (text or "").splitlines()]
    gpus = tuple(
        NvidiaGpu(
            name=name,
            compute_capability=capability if VERSION.fullmatch(capability) else None,
            memory_mb=int(memory) if memory.isdecimal() else None,
            driver=driver if VERSION.match(driver) else None,
        )
        for name, capability, memory, driver in (row for row in found if len(row) == 4)
    )
    if gpus:
        return gpus
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line.partition(":") for path in files for line in (read_text(path) or "").splitlines()]
    return tuple(NvidiaGpu(name=value.strip()) for key, _, value in lines if key.strip() == "Model")


def _intel(root: Path) -> tuple[str, ...]:
    classes = {
        "GPU": ("dev/dri", "renderD*", "sys/class/drm"),
        "NPU": ("dev/accel", "accel*", "sys/class/accel"),
    }
    return tuple(
        name
        for name, (folder, pattern, drivers) in classes.items()
        if _any_intel(root / drivers / node.name for node in (root / folder).glob(pattern))
    )


def _any_intel(devices: Iterable[Path]) -> bool:
    return any((read_text(device / "device/vendor") or "").strip() == INTEL for device in devices)
