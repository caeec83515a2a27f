"""Which runtime runs a bundle here: the one asked for, or one chosen by device and by measured time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgecnn import devices
from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate, engines_here, find_candidates, intel_target, options_for
from edgecnn.choices import (
    Objective,
    Tuned,
    recall_times,
    recall_tuned,
    remember_times,
    times_path,
    tuned_path,
)
from edgecnn.errors import BundleError, CompilerFailed, EdgeCnnError, InputError, Unavailable, first_line
from edgecnn.inference import Inference
from edgecnn.loading import artifact_for, check_precision, open_artifact, open_bundle
from edgecnn.runtimes import Feeds, Runtime, RuntimeOptions, backend
from edgecnn.timing import interleaved_ms
from edgecnn.vision.windows import Level

if TYPE_CHECKING:
    from edgecnn.engines import OnStale

__all__ = ["Choice", "choose", "explain", "open_model", "usual_call", "usual_feeds"]

log = logging.getLogger(__name__)

RUNTIME_VARIABLE = "EDGECNN_RUNTIME"
# what the first start of a bundle takes longer for each way to run it
SECONDS_A_CANDIDATE = 0.4
# of a model of windows, the rows and columns of windows that are timed
WINDOWS_A_SIDE = 12


@dataclass(frozen=True)
class Choice:
    """What ``auto`` takes, and why.

    Attributes:
        candidate: The artifact and its engine.
        reason: In words.
        measured: False where a guess waits for its measurement.
        tuned: How `edgecnn.tune` found it to be the fastest; None where that was not asked.
    """

    candidate: Candidate
    reason: str
    measured: bool = True
    tuned: Tuned | None = None


def open_model(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    mode: Objective = "latency",
    on_stale: OnStale = "serve",
    dense: bool = False,
    public_key: str | os.PathLike[str] | None = None,
) -> Runtime:
    """Open the model of a bundle for raw tensors: ``open_model(path).run({"image": batch})``.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships.
        runtime: Name of a runtime; ``auto`` is what ``$EDGECNN_RUNTIME`` names, else what `edgecnn.tune`
            found here, else TensorRT where there is an NVIDIA GPU for it, else the fastest of those that can
            run the bundle here. That is measured when a bundle is first opened on a machine, which takes
            about a second, and remembered.
        device: A profile of `edgecnn.devices`, such as ``intel-gpu``, whose runtimes are tried; ``auto``
            tries all on an NVIDIA GPU or the processor, and an Intel GPU or NPU where the bundle was
            converted for one that is here.
        precision: ``fp32``, ``fp16``, ``int8``; ``auto`` is the first one that the bundle lists and the
            runtime loads; what kept its accuracy at less cost is listed before fp32.
        threads: Threads of one inference; None is what `edgecnn.tune` found where runtime, device and
            precision are left to it as well, else uses the processors this process may use.
        mode: ``latency`` of one inference after the other; ``throughput`` of many, which `Runtime.submit`
            takes side by side.
        on_stale: Where TensorRT's engine is yet to be built for this device: ``serve`` answers with ONNX
            Runtime meanwhile, ``wait`` builds it first, ``error`` does neither.
        dense: Of a model of windows: open the form that scores all windows of an image at once, where the
            bundle has one; it gives (batch, classes, rows, columns).
        public_key: Of whoever has to have signed the bundle, a PEM file; None is what
            ``$EDGECNN_REQUIRE_SIGNATURE`` names, else nobody.

    Raises:
        BundleError: The bundle is missing, altered, unsafe or not signed, or holds nothing of that precision.
        InputError: No such runtime, device or precision.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle, public_key)
    if on_stale not in ("serve", "wait", "error"):
        raise InputError(f"on_stale is serve, wait or error, not {on_stale!r}")
    RuntimeOptions(threads=threads, mode=mode)  # says what is wrong with them before anything is measured
    profile = intel_target(opened) if device == "auto" else devices.profile(device)
    if device != "auto" and profile is not None and runtime not in ("auto", *profile.runtimes):
        raise InputError(f"{device} runs {', '.join(profile.runtimes)}, not {runtime}")
    if runtime != "auto":
        choice = Choice(_named(opened, runtime, precision, profile), "asked for")
    else:
        choice = choose(opened, precision=precision, threads=threads, profile=profile, mode=mode, dense=dense)
        log.info("%s: %s, %s", opened.path, choice.candidate, choice.reason)
    candidate, tuned, streams = choice.candidate, choice.tuned, None
    if tuned is not None:
        threads, streams = tuned.threads, tuned.streams
    options = options_for(candidate, threads, profile, mode=mode, streams=streams)
    model = open_artifact(opened, candidate.entry, candidate.runtime, options, on_stale=on_stale, dense=dense)
    model.facts["chosen"] = choice.reason
    if tuned is not None:
        model.facts["batch"] = str(tuned.batch)
    return model


