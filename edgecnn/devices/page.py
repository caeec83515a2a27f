"""The page docs/devices.md, made from the profiles: ``python -m edgecnn.devices.page > docs/devices.md``."""

from __future__ import annotations

import sys

from edgecnn.devices.catalog import profiles
from edgecnn.devices.profiles import DeviceProfile

__all__ = ["page"]

INTRODUCTION = """\
# Devices

`edgecnn convert MODEL --device NAME` writes what one device needs, from a workstation; `edgecnn doctor` says
which of these a machine is, and what it lacks. In Python: `edgecnn.devices.profile(name)`, `profiles()`,
`this_device()`, `best_profile(this_device())`.

Runtimes are in the order in which they are tried, precisions with the best first. *INT8 for* is where INT8
models have their QuantizeLinear and DequantizeLinear. Memory is that of the smallest variant that was sold.
A Jetson builds its TensorRT engine from the bundle's ONNX when it first needs it, and keeps it in the cache.

This page is printed by `python -m edgecnn.devices.page`; a test holds it equal to the profiles.
"""

HEADER = (
    "device", "what it is", "runtimes", "`--target`", "INT8 for", "memory", "GPU", "DLA", "JetPack",
    "TensorRT", "Python", "ONNX opset"
)  # fmt: skip


def page() -> str:
    """The whole page."""
    rows = [HEADER, ("---",) * len(HEADER), *(_row(entry) for entry in profiles())]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([INTRODUCTION, table, "", *(_section(entry) for entry in profiles())])


def _row(entry: DeviceProfile) -> tuple[str, ...]:
    jetson = entry.jetson
    return (
        f"`{entry.name}`",
        entry.title,
        "; ".join(f"{_runtime(entry, runs.runtime)}: {', '.join(runs.precisions)}" for runs in entry.runs),
        ", ".join(entry.targets) + (f", batch {entry.fixed_batch}" if entry.fixed_batch else ""),
        entry.placement,
        f"{entry.memory_mb // 1024} GB" if entry.memory_mb else "",
        ", ".join(entry.compute_capabilities),
        str(entry.dla_cores or ""),
        f"{jetson.jetpack} (L4T {jetson.l4t})" if jetson else "",
        jetson.tensorrt if jetson else "",
        jetson.python if jetson else "",
        f"to {jetson.opset}" if jetson else "",
    )


def _runtime(entry: DeviceProfile, runtime: str) -> str:
    return f"{runtime} ({entry.openvino_device})" if runtime == "openvino" else runtime


def _section(entry: DeviceProfile) -> str:
    lines = [f"## {entry.name}", "", *(f"- {note}" for note in entry.notes), "", "Sources:"]
    lines += [f"[{source.title}]({source.url}) ({source.fact})," for source in entry.sources]
    return "\n".join(lines).removesuffix(",") + ".\n"


if __name__ == "__main__":
    sys.stdout.write(page())
