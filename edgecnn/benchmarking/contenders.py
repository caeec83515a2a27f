"""Every artifact of a bundle on every engine that can run it here, opened and ready to be timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from edgecnn.benchmarking.results import LeftOut, Mode, row_name
from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate, in_lower_arithmetic, intel_target, options_for
from edgecnn.devices.system import has_room
from edgecnn.engine_cache import fits_here
from edgecnn.engines import OnStale
from edgecnn.errors import EdgeCnnError, InputError, Unavailable, first_line
from edgecnn.first_result import FirstResult
from edgecnn.loading import artifact_for, check_precision, is_for, open_artifact
from edgecnn.predictor import Predictor
from edgecnn.progress import OnWork
from edgecnn.runtimes import RuntimeOptions, backend, known
from edgecnn.timing import seconds_each

__all__ = ["Clock", "Contender", "Turn", "find_candidates", "open_contenders"]

Clock = Callable[[], int]

# for which frames are kept under way in a turn at least
TURN_S = 0.02
NOT_YET = FirstResult(reason="interrupted before that")


@dataclass(frozen=True)
class Turn:
    """What one turn took.

    Attributes:
        frame_ms: Time for a frame.
        calls: Latency of each frame in ms, and the parts of it.
    """

    frame_ms: float
    calls: Sequence[tuple[float, dict[str, float]]]


@dataclass(eq=False)
class Contender:
    """One way to run the bundle, and what was seen of it.

    Attributes:
        candidate: The artifact and its engine.
        predictor: The bundle, opened so.
        mode, streams: As of a `Row`.
        callers: Threads that keep frames under way side by side; None takes one after the other.
        warm_ms: Times for a frame before those that count.
        settled: They had become stable.
        frame_ms: Time for a frame, one for each round.
        latencies_ms: Of all calls.
        stages_ms: The same by the parts of a call.
        energy_mj: Of one frame.
        first_result: Of a fresh process.
    """

    candidate: Candidate
    predictor: Predictor
    mode: Mode = "latency"
    streams: int = 1
    callers: ThreadPoolExecutor | None = None
    warm_ms: list[float] = field(default_factory=list)
    settled: bool = False
    frame_ms: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    energy_mj: float | None = None
    first_result: FirstResult = NOT_YET

    @property
    def options(self) -> RuntimeOptions:
        """How the engine was opened."""
        return self.predictor.runtime.options

    @property
    def threads(self) -> int:
        """Of one inference, as the engine tells."""
        return int(self.predictor.runtime.facts.get("threads", self.options.thread_count))

    @property
    def name(self) -> str:
        """That of its row."""
        each = self.candidate
        return row_name(each.entry.id, each.runtime.name, each.compute, self.mode, self.streams)

    def turn(self, frame: npt.NDArray[np.uint8], clock: Clock = time.perf_counter_ns) -> Turn:
        """Look at a frame, once or by all callers for a while."""
        calls: list[tuple[float, dict[str, float]]] = []

        def call() -> None:
            start = clock()
            result = self.predictor(frame)
            calls.append(((clock() - start) / 1e6, result.timing_ms))

        if self.callers is None:
            call()
            return Turn(calls[0][0], calls)
        submit = partial(self.callers.submit, call)
        each_s = seconds_each(submit, self.streams, seconds=TURN_S, clock=lambda: clock() / 1e9)
        return Turn(each_s * 1e3, calls)

    def count(self, turn: Turn) -> None:
        """Keep what a turn took."""
        self.frame_ms.append(turn.frame_ms)
        for latency_ms, parts in turn.calls:
            self.latencies_ms.append(latency_ms)
            for stage, ms in parts.items():
                self.stages_ms.setdefault(stage, []).append(ms)


def find_candidates(bundle: Bundle, runtime: str, precision: str) -> list[Candidate]:
    """Artifacts and what loads them, installed or not.

    Args:
        bundle: The bundle.
        runtime: Names with commas between them, or ``all``.
        precision: Only artifacts of this one; ``auto`` are all.

    Raises:
        InputError: No such runtime or precision.
        BundleError: A runtime that was named takes nothing of what the bundle holds.
    """
    check_precision(precision)
    if runtime == "all":
        kinds = [backend(name) for name in known() if backend(name).is_engine]
    else:
        kinds = [backend(name) for name in dict.fromkeys(map(str.strip, runtime.split(",")))]
        for kind in kinds:
            artifact_for(bundle, kind, precision)
    found = [
        Candidate(kind, entry)
        for entry in bundle.manifest.artifacts
        if precision in ("auto", entry.precision)
        for kind in kinds
        if is_for(bundle, entry, kind)
    ]
    if not found:
        listed = ", ".join(entry.id for entry in bundle.manifest.artifacts)
        raise InputError(f"{bundle.path}: no runtime takes it in {precision}; it holds {listed}")
    return found


def open_contenders(
    bundle: Bundle,
    candidates: Iterable[Candidate],
    frame: npt.NDArray[np.uint8],
    threads: int | None,
    modes: Sequence[Mode],
    opened: ExitStack,
    on_work: OnWork,
) -> tuple[list[Contender], list[LeftOut]]:
    """Open all that this machine can, and let each see a frame.

    Args:
        bundle: The bundle.
        candidates: What to open; arithmetic below float32 is added where it kept its accuracy.
        frame: uint8 (H, W, 3) BGR.
        threads: Threads of one inference.
        modes: What each is opened for.
        opened: Closes them.
        on_work: Told which one is opened.

    Raises:
        InputError: None can be used, as where the frame is too small.
        Unavailable: None can be used for what this machine lacks.
    """
    ready: list[Contender] = []
    errors: list[tuple[Candidate, EdgeCnnError]] = []
    todo = list(candidates)
    for number, candidate in enumerate(todo):
        on_work(f"opening {candidate}", number, len(todo))
        try:
            candidate.runtime.check_here()
            for mode in modes:
                each = _opened(bundle, candidate, threads, mode, opened, room=not ready or has_room())
                each.predictor(frame)
                ready.append(each)
        except EdgeCnnError as error:
            errors.append((candidate, error))
            continue
        if candidate.compute == "f32":  # known only now that the engine is there
            todo += _lower(bundle, candidate)
    if not ready:
        refused = [error for _, error in errors if not isinstance(error, Unavailable)]
        if refused:
            raise refused[0]
        reasons = "; ".join(dict.fromkeys(f"{c.runtime.name}: {first_line(e)}" for c, e in errors))
        raise Unavailable(f"no runtime here can run {bundle.path} ({reasons})")
    return ready, [LeftOut(c.entry.id, c.runtime.name, first_line(e)) for c, e in errors]


def _lower(bundle: Bundle, candidate: Candidate) -> list[Candidate]:
    """The same artifact in lower arithmetic."""
    return [
        each
        for each in in_lower_arithmetic(bundle, candidate.runtime, candidate.entry.precision)
        if each.entry.id == candidate.entry.id
    ]


def _opened(
    bundle: Bundle,
    candidate: Candidate,
    threads: int | None,
    mode: Mode,
    opened: ExitStack,
    *,
    room: bool,
) -> Contender:
    entry, kind = candidate.entry, candidate.runtime
    if entry.format == "tensorrt" and (reason := fits_here(entry.requires)):
        raise Unavailable(reason)
    if not room:
        raise Unavailable("no memory is left beside the others; name it alone with --runtime")
    # an engine of the bundle is timed as it is, and not another one that is built in its place
    on_stale: OnStale = "error" if entry.format in kind.formats else "wait"
    options = options_for(candidate, threads, intel_target(bundle), mode=mode)
    model = open_artifact(bundle, entry, kind, options, on_stale=on_stale, dense=True)
    opened.callback(model.close)
    made = Contender(candidate, Predictor(bundle, model, bundle.manifest.spec), mode)
    if mode == "throughput":
        made.streams = model.parallel
        made.callers = opened.enter_context(ThreadPoolExecutor(made.streams))
    return made
