from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecnn.cli import doctor
from edgecnn.cli.main import main
from edgecnn.errors import DeviceUnavailable, MissingDependency
from edgecnn.runtimes import known
from tests.devices.machines import orin_nano, put, tool

Examine = Callable[[], dict[str, Any]]


@pytest.fixture
def examine(capfd: pytest.CaptureFixture[str]) -> Examine:
    """What ``doctor --json`` prints."""

    def run() -> dict[str, Any]:
        assert main(["doctor", "--json"]) == 0
        facts: dict[str, Any] = json.loads(capfd.readouterr().out)
        return facts

    return run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing in it, which doctor looks at instead of this one."""
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    return tmp_path


def runtime(version: str | None, *, is_engine: bool = True) -> type:
    """A runtime that is installed, or not."""

    def answer() -> str:
        if version is None:
            raise MissingDependency("x could not be imported; try: pip install x")
        return version

    methods = {"version": staticmethod(answer), "check_here": staticmethod(answer)}
    return type("Fake", (), {"is_engine": is_engine, **methods})


def test_an_engine_without_its_device_is_not_usable(
    root: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine
) -> None:
    def refuse() -> None:
        raise DeviceUnavailable("no NVIDIA GPU can be used here")

    tensorrt = runtime("10.3.0")
    tensorrt.check_here = staticmethod(refuse)  # type: ignore[attr-defined]
    install(monkeypatch, ort=runtime("1.31"), tensorrt=tensorrt)
    row = examine()["runtimes"][1]
    assert row == {
        "name": "tensorrt",
        "usable": False,
        "version": "10.3.0",
        "reason": "no NVIDIA GPU can be used here",
    }


def install(monkeypatch: pytest.MonkeyPatch, **runtimes: type) -> None:
    """These runtimes and no others."""
    monkeypatch.setattr("edgecnn.runtimes.known", lambda: list(runtimes))
    monkeypatch.setattr("edgecnn.runtimes.backend", runtimes.__getitem__)


def test_this_machine(examine: Examine, capfd: pytest.CaptureFixture[str]) -> None:
    facts = examine()
    assert {"runtimes", "devices", "cameras", "jetson", "profile", "cache", "advice"} <= set(facts)
    assert [row["name"] for row in facts["runtimes"]] == known()
    assert all(set(row) == {"name", "usable", "version", "reason"} for row in facts["runtimes"])
    assert all(row["usable"] == (row["reason"] is None) for row in facts["runtimes"])
    cpu = facts["devices"][0]
    assert cpu["name"] == "cpu"
    assert 1 <= cpu["usable_cores"] <= cpu["cores"]
    assert main(["doctor"]) == 0
    text = capfd.readouterr().out
    assert "  ok  null  1  (no engine, for tests)\n" in text
    assert f"edgecnn convert MODEL --device {facts['profile']}\n" in text


def test_an_empty_machine(root: Path, examine: Examine, capfd: pytest.CaptureFixture[str]) -> None:
    facts = examine()
    assert (facts["cameras"], facts["jetson"], facts["advice"]) == ([], None, [])
    assert main(["doctor"]) == 0
    assert capfd.readouterr().out.endswith(
        "cameras\n  none (no /dev/video*; inside a container: --device /dev/video0)\n"
    )


def test_it_says_why_not_and_exits_3(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = runtime("1", is_engine=False)
    install(monkeypatch, ort=runtime(None), null=plain)
    assert main(["doctor"]) == 3
    captured = capfd.readouterr()
    assert "no  ort  x could not be imported; try: pip install x" in captured.out
    # the one without an engine runs no bundle
    assert "ok  null  1" in captured.out
    assert "no runtime that runs bundles can be used here" in captured.err
    assert main(["doctor", "--json"]) == 3
    assert json.loads(capfd.readouterr().out)["runtimes"][0]["usable"] is False


def test_a_broken_installation_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise RuntimeError("\nlibfoo.so: cannot open\nshared object file")

    engine = type("Broken", (), {"is_engine": True, "version": staticmethod(broken)})
    install(monkeypatch, ort=runtime("1"), openvino=engine)
    assert main(["doctor"]) == 0
    assert "  no  openvino  libfoo.so: cannot open\n" in capfd.readouterr().out


def test_the_reference_is_not_imported(monkeypatch: pytest.MonkeyPatch, examine: Examine) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    [row] = [row for row in examine()["runtimes"] if row["name"] == "torch"]
    assert row["usable"]


def test_a_jetson(
    root: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine, capfd: pytest.CaptureFixture[str]
) -> None:
    orin_nano(root)
    install(monkeypatch, ort=runtime("1.31"), tensorrt=runtime("10.3.0"))
    facts = examine()
    assert facts["jetson"] == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "power_mode": "MAXN_SUPER",
        "profile": "jetson-orin-nano",
    }
    assert (facts["profile"], facts["advice"]) == ("jetson-orin-nano", [])
    assert main(["doctor"]) == 0
    text = capfd.readouterr().out
    assert "  ok  tensorrt  10.3.0\n" in text
    assert "  board    NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\n" in text
    assert "  jetson   JetPack 6.2, L4T 36.4.3, power mode MAXN_SUPER\n" in text
    assert "5814 of 7619 MiB free" in text


def test_a_jetson_without_its_tensorrt(root: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine) -> None:
    orin_nano(root)
    install(monkeypatch, ort=runtime("1.31"), tensorrt=runtime(None))
    [advice] = examine()["advice"]
    assert "python3-libnvinfer" in advice


def test_a_container_without_the_gpu(
    root: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine, capfd: pytest.CaptureFixture[str]
) -> None:
    (orin_nano(root) / "dev/nvmap").unlink()
    for name in ("model", "compatible"):
        (root / "proc/device-tree" / name).unlink()
    install(monkeypatch, ort=runtime("1.31"))
    assert examine()["advice"] == ["the GPU cannot be seen; in a container: docker run --runtime nvidia"]
    assert main(["doctor"]) == 0
    assert "power mode MAXN_SUPER, module unknown (a container hides it)\n" in capfd.readouterr().out


def test_cuda_without_tensorrt(
    root: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine, capfd: pytest.CaptureFixture[str]
) -> None:
    tool(root, "nvidia-smi", "echo 'NVIDIA GeForce RTX 4070, 8.9, 12282, 570.86.15'")
    install(monkeypatch, ort=runtime("1.31"))
    assert examine()["advice"] == [
        "the NVIDIA GPU is idle without TensorRT; try: pip install 'edgecnn[tensorrt]'"
    ]
    assert main(["doctor"]) == 0
    text = capfd.readouterr().out
    assert "NVIDIA GeForce RTX 4070, compute capability 8.9, 12282 MiB, driver 570.86.15\n" in text


@pytest.mark.parametrize(
    ("devices", "advice"),
    [
        (["CPU", "GPU.0", "NPU"], []),
        (
            ["CPU", "GPU"],
            [
                "OpenVINO does not see the Intel NPU: install its driver, and try: sudo usermod -aG render $USER, "
                "then log in again"
            ],
        ),
        (
            None,
            [
                f"the Intel {kind} is idle without OpenVINO; try: pip install 'edgecnn[openvino]'"
                for kind in ("GPU", "NPU")
            ],
        ),
    ],
)
def test_intel_devices(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    examine: Examine,
    devices: list[str] | None,
    advice: list[str],
) -> None:
    for node, drivers in (("dri/renderD128", "drm"), ("accel/accel0", "accel")):
        put(root, f"dev/{node}", "")
        put(root, f"sys/class/{drivers}/{Path(node).name}/device/vendor", "0x8086\n")
    core = types.SimpleNamespace(available_devices=devices)
    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=lambda: core))
    install(monkeypatch, ort=runtime("1"), **({"openvino": runtime("2026.4")} if devices else {}))
    facts = examine()
    assert facts["openvino_devices"] == devices
    assert [row["name"] for row in facts["devices"]] == ["cpu", "intel-gpu", "intel-npu"]
    assert facts["advice"] == advice


def test_cameras(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(root, "dev/video0", "")
    put(root, "sys/class/video4linux/video0/name", "HD Webcam\n")
    assert main(["doctor"]) == 0
    assert "cameras\n  ok  /dev/video0  HD Webcam\n" in capfd.readouterr().out


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    assert examine()["cache"] == {"path": str(tmp_path / "cache"), "bytes": 0, "writable": True}
    put(tmp_path, "cache/engines/a", "12345")
    put(tmp_path, "cache/b", "6")
    assert examine()["cache"]["bytes"] == 6


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path, examine: Examine
) -> None:
    put(tmp_path, "file", "")
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "file" / "cache"))
    [advice] = examine()["advice"]
    assert "cannot be written" in advice
    assert "set EDGECNN_CACHE" in advice
