"""Which Jetson this is, which JetPack it has, and how its clocks are set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgecnn.devices.system import board_name, read_text, tool_output

__all__ = ["Jetson", "find_jetson", "jetpack_of", "l4t_release"]

# https://developer.nvidia.com/embedded/jetpack-archive
JETPACKS = {
    "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4", "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2", "35.5.0": "5.1.3",
    "35.6.0": "5.1.4", "35.6.1": "5.1.5", "35.6.2": "5.1.5",
    "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0", "38.2.1": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip
MAJORS = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}

# in the device tree: part numbers of the modules, which custom carrier boards keep, and names of the kits
MODULES = {
    r"p3767-000[01]|Orin NX": "jetson-orin-nx",
    r"p3767-|Orin Nano": "jetson-orin-nano",
    r"p3701-|AGX Orin": "jetson-agx-orin",
    r"p3834-|Thor": "jetson-thor",
    r"p3668-|p2888-|Xavier": "jetson-xavier-nx",
    r"p3448-|Jetson Nano": "jetson-nano",
}
# containers hide the device tree: then the release says which family it can only be
FAMILIES = {
    "32": "jetson-nano",
    "34": "jetson-xavier-nx",
    "35": "jetson-xavier-nx",
    "36": "jetson-orin-nano",
    "38": "jetson-thor",
}


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """A Jetson.

    Attributes:
        model: As its device tree names it; None where that cannot be read, as in most containers.
        l4t: Release of Jetson Linux, such as ``36.4.3``; None where it is not known.
        jetpack: The JetPack with that release, such as ``6.2``, ``6.x`` for a release that is not listed.
        power_mode: As ``nvpmodel`` names it, such as ``MAXN``; None where it does not say.
        profile: The device profile; None for a module there is none of.
    """

    model: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    profile: str | None


def find_jetson(root: Path = Path("/")) -> Jetson | None:
    """The Jetson that this machine is, or None.

    Args:
        root: Where its files are; another folder in tests.
    """
    model = board_name(root)
    compatible = (read_text(root / "proc/device-tree/compatible") or "").replace("\0", " ")
    l4t = l4t_release(root)
    if l4t is None and "nvidia,tegra" not in compatible:
        return None
    known = [name for pattern, name in MODULES.items() if re.search(pattern, f"{compatible} {model or ''}")]
    family = FAMILIES.get((l4t or "").split(".")[0]) if not model and not compatible else None
    return Jetson(
        model=model,
        l4t=l4t,
        jetpack=jetpack_of(l4t) if l4t else None,
        power_mode=_power_mode(root),
        profile=known[0] if known else family,
    )


def l4t_release(root: Path = Path("/")) -> str | None:
    """Release of Jetson Linux from ``/etc/nv_tegra_release``, such as ``36.4.3``; None elsewhere."""
    text = read_text(root / "etc/nv_tegra_release") or ""
    found = re.search(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def jetpack_of(l4t: str) -> str | None:
    """The JetPack of an L4T release; ``6.x`` for one that is not listed, None for an unknown generation."""
    major = MAJORS.get(l4t.split(".")[0])
    return JETPACKS.get(l4t) or (f"{major}.x" if major else None)


def _power_mode(root: Path) -> str | None:
    found = re.search(r"Power Mode:\s*(\S+)", tool_output(root, "nvpmodel", "-q") or "")
    return found[1] if found else None
