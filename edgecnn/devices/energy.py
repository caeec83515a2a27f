"""What a machine draws: RAPL's counters on x86, tegrastats on a Jetson."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import IO

from edgecnn.devices.system import read_text

__all__ = ["EnergyMeter", "Rapl", "Tegrastats", "find_meter", "rail_mw"]

INTERVAL_MS = 100
# the rail that feeds the whole board, where there is one
BOARD_RAILS = ("VDD_IN", "POM_5V_IN")
RAIL = re.compile(r"(\b[A-Z]\w*) (\d+)(?:mW)?/(\d+)(?:mW)?(?![\w(])")


class EnergyMeter(ABC):
    """Measures what is drawn between `start` and `stop`.

    Attributes:
        what: What it counts, in words.
    """

    what: str

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def stop(self) -> float | None:
        """Millijoules since `start`; None where nothing could be read."""


class Rapl(EnergyMeter):
    """Counters of the processor's packages; they wrap around."""

    what = "the processor's packages (RAPL), what idles included"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._begun: list[int | None] = []

    def start(self) -> None:
        """Begin."""
        self._begun = self._read()

    def stop(self) -> float | None:
        """Millijoules since `start`."""
        total = 0
        for zone, then, now in zip(self._zones, self._begun, self._read()):
            if then is None or now is None:
                return None
            wraps_at = _whole(zone / "max_energy_range_uj") or 0
            total += now - then if now >= then else now + wraps_at - then
        return total / 1e3

    def _read(self) -> list[int | None]:
        return [_whole(zone / "energy_uj") for zone in self._zones]


class Tegrastats(EnergyMeter):
    """Power of a Jetson as its own tool prints it every tenth of a second, times the time."""

    what = "the board (tegrastats), what idles included"

    def __init__(self, program: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._program = program
        self._clock = clock
        self._begun_s = 0.0
        self._printed: IO[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin."""
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open until stop)
        self._process = subprocess.Popen(
            [self._program, "--interval", str(INTERVAL_MS)],
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._begun_s = self._clock()

    def stop(self) -> float | None:
        """Millijoules since `start`."""
        assert self._process is not None
        assert self._printed is not None
        seconds = self._clock() - self._begun_s
        self._process.terminate()
        self._process.wait()
        with self._printed as printed:
            printed.seek(0)
            powers = [power for line in printed if (power := rail_mw(line)) is not None]
        return statistics.fmean(powers) * seconds if powers else None


def find_meter(root: Path = Path("/")) -> tuple[EnergyMeter | None, str]:
    """The meter of this machine, or None and the reason why there is none.

    Args:
        root: Where its files are; another folder in tests.
    """
    # packages only: what is inside of them would count twice
    zones = [
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if (read_text(zone / "name") or "").startswith("package")
    ]
    if zones:
        if all(_whole(zone / "energy_uj") is not None for zone in zones):
            return Rapl(zones), ""
        return None, f"{zones[0] / 'energy_uj'} is for root alone; try: sudo chmod a+r {zones[0]}/energy_uj"
    tool = shutil.which("tegrastats", path=str(root / "usr/bin"))
    if tool is not None:
        return Tegrastats(tool), ""
    return None, "this machine has neither RAPL nor tegrastats, as in most virtual machines"


def rail_mw(line: str) -> float | None:
    """Power of the board in mW in a line of tegrastats; None where it names no rail.

    Rails stand there as ``NAME now/average``, with or without ``mW``; memory has another unit. Without a rail
    for the whole board they are added up.
    """
    rails = {name: float(now) for name, now, _ in RAIL.findall(line)}
    board = [rails[name] for name in BOARD_RAILS if name in rails]
    return board[0] if board else sum(rails.values()) or None


def _whole(path: Path) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None
