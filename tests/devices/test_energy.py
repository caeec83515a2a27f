"""Energy from counters that wrap and from lines as tegrastats prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.devices.energy import Rapl, Tegrastats, find_meter, rail_mw

ORIN = (
    "RAM 2345/7620MB (lfb 4x2MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,off] EMC_FREQ 0% GR3D_FREQ 10%@1000 "
    "cpu@47.4C VDD_IN 5038mW/5001mW VDD_CPU_GPU_CV 480mW/470mW VDD_SOC 1440mW/1440mW"
)
NANO = "RAM 1/3964MB IRAM 0/252kB(lfb 252kB) POM_5V_IN 2532/2500 POM_5V_GPU 40/40 POM_5V_CPU 405/405"
XAVIER = "RAM 1/3964MB GPU 100/90 CPU 311/300 SOC 932/932 CV 0/0 VDDRQ 155/155 SYS5V 1446/1446"


@pytest.mark.parametrize(
    ("line", "power"),
    [(ORIN, 5038.0), (NANO, 2532.0), (XAVIER, 100 + 311 + 932 + 155 + 1446.0), ("RAM 1/2MB", None)],
)
def test_power_of_a_line(line: str, power: float | None) -> None:
    assert rail_mw(line) == power


def zone(root: Path, number: int, name: str, energy: int) -> Path:
    folder = root / f"sys/class/powercap/intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    return folder


def test_rapl_adds_packages_and_counts_over_the_end(tmp_path: Path) -> None:
    zone(tmp_path, 0, "package-0", 100_000)
    zone(tmp_path, 1, "package-1", 990_000)
    zone(tmp_path, 2, "psys", 0)
    meter, reason = find_meter(tmp_path)
    assert isinstance(meter, Rapl)
    assert reason == ""
    meter.start()
    zone(tmp_path, 0, "package-0", 350_000)
    zone(tmp_path, 1, "package-1", 10_000)
    zone(tmp_path, 2, "psys", 900_000)
    assert meter.stop() == pytest.approx(250 + 20)


def test_rapl_that_cannot_be_read_says_how(tmp_path: Path) -> None:
    (zone(tmp_path, 0, "package-0", 1) / "energy_uj").unlink()
    meter, reason = find_meter(tmp_path)
    assert meter is None
    assert "sudo chmod a+r" in reason


def test_machine_without_meters_says_so(tmp_path: Path) -> None:
    meter, reason = find_meter(tmp_path)
    assert meter is None
    assert "neither RAPL nor tegrastats" in reason


def test_tegrastats_is_mean_power_times_seconds(tmp_path: Path) -> None:
    tool = tmp_path / "usr/bin/tegrastats"
    tool.parent.mkdir(parents=True)
    done = tmp_path / "done"
    tool.write_text(
        f"#!/bin/sh\necho VDD_IN 4000mW/1mW\necho VDD_IN 6000mW/1mW\ntouch {done}\nexec sleep 60\n"
    )
    tool.chmod(0o755)
    found, _ = find_meter(tmp_path)
    assert isinstance(found, Tegrastats)
    times = iter([10.0, 13.0])
    meter = Tegrastats(str(tool), clock=lambda: next(times))
    meter.start()
    while not done.exists():
        pass
    assert meter.stop() == pytest.approx(5000 * 3)
