from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgecnn.devices import system
from edgecnn.devices.jetson import find_jetson, jetpack_of, l4t_release
from tests.devices.machines import ORIN_NANO, RELEASE, orin_nano, put, tool


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (RELEASE, "36.4.3"),
        (
            "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref, EABI: aarch64, DATE: x\n",
            "32.7.1",
        ),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic\n", "38.2.0"),
        ("# R36 (rele", None),
        ("", None),
    ],
)
def test_l4t_release(tmp_path: Path, text: str, release: str | None) -> None:
    put(tmp_path, "etc/nv_tegra_release", text)
    assert l4t_release(tmp_path) == release


def test_no_release_elsewhere(tmp_path: Path) -> None:
    assert l4t_release(tmp_path) is None
    assert find_jetson(tmp_path) is None


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("32.7.4", "4.6.4"),
        ("35.3.1", "5.1.1"),
        ("35.4.1", "5.1.2"),
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.4", "6.2.1"),
        ("38.2.0", "7.0"),
        ("38.4.0", "7.1"),
        ("39.2.0", "7.2"),
        ("36.9.1", "6.x"),
        ("41.1.0", None),
    ],
)
def test_jetpack_of(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack


def test_orin_nano(tmp_path: Path) -> None:
    found = find_jetson(orin_nano(tmp_path))
    assert found is not None
    assert (found.model, found.l4t, found.jetpack) == (ORIN_NANO, "36.4.3", "6.2")
    assert (found.power_mode, found.profile) == ("MAXN_SUPER", "jetson-orin-nano")


@pytest.mark.parametrize(
    ("model", "compatible", "profile"),
    [
        ("NVIDIA Jetson Nano Developer Kit", "nvidia,p3449-0000-b00+p3448-0000-b00 nvidia,tegra210", "jetson-nano"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "nvidia,p3509-0000+p3668-0000", "jetson-xavier-nx"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "nvidia,p3737-0000+p3701-0005", "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "nvidia,p4071-0000+p3834-0008", "jetson-thor"),
        # an Orin NX on the carrier of the Orin Nano's kit, and on one that names neither
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "nvidia,p3768-0000+p3767-0000", "jetson-orin-nx"),
        ("Acme Box 3", "acme,box3+p3767-0001 nvidia,tegra234", "jetson-orin-nx"),
        ("Acme Box 3", "acme,box3 nvidia,p3767-0004 nvidia,tegra234", "jetson-orin-nano"),
        # no profile of a TX2
        ("NVIDIA Jetson TX2 Developer Kit", "nvidia,p2597-0000+p3310-1000 nvidia,tegra186", None),
    ],
)  # fmt: skip
def test_modules(tmp_path: Path, model: str, compatible: str, profile: str | None) -> None:
    put(tmp_path, "etc/nv_tegra_release", RELEASE)
    put(tmp_path, "proc/device-tree/model", model + "\0")
    put(tmp_path, "proc/device-tree/compatible", compatible.replace(" ", "\0") + "\0")
    found = find_jetson(tmp_path)
    assert found is not None
    assert found.profile == profile


@pytest.mark.parametrize(
    ("release", "profile"),
    [("R35", "jetson-xavier-nx"), ("R36", "jetson-orin-nano"), ("R38", "jetson-thor"), ("R39", None)],
)
def test_in_a_container_the_release_tells_the_family(
    tmp_path: Path, release: str, profile: str | None
) -> None:
    put(tmp_path, "etc/nv_tegra_release", RELEASE.replace("R36", release))
    found = find_jetson(tmp_path)
    assert found is not None
    assert (found.model, found.profile, found.power_mode) == (None, profile, None)


def test_without_a_release_the_device_tree_tells(tmp_path: Path) -> None:
    put(tmp_path, "proc/device-tree/compatible", "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0")
    found = find_jetson(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack, found.profile) == (None, None, "jetson-agx-orin")


@pytest.mark.parametrize("script", ["exit 1", "echo nothing of use", "sleep 30"])
def test_nvpmodel_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(system, "TOOL_SECONDS", 0.2)
    tool(orin_nano(tmp_path), "nvpmodel", f"exec {script}" if script.startswith("sleep") else script)
    start = time.perf_counter()
    found = find_jetson(tmp_path)
    assert time.perf_counter() - start < 5
    assert found is not None
    assert found.power_mode is None
