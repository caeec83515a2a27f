from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgecnn.devices import best_profile, this_device
from edgecnn.devices.detection import Detected, NvidiaGpu
from edgecnn.devices.system import find_cpu, has_room, memory_mb
from tests.devices.machines import INTEL_CPUINFO, MEMINFO, RASPBERRY_CPUINFO, orin_nano, put, tool


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_this_machine_is_described() -> None:
    found = this_device()
    assert found.cpu.model
    assert 1 <= found.cpu.usable_cores <= found.cpu.cores
    assert found.memory_mb is None or 0 <= (found.free_memory_mb or 0) <= found.memory_mb
    assert best_profile(found).architecture in (None, found.cpu.architecture)


def test_an_empty_machine_is_no_error(tmp_path: Path) -> None:
    found = this_device(tmp_path)
    assert (found.memory_mb, found.nvidia, found.intel, found.jetson, found.board) == (
        None,
        (),
        (),
        None,
        None,
    )
    assert found.cpu.instructions == ()
    assert (found.cpu.governor, found.cpu.clocks_locked) == (None, None)


@pytest.mark.parametrize(
    "text", ["", "\0", "processor\n: :\n", "MemTotal: much kB\nMemAvailable: ² kB\n", "\x1b[31m, , ,"]
)
def test_files_with_nonsense_are_no_error(tmp_path: Path, text: str) -> None:
    for name in (
        "proc/cpuinfo", "proc/meminfo", "proc/device-tree/model", "proc/device-tree/compatible", "etc/nv_tegra_release",
        "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "proc/driver/nvidia/gpus/0/information",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "dev/dri/renderD128",
        "sys/class/drm/renderD128/device/vendor",
    ):  # fmt: skip
        put(tmp_path, name, text)
    put(tmp_path, "nonsense", text)
    tool(tmp_path, "nvidia-smi", f"cat {tmp_path}/nonsense")
    found = this_device(tmp_path)
    assert (found.memory_mb, found.intel, found.jetson) == (None, (), None)