def choose(
    bundle: Bundle,
    *,
    precision: str = "auto",
    threads: int | None = None,
    profile: devices.DeviceProfile | None = None,
    mode: Objective = "latency",
    measure: bool = True,
    dense: bool = True,
) -> Choice:
    """What ``auto`` takes.

    Args:
        bundle: The bundle.
        precision: As `open_model`.
        threads: As `open_model`.
        profile: Whose runtimes to try; None is all that are here.
        mode: As `open_model`; latencies decide where nothing was tuned.
        measure: Measure where that was not done yet; else the choice may be a guess.
        dense: Of windows, time what scores all of them at once where there is such a form.

    Raises:
        BundleError: The bundle holds nothing of that precision.
        InputError: No such precision, or ``$EDGECNN_RUNTIME`` names no runtime.
        Unavailable: No runtime on this machine can run it.
    """
    named = os.environ.get(RUNTIME_VARIABLE) or "auto"
    if named != "auto":
        try:
            return Choice(_named(bundle, named, precision, profile), f"${RUNTIME_VARIABLE} names it")
        except InputError as error:
            raise InputError(f"${RUNTIME_VARIABLE}: {error}") from error
    there = {entry.precision for entry in bundle.manifest.artifacts}
    check_precision(precision)
    if precision != "auto" and precision not in there:
        listed = ", ".join(entry.id for entry in bundle.manifest.artifacts)
        raise BundleError(f"{bundle.path}: holds nothing in {precision}, but {listed}")
    engines, missing = engines_here(profile)
    window = bundle.manifest.spec.window is not None
    if precision == "auto" and threads is None and (dense or not window):
        tuned = _tuned(bundle, engines, mode, profile)
        if tuned is not None:
            return tuned
    candidates, refused = find_candidates(bundle, engines, (precision,), profile)
    if not candidates:
        raise Unavailable(f"no runtime here can run {bundle.path} ({'; '.join([*missing, *refused])})")
    first = candidates[0]
    if len(candidates) == 1:
        return Choice(first, "the only way to run it here")
    if first.runtime.builds_from:
        return Choice(first, "this device has a GPU for it")
    dense = dense and window
    on = [options_for(each, threads, profile).device for each in candidates]
    path = times_path(bundle, candidates, on, threads, dense=dense)
    tried = recall_times(path, candidates)
    if tried is None and measure:
        tried = _measure(bundle, candidates, threads, profile, dense=dense)
        if not any(tried.values()):
            return Choice(first, "none of those that can run it here did", measured=False)
        # what was in the way of one may be gone at the next start
        if len(tried) == len(candidates):
            remember_times(path, tried)
    if tried is None:
        return Choice(first, "not measured here yet: the first start does that", measured=False)
    times = {name: ms for name, ms in tried.items() if ms is not None}
    best = min(candidates, key=lambda candidate: times.get(str(candidate), float("inf")))
    listed = ", ".join(f"{name} {ms:.2f} ms" for name, ms in sorted(times.items(), key=lambda item: item[1]))
    return Choice(best, f"the fastest measured here ({listed})")


