"""Cameras that Linux offers through Video4Linux."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from edgecnn.devices.system import read_text

__all__ = ["Camera", "find_cameras"]

# linux/videodev2.h: VIDIOC_QUERYCAP, its answer up to device_caps, and the bits of a device that captures
QUERY = 0x80685600
ANSWER = struct.Struct("<16s32s32sIII12x")
CAPTURES = 0x00000001 | 0x00001000


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera.

    Attributes:
        device: Its path, such as ``/dev/video0``.
        name: As its driver calls it; None where that cannot be read.
        usable: It can be opened.
        reason: Why not, and what to do; None where it can.
    """

    device: str
    name: str | None
    usable: bool
    reason: str | None


def find_cameras(root: Path = Path("/")) -> tuple[Camera, ...]:
    """The cameras, by number; codecs and metadata, which are video devices too, are left out.

    Args:
        root: Where ``dev`` and ``sys`` are; another folder in tests.
    """
    nodes = sorted((root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
    return tuple(_camera(node, root) for node in nodes if _captures(node))


def _camera(node: Path, root: Path) -> Camera:
    name = (read_text(root / "sys/class/video4linux" / node.name / "name") or "").strip()
    usable = os.access(node, os.R_OK | os.W_OK)
    return Camera(
        device=f"/dev/{node.name}",
        name=name or None,
        usable=usable,
        reason=None if usable else "no permission; try: sudo usermod -aG video $USER, then log in again",
    )


def _captures(node: Path) -> bool:
    """False only for a device that says it is something else."""
    try:
        import fcntl

        handle = os.open(node, os.O_RDWR | os.O_NONBLOCK)
        try:
            answer = fcntl.ioctl(handle, QUERY, bytes(ANSWER.size))
        finally:
            os.close(handle)
    except (ImportError, OSError):
        return True
    return bool(ANSWER.unpack(answer)[5] & CAPTURES)
