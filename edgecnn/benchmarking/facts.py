"""What a benchmark says of its machine and of its frames."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt

import edgecnn
from edgecnn.benchmarking.results import Machine, Timed
from edgecnn.bundle import Bundle
from edgecnn.calibration.data import generate_frames
from edgecnn.devices import this_device
from edgecnn.devices.state import MachineState, held_back, machine_state
from edgecnn.errors import MediaError
from edgecnn.runtimes import Runtime
from edgecnn.stream import open_source

__all__ = ["describe_frames", "describe_machine", "draw"]

MADE_UP = 4
MADE_UP_HW = (480, 640)
FRAMES_MAX = 16
WHAT = "frame to result (geometry, engine, decoding, suppression), one frame after the other, without reading"


def draw(source: str | os.PathLike[str] | None) -> tuple[list[npt.NDArray[np.uint8]], float | None]:
    """The first frames of a source, and the median ms of reading one; None where they are made up.

    Raises:
        InputError: Not a source.
        MediaError: It holds no frame.
        DeviceUnavailable: The camera cannot be opened.
    """
    if source is None:
        return list(generate_frames(MADE_UP, size_hw=MADE_UP_HW)), None
    frames, times_ms = [], []
    start = time.perf_counter()  # an image is read when it is opened
    with open_source(source) as opened:
        for frame in islice(opened, FRAMES_MAX):
            times_ms.append((time.perf_counter() - start) * 1e3)
            frames.append(frame.image)
            start = time.perf_counter()
    if not frames:
        raise MediaError(f"{source}: holds no frame")
    return frames, round(float(np.median(times_ms)), 3)


def describe_frames(
    bundle: Bundle, source: str | os.PathLike[str] | None, frames: list[npt.NDArray[np.uint8]]
) -> Timed:
    """What was timed."""
    return Timed(
        bundle=bundle.manifest.name,
        task=bundle.manifest.spec.task,
        source="frames that were made up" if source is None else os.fspath(source),
        generated=source is None,
        frames=len(frames),
        sizes_wh=tuple(sorted({(frame.shape[1], frame.shape[0]) for frame in frames})),
        what=WHAT,
    )


def describe_machine(
    runtimes: Iterable[type[Runtime]], before: MachineState, yardstick_ms: tuple[float, ...]
) -> Machine:
    """Describe this machine, and how it did since ``before``."""
    from edgecnn.vision.opencv import cv2

    here, after = this_device(), machine_state()
    throttled, reason = held_back(before, after)
    own = {"edgecnn": edgecnn.__version__, "python": platform.python_version(), "numpy": np.__version__}
    return Machine(
        cpu=here.cpu.model,
        cores=here.cpu.usable_cores,
        governor=here.cpu.governor,
        clocks_locked=here.cpu.clocks_locked,
        ram_mb=here.memory_mb,
        gpu=here.nvidia[0].name if here.nvidia else None,
        jetpack=here.jetson.jetpack if here.jetson else None,
        power_mode=here.jetson.power_mode if here.jetson else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={**own, "opencv": cv2.__version__, **{kind.name: kind.version() for kind in runtimes}},
        before=before,
        after=after,
        yardstick_ms=yardstick_ms,
        throttled=throttled,
        throttled_reason=reason,
    )
