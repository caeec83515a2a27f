"""``edgecnn doctor``: what this machine can run, and why not the rest."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import click

from edgecnn.cli import _common
from edgecnn.errors import Unavailable, first_line

__all__ = ["command"]

NO_BUNDLES = {"null": "no engine, for tests", "torch": "the reference of convert, runs no bundle"}
JETSON_RELEASE = Path("/etc/nv_tegra_release")


@click.command("doctor", short_help="Show what can run here and what is missing.")
@_common.json_flag
@_common.verbosity
def command(as_json: bool) -> None:
    """Show which runtimes, devices and cameras can be used here, and what is missing.

    Exits with 3 when no runtime that runs bundles can be used.
    """
    facts: dict[str, Any] = {
        "runtimes": _runtimes(),
        "devices": [_cpu()],
        "cameras": _cameras(),
        "jetson": JETSON_RELEASE.read_text(errors="replace").strip() if JETSON_RELEASE.is_file() else None,
    }
    if as_json:
        _common.print_json(facts)
    else:
        _common.echo(_report(facts))
    from edgecnn.runtimes import backend

    if not any(row["usable"] and backend(row["name"]).is_engine for row in facts["runtimes"]):
        raise Unavailable("no runtime that runs bundles can be used here; try: pip install 'edgecnn[cpu]'")


def _runtimes() -> list[dict[str, Any]]:
    from edgecnn.runtimes import backend, known

    rows = []
    for name in known():
        version, reason = None, None
        try:
            version = backend(name).version()
        except Exception as error:  # a broken installation raises whatever it likes
            reason = first_line(error)
        rows.append({"name": name, "usable": reason is None, "version": version, "reason": reason})
    return rows


def _cpu() -> dict[str, Any]:
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "name": "cpu",
        "model": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(affinity(0)) if affinity else os.cpu_count(),
        "ram_mb": _ram_mb(),
    }


def _cpu_model() -> str:
    for path, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            lines = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(key):
                return line.split(":", 1)[-1].strip(" \0\t")
    return platform.processor() or "unknown"


def _ram_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError, AttributeError):
        return None


def _cameras() -> list[dict[str, Any]]:
    rows = []
    for device in sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name)):
        name = Path("/sys/class/video4linux", device.name, "name")
        readable = os.access(device, os.R_OK | os.W_OK)
        rows.append(
            {
                "device": str(device),
                "name": name.read_text(errors="replace").strip() if name.is_file() else None,
                "usable": readable,
                "reason": None
                if readable
                else "no permission; try: sudo usermod -aG video $USER, then log in again",
            }
        )
    return rows


def _report(facts: dict[str, Any]) -> str:
    from edgecnn.runtimes import backend

    lines = ["runtimes"]
    for row in facts["runtimes"]:
        what = (
            "" if backend(row["name"]).is_engine else f"  ({NO_BUNDLES.get(row['name'], 'runs no bundle')})"
        )
        lines.append(
            f"  {'ok ' if row['usable'] else 'no '} {row['name']}  {row['version'] or row['reason']}{what}"
        )
    lines.append("devices")
    for row in facts["devices"]:
        memory = f", {row['ram_mb']} MiB" if row["ram_mb"] else ""
        cores = f"{row['usable_cores']} of {row['cores']} cores"
        lines.append(f"  {row['name']}  {row['model']} ({row['architecture']}), {cores}{memory}")
    if facts["jetson"]:
        lines.append(f"  jetson  {facts['jetson'].splitlines()[0]}")
    lines.append("cameras")
    for row in facts["cameras"]:
        lines.append(
            f"  {'ok ' if row['usable'] else 'no '} {row['device']}  {row['reason'] or row['name'] or ''}"
        )
    if not facts["cameras"]:
        lines.append("  none (no /dev/video*; inside a container: --device /dev/video0)")
    return "\n".join(lines)
