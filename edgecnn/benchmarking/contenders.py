"""Every artifact of a bundle on every engine that can run it here, opened and ready to be timed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgecnn.benchmarking.results import LeftOut
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

__all__ = ["Contender", "find_candidates", "open_contenders"]

NOT_YET = FirstResult(reason="interrupted before that")


@dataclass(eq=False)
class Contender:
    """One way to run the bundle, and what was seen of it.

    Attributes:
        candidate: The artifact and its engine.
        predictor: The bundle, opened so.
        warm_ms: Latencies before those that count.
        settled: They had become stable.
        latencies_ms: One for each round.
        stages_ms: The same by the parts of a call.
        energy_mj: Of one call.
        first_result: Of a fresh process.
    """

    candidate: Candidate
    predictor: Predictor
    warm_ms: list[float] = field(default_factory=list)
    settled: bool = False
    latencies_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(
        default_factory=lambda: {"geometry": [], "infer": [], "decode": []}
    )
    energy_mj: float | None = None
    first_result: FirstResult = NOT_YET

    @property
    def options(self) -> RuntimeOptions:
        """How the engine was opened."""
        return self.predictor.runtime.options


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
    opened: ExitStack,
    on_work: OnWork,
) -> tuple[list[Contender], list[LeftOut]]:
    """Open all that this machine can, and let each see a frame.

    Args:
        bundle: The bundle.
        candidates: What to open; arithmetic below float32 is added where it kept its accuracy.
        frame: uint8 (H, W, 3) BGR.
        threads: Threads of one inference.
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
            each = _opened(bundle, candidate, threads, opened, room=not ready or has_room())
            each.predictor(frame)
        except EdgeCnnError as error:
            errors.append((candidate, error))
            continue
        ready.append(each)
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
    bundle: Bundle, candidate: Candidate, threads: int | None, opened: ExitStack, *, room: bool
) -> Contender:
    entry, kind = candidate.entry, candidate.runtime
    if entry.format == "tensorrt" and (reason := fits_here(entry.requires)):
        raise Unavailable(reason)
    if not room:
        raise Unavailable("no memory is left beside the others; name it alone with --runtime")
    # an engine of the bundle is timed as it is, and not another one that is built in its place
    on_stale: OnStale = "error" if entry.format in kind.formats else "wait"
    options = options_for(candidate, threads, intel_target(bundle))
    model = open_artifact(bundle, entry, kind, options, on_stale=on_stale, dense=True)
    opened.callback(model.close)
    return Contender(candidate, Predictor(bundle, model, bundle.manifest.spec))