def test_a_processor_that_arm_did_not_design_goes_by_its_board(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x4e\nCPU part\t: 0x004\n")
    put(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Xavier NX Developer Kit\0")
    assert find_cpu(tmp_path).model == "NVIDIA Jetson Xavier NX Developer Kit"


def test_looking_imports_no_engine() -> None:
    code = "import edgecnn.devices as d, sys; d.this_device(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()).isdisjoint(
        {"openvino", "onnxruntime", "torch", "cv2", "tensorrt", "onnx"}
    )


def test_intel_cpu(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", INTEL_CPUINFO)
    cpu = find_cpu(tmp_path)
    assert (cpu.model, cpu.cores) == ("Intel(R) Core(TM) Ultra 7 155H", 2)
    assert cpu.instructions == ("avx2", "avx_vnni")


def test_raspberry_pi_5(tmp_path: Path, arm: None) -> None:
    put(tmp_path, "proc/cpuinfo", RASPBERRY_CPUINFO)
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    found = this_device(tmp_path)
    assert (found.cpu.model, found.board) == ("Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0")
    assert found.cpu.instructions == ("asimddp",)
    assert best_profile(found).name == "raspberry-pi-5"


@pytest.mark.parametrize(("lowest", "locked"), [("1500000", False), ("2400000", True)])
def test_clocks(tmp_path: Path, lowest: str, locked: bool) -> None:
    for core in (0, 1):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        put(tmp_path, f"{folder}/scaling_governor", "schedutil\n")
        put(tmp_path, f"{folder}/scaling_min_freq", f"{lowest}\n")
        put(tmp_path, f"{folder}/scaling_max_freq", "2400000\n")
    cpu = find_cpu(tmp_path)
    assert (cpu.governor, cpu.clocks_locked) == ("schedutil", locked)


def test_memory(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", MEMINFO)
    assert memory_mb(tmp_path) == (7619, 5814)


def test_memory_within_the_limit_of_a_container(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", MEMINFO)
    put(tmp_path, "sys/fs/cgroup/memory.max", f"{2**30}\n")
    put(tmp_path, "sys/fs/cgroup/memory.current", f"{2**20 * 100}\n")
    assert memory_mb(tmp_path) == (1024, 924)
    assert has_room(tmp_path)
    put(tmp_path, "sys/fs/cgroup/memory.current", f"{2**20 * 1000}\n")
    assert not has_room(tmp_path)
    put(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    assert memory_mb(tmp_path) == (7619, 5814)


def test_nvidia_smi(tmp_path: Path, x86: None) -> None:
    tool(tmp_path, "nvidia-smi", "echo 'NVIDIA GeForce RTX 4070, 8.9, 12282, 570.86.15'")
    found = this_device(tmp_path)
    [gpu] = found.nvidia
    assert gpu == NvidiaGpu(
        name="NVIDIA GeForce RTX 4070", compute_capability="8.9", memory_mb=12282, driver="570.86.15"
    )
    assert best_profile(found).name == "rtx"


def test_nvidia_smi_of_a_jetson_does_not_know_everything(tmp_path: Path) -> None:
    tool(orin_nano(tmp_path), "nvidia-smi", "echo 'Orin (nvgpu), 8.7, [N/A], 540.4.0'")
    found = this_device(tmp_path)
    assert found.nvidia[0].memory_mb is None
    assert best_profile(found).name == "jetson-orin-nano"


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'"])
def test_without_nvidia_smi_the_driver_names_the_gpu(tmp_path: Path, script: str) -> None:
    tool(tmp_path, "nvidia-smi", script)
    assert this_device(tmp_path).nvidia == ()
    put(
        tmp_path,
        "proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 175\nBus Type: \t PCIe\n",
    )
    assert this_device(tmp_path).nvidia == (NvidiaGpu(name="NVIDIA RTX A2000"),)


def test_intel_devices(tmp_path: Path, x86: None) -> None:
    put(tmp_path, "dev/dri/renderD128", "")
    put(tmp_path, "sys/class/drm/renderD128/device/vendor", "0x8086\n")
    put(tmp_path, "dev/accel/accel0", "")
    put(tmp_path, "sys/class/accel/accel0/device/vendor", "0x8086\n")
    found = this_device(tmp_path)
    assert found.intel == ("GPU", "NPU")
    assert best_profile(found).name == "intel-gpu"


def test_intel_npu_alone(tmp_path: Path, x86: None) -> None:
    put(tmp_path, "dev/accel/accel0", "")
    put(tmp_path, "sys/class/accel/accel0/device/vendor", "0x8086\n")
    assert best_profile(this_device(tmp_path)).name == "intel-npu"


def test_render_nodes_of_others_are_not_intel(tmp_path: Path) -> None:
    put(tmp_path, "dev/dri/renderD128", "")
    put(tmp_path, "sys/class/drm/renderD128/device/vendor", "0x1002\n")
    put(tmp_path, "dev/dri/card0", "")
    assert this_device(tmp_path).intel == ()


@pytest.mark.parametrize(
    ("architecture", "gpus", "name"),
    [
        ("x86_64", (), "x86"),
        ("x86_64", (NvidiaGpu(name="GTX 1080", compute_capability="6.1"),), "x86"),
        ("x86_64", (NvidiaGpu(name="RTX 5090", compute_capability="12.0"),), "rtx"),
        ("x86_64", (NvidiaGpu(name="unknown to the driver"),), "rtx"),
        ("aarch64", (), "arm64"),
        ("arm64", (), "arm64"),
        ("riscv64", (), "cpu"),
    ],
)
def test_best_profile(tmp_path: Path, architecture: str, gpus: tuple[NvidiaGpu, ...], name: str) -> None:
    bare: Detected = this_device(tmp_path)
    found = replace(bare, cpu=replace(bare.cpu, architecture=architecture), nvidia=gpus)
    assert best_profile(found).name == name
