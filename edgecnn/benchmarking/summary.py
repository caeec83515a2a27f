"""From what was measured to the figures of a `Benchmark`."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice

import numpy as np
import numpy.typing as npt

from edgecnn import __version__
from edgecnn.benchmarking.contenders import Contender
from edgecnn.benchmarking.figures import block_medians, histogram, percentiles, ratio_interval
from edgecnn.benchmarking.results import STAGES, Benchmark, LeftOut, Machine, Row, Timed
from edgecnn.bundle import Bundle
from edgecnn.calibration.data import generate_frames
from edgecnn.devices import this_device
from edgecnn.devices.state import MachineState, held_back, machine_state
from edgecnn.errors import InputError, MediaError
from edgecnn.runtimes import Runtime
from edgecnn.spec import ModelSpec
from edgecnn.stream import open_source
from edgecnn.vision.windows import pyramid

__all__ = ["Drawn", "Rounds", "describe", "draw", "summarize"]

MADE_UP = 4
MADE_UP_HW = (480, 640)
MADE_UP_FRAMES = "frames that were made up"
FRAMES_MAX = 16
WHAT = "geometry, engine and decode, without reading"
HOW = {"latency": "one frame after the other", "throughput": "as many frames at a time as streams"}


@dataclass
class Rounds:
    """What was seen of the machine in the rounds: ms of a fixed computation, and what others took of it."""

    yardstick_ms: list[float] = field(default_factory=list)
    others_share: float | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """Frames that are timed; ``read_ms`` is the median time of reading one, None where they are made up."""

    source: str
    frames: list[npt.NDArray[np.uint8]]
    read_ms: float | None


def draw(source: str | os.PathLike[str] | None, spec: ModelSpec) -> Drawn:
    """The first frames of a source.

    Raises:
        InputError: Not a source, or a frame is smaller than the smallest window of the spec.
        MediaError: It holds no frame.
        DeviceUnavailable: The camera cannot be opened.
    """
    if source is None:
        made_up = list(generate_frames(MADE_UP, size_hw=MADE_UP_HW))
        _check_size(made_up[0], spec, MADE_UP_FRAMES)
        return Drawn(MADE_UP_FRAMES, made_up, None)
    frames, times_ms = [], []
    start = time.perf_counter()  # an image is read when it is opened
    with open_source(source) as opened:
        for frame in islice(opened, FRAMES_MAX):
            times_ms.append((time.perf_counter() - start) * 1e3)
            _check_size(frame.image, spec, frame.source)
            frames.append(frame.image)
            start = time.perf_counter()
    if not frames:
        raise MediaError(f"{source}: holds no frame")
    return Drawn(os.fspath(source), frames, round(float(np.median(times_ms)), 3))


def _check_size(frame: npt.NDArray[np.uint8], spec: ModelSpec, name: str) -> None:
    if spec.window is None:
        return
    try:
        pyramid((frame.shape[0], frame.shape[1]), spec)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


def describe(
    bundle: Bundle,
    contenders: Sequence[Contender],
    drawn: Drawn,
    before: MachineState,
    rounds: Rounds,
) -> tuple[Machine, Timed]:
    """Where it is measured, and what is timed; known before it begins but for what is seen in the rounds."""
    manifest = bundle.manifest
    modes = {each.mode for each in contenders}
    timed = Timed(
        bundle=manifest.name,
        task=manifest.spec.task,
        source=drawn.source,
        generated=drawn.read_ms is None,
        frames=len(drawn.frames),
        sizes_wh=tuple(sorted({(frame.shape[1], frame.shape[0]) for frame in drawn.frames})),
        what="; ".join([WHAT, *(text for mode, text in HOW.items() if mode in modes)]),
    )
    return _machine([each.candidate.runtime for each in contenders], before, rounds), timed


def summarize(
    bundle: Bundle,
    contenders: Sequence[Contender],
    rounds: Rounds,
    drawn: Drawn,
    *,
    before: MachineState,
    energy: str,
    left_out: Sequence[LeftOut],
    interrupted: bool = False,
) -> Benchmark:
    """Make figures of what was measured, the fastest first; what had no turn is left out."""
    ran = [each for each in contenders if each.frame_ms]
    rows: list[Row] = []
    for mode in HOW:
        of_mode = [each for each in ran if each.mode == mode]
        of_mode.sort(key=lambda each: statistics.median(each.frame_ms))
        rows += [_row(bundle, each, of_mode[0], drawn) for each in of_mode]
    machine, timed = describe(bundle, ran, drawn, before, rounds)
    manifest = bundle.manifest
    return Benchmark(
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine,
        timed=timed,
        rows=tuple(rows),
        best=rows[0].name,
        metric=manifest.evaluated.metric if manifest.evaluated else "agreement",
        energy=energy,
        left_out=tuple(left_out),
        interrupted=interrupted,
    )


def _machine(runtimes: Iterable[type[Runtime]], before: MachineState, rounds: Rounds) -> Machine:
    from edgecnn.vision.opencv import cv2

    here, after = this_device(), machine_state()
    throttled, reason = held_back(before, after)
    own = {"edgecnn": __version__, "python": platform.python_version(), "numpy": np.__version__}
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
        yardstick_ms=block_medians(rounds.yardstick_ms),
        others_share=rounds.others_share,
        throttled=throttled,
        throttled_reason=reason,
    )


def _row(bundle: Bundle, each: Contender, best: Contender, drawn: Drawn) -> Row:
    entry = each.candidate.entry
    dense = each.predictor.is_dense
    form = entry.dense if dense and entry.dense is not None else entry
    in_rounds = [own / other for own, other in zip(each.frame_ms, best.frame_ms)]
    ratio = ratio_interval(block_medians(in_rounds), [1.0])
    stages = {stage: round(statistics.median(values), 3) for stage, values in each.stages_ms.items()}
    return Row(
        id=entry.id,
        runtime=each.candidate.runtime.name,
        precision=entry.precision,
        compute=each.candidate.compute,
        dense=dense,
        mode=each.mode,
        threads=each.threads,
        streams=each.streams,
        n=len(each.latencies_ms),
        **percentiles(each.latencies_ms),  # type: ignore[arg-type]
        fps=round(1e3 / statistics.fmean(each.frame_ms), 4),
        ratio=round(statistics.median(in_rounds), 4),
        ratio_low=round(ratio.low, 4),
        ratio_high=round(ratio.high, 4),
        blocks_ms=block_medians(each.frame_ms),
        histogram=histogram(each.latencies_ms),
        warm_calls=len(each.warm_ms),
        settled=each.settled,
        rss_mb=each.first_result.rss_mb,
        first_result_ms=each.first_result.ms,
        first_result_reason=each.first_result.reason,
        energy_mj=each.energy_mj,
        size_bytes=sum(bundle.file(path).bytes for path in (form.path, form.weights) if path),
        metric=_metric(bundle, each),
        stages_ms={**dict.fromkeys(STAGES), "read": drawn.read_ms, **stages},
    )


def _metric(bundle: Bundle, each: Contender) -> float | None:
    """What the bundle says of the accuracy on this engine, else on the one that it was measured on."""
    candidate = each.candidate
    rows = [
        row
        for row in bundle.manifest.fidelity
        if (row.id, row.compute) == (candidate.entry.id, candidate.compute)
    ]
    rows.sort(key=lambda row: row.runtime != candidate.runtime.name)
    if not rows:
        return None
    return rows[0].metric if bundle.manifest.evaluated else rows[0].agreement
