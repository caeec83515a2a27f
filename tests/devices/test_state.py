"""Clock, temperature and throttling, read from files as the kernels write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecnn.devices import state
from edgecnn.devices.state import MachineState, Others, held_back, machine_state


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_machine_that_tells_all(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3000000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2000000\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
            "sys/class/thermal/thermal_zone0/temp": "61500\n",
            "sys/class/thermal/thermal_zone1/temp": "-274000\n",
            "sys/class/thermal/thermal_zone2/temp": "47000\n",
            "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
            "sys/class/thermal/cooling_device0/cur_state": "2\n",
            "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device1/cur_state": "5\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 8\nthrottled_usec 1\n",
            "proc/loadavg": "1.50 1.00 0.50 1/100 4242\n",
        },
    )
    assert machine_state(tmp_path) == MachineState(
        clock_mhz=2500.0,
        temperature_c=61.5,
        load=1.5,
        thermal_throttles=7,
        cooling=True,
        quota_throttles=8,
    )


def test_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert machine_state(tmp_path) == MachineState()


def test_raspberry_pi_counts_what_happened_since_it_was_switched_on(tmp_path: Path) -> None:
    """0x50005: low voltage and throttled, now and before."""
    write(tmp_path, {state.PI_FLAGS: "50005\n"})
    assert machine_state(tmp_path).thermal_throttles == 2


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (MachineState(), MachineState(), (None, "no counters")),
        (MachineState(thermal_throttles=3), MachineState(thermal_throttles=3), (False, "")),
        (
            MachineState(thermal_throttles=3),
            MachineState(thermal_throttles=5),
            (True, "heat or power 2 times"),
        ),
        (MachineState(quota_throttles=0), MachineState(quota_throttles=9), (True, "container's share")),
        (MachineState(cooling=False), MachineState(cooling=False), (False, "")),
        (MachineState(cooling=False), MachineState(cooling=True), (True, "cooling")),
    ],
)
def test_held_back(before: MachineState, after: MachineState, expected: tuple[bool | None, str]) -> None:
    slowed, reason = held_back(before, after)
    assert slowed is expected[0]
    assert expected[1] in reason


def test_others_are_what_is_busy_beside_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors for 10 s: 12 s busy, 5 of them stolen, 8 s of all by this process; another is not ours."""
    hz = os.sysconf("SC_CLK_TCK")
    clocks = {"process": 1.0, "wall": 100.0}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(state.time, "process_time", lambda: clocks["process"])
    monkeypatch.setattr(state.time, "monotonic", lambda: clocks["wall"])

    def stat(user: int, stolen: int) -> str:
        rows = [f"cpu0 {user * hz} 0 0 5 5 0 0 {stolen * hz} 0 0", "cpu1 0 0 0 9 9 0 0 0 0 0"]
        return "\n".join(["cpu 1 2 3", *rows, f"cpu2 {user * 9 * hz} 0 0 0 0 0 0 0 0 0", "intr 5"])

    write(tmp_path, {"proc/stat": stat(3, 1)})
    others = Others(tmp_path)
    write(tmp_path, {"proc/stat": stat(10, 6)})
    clocks.update(process=9.0, wall=110.0)
    assert others.share() == pytest.approx((12 - 8) / 20)


def test_others_are_not_known_without_proc(tmp_path: Path) -> None:
    assert Others(tmp_path).share() is None
