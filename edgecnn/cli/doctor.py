"""``edgecnn doctor``: what this machine can run, and why not the rest."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli import _common
from edgecnn.errors import Unavailable, first_line

if TYPE_CHECKING:
    from edgecnn.devices import Detected
    from edgecnn.runtimes import Runtime

__all__ = ["command"]

ROOT = Path("/")
NO_BUNDLES = {"null": "no engine, for tests", "torch": "the reference of convert, runs no bundle"}
# what a Jetson's GPU looks like from inside a container that was given it
JETSON_GPU_NODES = ("dev/nvmap", "dev/nvhost-gpu", "dev/nvidia0", "dev/nvgpu")


@click.command("doctor", short_help="Show what can run here and what is missing.")
@_common.json_flag
@_common.verbosity
def command(as_json: bool) -> None:
    """Show which runtimes, devices and cameras can be used here, and what is missing.

    Exits with 3 when no runtime that runs bundles can be used.
    """
    facts = _examine()
    if as_json:
        _common.print_json(facts)
    else:
        _common.echo(_report(facts))
    from edgecnn.runtimes import backend

    if not any(row["usable"] and backend(row["name"]).is_engine for row in facts["runtimes"]):
        raise Unavailable("no runtime that runs bundles can be used here; try: pip install 'edgecnn[cpu]'")


def _examine() -> dict[str, Any]:
    from edgecnn import __version__
    from edgecnn.devices import best_profile, this_device
    from edgecnn.devices.cameras import find_cameras

    detected = this_device(ROOT)
    runtimes = _runtimes()
    openvino = _openvino_devices(runtimes)
    cache = _cache()
    return {
        "edgecnn": __version__,
        "python": platform.python_version(),
        "runtimes": runtimes,
        "board": detected.board,
        "devices": _devices(detected),
        "openvino_devices": openvino,
        "cameras": [asdict(camera) for camera in find_cameras(ROOT)],
        "jetson": asdict(detected.jetson) if detected.jetson else None,
        "profile": best_profile(detected).name,
        "cache": cache,
        "advice": _advice(detected, runtimes, openvino, cache),
    }


def _runtimes() -> list[dict[str, Any]]:
    from edgecnn.runtimes import backend, known

    rows = []
    for name in known():
        version, reason = None, None
        try:
            version = _version(name, backend(name))
            if backend(name).is_engine:
                backend(name).check_here()
        except Exception as error:  # a broken installation raises whatever it likes
            reason = first_line(error)
        rows.append({"name": name, "usable": reason is None, "version": version, "reason": reason})
    return rows


def _version(name: str, runtime: type[Runtime]) -> str:
    if not runtime.is_engine:
        # runs no bundle: not worth the seconds that importing torch takes
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return runtime.version()


def _devices(detected: Detected) -> list[dict[str, Any]]:
    cpu = asdict(detected.cpu) | {"ram_mb": detected.memory_mb, "free_mb": detected.free_memory_mb}
    return [
        {"name": "cpu", **cpu},
        *({"name": "nvidia-gpu", "model": gpu.pop("name"), **gpu} for gpu in map(asdict, detected.nvidia)),
        *({"name": f"intel-{kind.lower()}"} for kind in detected.intel),
    ]


def _openvino_devices(runtimes: list[dict[str, Any]]) -> list[str] | None:
    """Devices that OpenVINO can use; None where it is not usable itself."""
    if not any(row["name"] == "openvino" and row["usable"] for row in runtimes):
        return None
    from edgecnn.openvino_api import find_openvino

    try:
        return [str(name) for name in find_openvino().Core().available_devices]
    except Exception:  # a broken driver raises whatever it likes
        return None


def _cache() -> dict[str, Any]:
    from edgecnn.paths import cache_dir

    folder = cache_dir()
    size = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # taken away meanwhile
                size += Path(parent, name).lstat().st_size
    existing = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    return {"path": str(folder), "bytes": size, "writable": os.access(existing, os.W_OK | os.X_OK)}


def _advice(
    detected: Detected, runtimes: list[dict[str, Any]], openvino: list[str] | None, cache: dict[str, Any]
) -> list[str]:
    """What would make more of this machine."""
    tensorrt = any(row["name"] == "tensorrt" and row["usable"] for row in runtimes)
    advice = []
    if detected.jetson is not None:
        if not any((ROOT / node).exists() for node in JETSON_GPU_NODES):
            advice.append("the GPU cannot be seen; in a container: docker run --runtime nvidia")
        elif not tensorrt:
            advice.append(
                "this Python does not find JetPack's TensorRT; try: sudo apt install python3-libnvinfer, "
                "and a virtual environment with --system-site-packages"
            )
    elif detected.nvidia and not tensorrt:
        advice.append("the NVIDIA GPU is idle without TensorRT; try: pip install 'edgecnn[tensorrt]'")
    for kind in detected.intel:
        if openvino is None:
            advice.append(f"the Intel {kind} is idle without OpenVINO; try: pip install 'edgecnn[openvino]'")
        elif not any(name.startswith(kind) for name in openvino):
            advice.append(
                f"OpenVINO does not see the Intel {kind}: install its driver, and try: "
                "sudo usermod -aG render $USER, then log in again"
            )
    if not cache["writable"]:
        advice.append(
            f"{cache['path']} cannot be written: engines are built anew at each start; set EDGECNN_CACHE"
        )
    return advice


def _report(facts: dict[str, Any]) -> str:
    lines = [f"edgecnn {facts['edgecnn']}, Python {facts['python']}", "runtimes"]
    lines += [_usable(row, row["version"], _runs(row["name"])) for row in facts["runtimes"]]
    lines.append("this machine")
    rows = [["board", facts["board"]]] if facts["board"] else []
    if facts["jetson"]:
        rows.append(["jetson", _jetson_text(facts["jetson"])])
    rows += [_device_row(row) for row in facts["devices"]]
    if facts["openvino_devices"] is not None:
        rows.append(["openvino", ", ".join(facts["openvino_devices"])])
    rows.append(["cache", f"{facts['cache']['path']}, {_common.human_bytes(facts['cache']['bytes'])}"])
    rows.append(["profile", f"edgecnn convert MODEL --device {facts['profile']}"])
    lines.append(_common.table(rows))
    lines.append("cameras")
    lines += [_usable(row, row["name"]) for row in facts["cameras"]]
    if not facts["cameras"]:
        lines.append("  none (no /dev/video*; inside a container: --device /dev/video0)")
    if facts["advice"]:
        lines += ["advice", *(f"  {text}" for text in facts["advice"])]
    return "\n".join(lines)


def _usable(row: dict[str, Any], detail: str | None, more: str = "") -> str:
    name = row.get("device") or row["name"]
    return f"  {'ok' if row['usable'] else 'no'}  {name}  {row['reason'] or detail or ''}{more}".rstrip()


def _runs(name: str) -> str:
    from edgecnn.runtimes import backend

    return "" if backend(name).is_engine else f"  ({NO_BUNDLES.get(name, 'runs no bundle')})"


def _device_row(row: dict[str, Any]) -> list[str]:
    if row["name"] == "cpu":
        parts = [f"{row['model']} ({row['architecture']})", f"{row['usable_cores']} of {row['cores']} cores"]
        if row["ram_mb"] and row["free_mb"] is not None:
            parts.append(f"{row['free_mb']} of {row['ram_mb']} MiB free")
        if row["instructions"]:
            parts.append(" ".join(row["instructions"]))
        if row["governor"]:
            parts.append(f"clock {row['governor']}{' (locked)' if row['clocks_locked'] else ''}")
        return ["cpu", ", ".join(parts)]
    if row["name"] == "nvidia-gpu":
        capability, memory, driver = row["compute_capability"], row["memory_mb"], row["driver"]
        parts = [row["model"], f"compute capability {capability or 'unknown'}"]
        parts += [f"{memory} MiB"] * bool(memory) + [f"driver {driver}"] * bool(driver)
        return ["gpu", ", ".join(parts)]
    return [row["name"], "found"]


def _jetson_text(jetson: dict[str, Any]) -> str:
    parts = [f"JetPack {jetson['jetpack'] or 'unknown'}", f"L4T {jetson['l4t'] or 'unknown'}"]
    if jetson["power_mode"]:
        parts.append(f"power mode {jetson['power_mode']}")
    if jetson["model"] is None:
        parts.append("module unknown (a container hides it)")
    return ", ".join(parts)
