"""Folders that look like the root of a machine, with its files in the formats that Linux and NVIDIA write."""

from __future__ import annotations

from pathlib import Path

RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
    "# KERNEL_VARIANT: oot\n"
    "TARGET_USERSPACE_LIB_DIR=nvidia\n"
    "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n"
)
ORIN_NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
ORIN_NANO_PARTS = "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
MEMINFO = "MemTotal:        7802228 kB\nMemFree:         3021264 kB\nMemAvailable:    5953744 kB\nHugePages_Total: 0\n"
INTEL_CPUINFO = (
    "processor\t: 0\nmodel name\t: Intel(R) Core(TM) Ultra 7 155H\nflags\t\t: fpu sse avx2 avx_vnni\n\n"
    "processor\t: 1\nmodel name\t: Intel(R) Core(TM) Ultra 7 155H\nflags\t\t: fpu sse avx2 avx_vnni\n"
)
RASPBERRY_CPUINFO = (
    "processor\t: 0\nBogoMIPS\t: 108.00\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "Revision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)


def put(root: Path, name: str, text: str) -> Path:
    """Write one file below a root, with the folders it needs."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tool(root: Path, name: str, script: str) -> None:
    """A program of the machine: a shell script."""
    put(root, f"usr/bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)


def orin_nano(root: Path) -> Path:
    """A Jetson Orin Nano with JetPack 6.2."""
    put(root, "etc/nv_tegra_release", RELEASE)
    put(root, "proc/device-tree/model", ORIN_NANO + "\0")
    put(root, "proc/device-tree/compatible", ORIN_NANO_PARTS)
    put(root, "proc/meminfo", MEMINFO)
    put(root, "dev/nvmap", "")
    tool(root, "nvpmodel", "echo 'NVPM WARN: fan mode is not set!'\necho 'NV Power Mode: MAXN_SUPER'\necho 2")
    return root
