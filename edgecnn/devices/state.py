"""How a machine does at this moment: clock, temperature, load, and whether anything holds it back."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgecnn.devices.system import read_text

__all__ = ["MachineState", "Others", "held_back", "machine_state"]

# bits of the firmware of a Raspberry Pi since it was switched on: low voltage, capped, throttled, hot
# https://www.raspberrypi.com/documentation/computers/os.html#vcgencmd
PI_FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI_SINCE_BOOT, PI_NOW = 0xF0000, 0xF
# sensors that are not connected report 0 or nonsense
PLAUSIBLE_C = (1.0, 150.0)
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, kw_only=True)
class MachineState:
    """What the system says of itself at one moment; None where it does not say.

    Attributes:
        clock_mhz: Mean over the processors.
        temperature_c: The hottest sensor.
        load: Processes that want to run, averaged over a minute.
        thermal_throttles: How often processors were slowed for heat or power since the start.
        cooling: Processors and GPUs are being slowed by the system now.
        quota_throttles: Periods in which the container had used up its share of the processors.
    """

    clock_mhz: float | None = None
    temperature_c: float | None = None
    load: float | None = None
    thermal_throttles: int | None = None
    cooling: bool | None = None
    quota_throttles: int | None = None


def machine_state(root: Path = Path("/")) -> MachineState:
    """Look at this machine now; never fails.

    Args:
        root: Where its files are; another folder in tests.
    """
    processors = root / "sys/devices/system/cpu"
    clocks = _numbers(processors.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    thermal = root / "sys/class/thermal"
    celsius = [milli / 1e3 for milli in _numbers(thermal.glob("thermal_zone*/temp"))]
    celsius = [value for value in celsius if PLAUSIBLE_C[0] < value < PLAUSIBLE_C[1]]
    throttles = _numbers(processors.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    flags = _hexadecimal(read_text(root / PI_FLAGS))
    if flags is not None:
        throttles.append((flags & PI_SINCE_BOOT).bit_count())
    cooled = [
        path
        for path in thermal.glob("cooling_device*")
        if re.search("cpu|gpu|processor", (read_text(path / "type") or "").lower())
    ]
    slowed = _numbers(path / "cur_state" for path in cooled)
    if flags is not None:
        slowed.append(flags & PI_NOW)
    quota = re.search(r"^nr_throttled (\d+)$", read_text(root / "sys/fs/cgroup/cpu.stat") or "", re.MULTILINE)
    load = (read_text(root / "proc/loadavg") or "").split()
    return MachineState(
        clock_mhz=round(sum(clocks) / len(clocks) / 1e3, 1) if clocks else None,
        temperature_c=max(celsius, default=None),
        load=float(load[0]) if load else None,
        thermal_throttles=sum(throttles) if throttles else None,
        cooling=any(slowed) if slowed or cooled else None,
        quota_throttles=int(quota[1]) if quota else None,
    )


def held_back(before: MachineState, after: MachineState) -> tuple[bool | None, str]:
    """Whether a machine was slowed between two moments, and by what; None where it does not tell."""
    reasons, told = [], False
    for name, what in (
        ("thermal_throttles", "slowed for heat or power"),
        ("quota_throttles", "stopped by the container's share of the processors"),
    ):
        then, now = getattr(before, name), getattr(after, name)
        if then is not None and now is not None:
            told = True
            reasons += [f"{what} {now - then} times"] * (now > then)
    if after.cooling is not None:
        told = True
        reasons += ["slowed by the system's cooling"] * (after.cooling or bool(before.cooling))
    if not told:
        return None, "this system has no counters of throttling"
    return bool(reasons), ", ".join(reasons)


class Others:
    """What other programs, and other guests of the same host, take of the processors from now on."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._begun = self._now()

    def share(self) -> float | None:
        """Their part of the time of the processors that this process may use; None where it is not told."""
        (busy, own, wall, count), begun = self._now(), self._begun
        if not count or wall <= begun[2]:
            return None
        theirs = (busy - begun[0]) - (own - begun[1])
        return round(min(max(theirs / ((wall - begun[2]) * count), 0.0), 1.0), 3)

    def _now(self) -> tuple[float, float, float, int]:
        """Busy seconds of the processors, those of this process, wall-clock seconds, number of processors."""
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        rows = re.findall(r"^cpu(\d+) (.+)$", read_text(self._root / "proc/stat") or "", re.MULTILINE)
        ticks = [[int(field) for field in fields.split()] for number, fields in rows if int(number) in usable]
        # user nice system idle iowait irq softirq steal, then guests, who are in user already: proc_stat(5)
        busy = sum(sum(fields[:3]) + sum(fields[5:8]) for fields in ticks)
        return busy / TICKS_A_SECOND, time.process_time(), time.monotonic(), len(ticks)


def _numbers(paths: Iterable[Path]) -> list[int]:
    """The whole numbers in small files, of those that hold one."""
    texts = [(read_text(path) or "").strip() for path in paths]
    return [int(text) for text in texts if re.fullmatch(r"-?\d+", text)]


def _hexadecimal(text: str | None) -> int | None:
    found = re.fullmatch(r"(0x)?([0-9a-fA-F]+)", (text or "").strip())
    return int(found[2], 16) if found else None
