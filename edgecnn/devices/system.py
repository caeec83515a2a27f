"""Files and tools of a machine that may be there or not, and what they say of its processor and memory."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cpu", "board_name", "find_cpu", "has_room", "memory_mb", "read_text", "tool_output"]

TOOL_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/bin")
TOOL_SECONDS = 2.0
# of the machine's memory, which has to stay free
FREE_SHARE = 0.1

# what makes INT8 and bfloat16 fast: as Linux names them, x86 and Arm
INSTRUCTIONS = (
    "avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16"
)  # fmt: skip

# an Arm kernel gives the numbers of Arm's designs, not their names: here the most common ones
ARM_CORES = {
    "0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE",
    "0xd83": "Neoverse-V3AE",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The processor.

    Attributes:
        model: Its name in words.
        architecture: Such as ``x86_64`` or ``aarch64``.
        cores: Logical processors of the machine.
        usable_cores: Those this process may run on.
        instructions: Of those that speed up INT8 and bfloat16, the ones it has, as Linux names them.
        governor: How its clock is set, such as ``performance``; None where the system does not say.
        clocks_locked: Every core runs at one fixed frequency; None where the system does not say.
    """

    model: str
    architecture: str
    cores: int
    usable_cores: int
    instructions: tuple[str, ...]
    governor: str | None
    clocks_locked: bool | None


def find_cpu(root: Path = Path("/")) -> Cpu:
    """The processor of this machine.

    Args:
        root: Where its files are; another folder in tests.
    """
    info = [
        (key.strip(), value.strip())
        for key, colon, value in (
            line.partition(":") for line in (read_text(root / "proc/cpuinfo") or "").splitlines()
        )
        if colon
    ]
    # x86 calls them flags, Arm Features
    flags = {flag for key, value in info if key in ("flags", "Features") for flag in value.split()}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    clocks = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    limits = [(read_text(c / "scaling_min_freq"), read_text(c / "scaling_max_freq")) for c in clocks]
    return Cpu(
        model=_model(info, root),
        architecture=platform.machine(),
        cores=sum(key == "processor" for key, _ in info) or os.cpu_count() or 1,
        usable_cores=usable,
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        governor=(read_text(clocks[0] / "scaling_governor") or "").strip() or None if clocks else None,
        clocks_locked=all(low is not None and low == high for low, high in limits) if limits else None,
    )


def _model(info: list[tuple[str, str]], root: Path) -> str:
    fields = dict(reversed(info))  # those of the first core
    if fields.get("CPU implementer") == "0x41" and fields.get("CPU part") in ARM_CORES:
        return ARM_CORES[fields["CPU part"]]
    return fields.get("model name") or board_name(root) or platform.processor() or "unknown"


def board_name(root: Path = Path("/")) -> str | None:
    """The board as its device tree names it; None where there is none, as on PCs and in most containers."""
    return (read_text(root / "proc/device-tree/model") or "").strip("\0\n ") or None


def memory_mb(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Total and free memory in MiB, within the limit of the container; None where the system does not say."""
    found = re.findall(r"^(\w+): +(\d+) kB$", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    sizes = {key: int(size) // 1024 for key, size in found}
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    limit = (read_text(root / "sys/fs/cgroup/memory.max") or "").strip()
    used = (read_text(root / "sys/fs/cgroup/memory.current") or "").strip()
    if total and free and limit.isdecimal() and used.isdecimal():
        cap = int(limit) // 2**20
        free = max(min(free, cap - int(used) // 2**20), 0)
        total = min(total, cap)
    return total, free


def has_room(root: Path = Path("/")) -> bool:
    """Whether memory is left for another model beside those that are open."""
    total, free = memory_mb(root)
    return total is None or free is None or free > FREE_SHARE * total


def read_text(path: Path) -> str | None:
    """What a small file holds; None where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def tool_output(root: Path, name: str, *arguments: str) -> str | None:
    """What a system tool prints; None where it is missing, fails, or takes more than two seconds."""
    folders = os.pathsep.join(str(root / folder) for folder in TOOL_FOLDERS)
    program = shutil.which(name, path=folders)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