def explain(bundle: Bundle) -> str:
    """What ``auto`` takes here and why, in a line; nothing is measured for it."""
    choose_here = partial(choose, bundle, profile=intel_target(bundle), measure=False)
    try:
        choice, many = choose_here(), choose_here(mode="throughput")
    except EdgeCnnError as error:
        return first_line(error)
    text = f"{choice.candidate}: {choice.reason}" if choice.measured else choice.reason
    return text + (f"; {many.candidate}: {many.reason}" if many.tuned else "")


def _named(bundle: Bundle, name: str, precision: str, profile: devices.DeviceProfile | None) -> Candidate:
    """What somebody asks for by name."""
    kind = backend(name)
    order = profile.precisions(name) if profile is not None else ()
    return Candidate(kind, artifact_for(bundle, kind, precision, order))


def _tuned(
    bundle: Bundle,
    engines: Sequence[type[Runtime]],
    mode: Objective,
    profile: devices.DeviceProfile | None,
) -> Choice | None:
    """What `edgecnn.tune` found."""
    path = tuned_path(bundle, engines, mode, profile.name if profile else "")
    precisions = sorted({entry.precision for entry in bundle.manifest.artifacts})
    found = recall_tuned(path, find_candidates(bundle, engines, precisions, profile)[0])
    if found is None:
        return None
    candidate, tuned = found
    return Choice(candidate, f"tuned here for {mode} on {tuned.created[:10]} ({tuned})", tuned=tuned)


def _measure(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    threads: int | None,
    profile: devices.DeviceProfile | None,
    *,
    dense: bool,
) -> dict[str, float | None]:
    """Median ms of one inference of each, in turns; None for what is refused, no entry for what fails."""
    with ExitStack() as opened:
        calls = {}
        refused: dict[str, float | None] = {}
        for candidate in candidates:
            try:
                model = open_artifact(
                    bundle,
                    candidate.entry,
                    candidate.runtime,
                    options_for(candidate, threads, profile),
                    dense=dense,
                )
                opened.callback(model.close)
                call = usual_call(model, bundle, dense=dense)
                call()
            except (InputError, Unavailable) as error:
                log.warning("%s cannot be used: %s", candidate, first_line(error))
                if not isinstance(error, (CompilerFailed, Unavailable)):
                    refused[str(candidate)] = None
                continue
            calls[str(candidate)] = call
        if not calls:
            return refused
        seconds = SECONDS_A_CANDIDATE * len(calls)
        times = interleaved_ms(calls, seconds=seconds)
        return refused | {name: round(ms, 4) for name, ms in times.items()}


def usual_call(
    model: Runtime, bundle: Bundle, *, dense: bool, windows_a_side: int = WINDOWS_A_SIDE
) -> Callable[[], object]:
    """What is timed of a model: one batch, or all windows of a small picture in whichever form it has.

    Args:
        model: Loaded from the bundle.
        bundle: The bundle.
        dense: Of windows, take such a picture.
        windows_a_side: Rows and columns of them.
    """
    spec = bundle.manifest.spec
    if not dense or spec.window is None:
        return partial(model.run, usual_feeds(bundle, spec.batch_range[1]))
    starts = tuple(range(0, windows_a_side * spec.window.stride, spec.window.stride))
    size_hw = (spec.size_hw[0] + starts[-1], spec.size_hw[1] + starts[-1])
    frame = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    return partial(Inference(model, spec).score_windows, frame, [Level(size_hw, (1, 1), starts, starts)])


def usual_feeds(bundle: Bundle, batch: int) -> Feeds:
    """Noise for the input of a bundle's models; the batch is for those that leave it open."""
    info = bundle.manifest.inputs[0]
    shape = [size if isinstance(size, int) else batch for size in info.shape]
    return {info.name: np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
