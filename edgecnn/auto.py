"""Which runtime runs a bundle here: the one asked for, or one chosen by device and by measured time."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgecnn import devices
from edgecnn.bundle import Bundle
from edgecnn.devices.system import find_cpu
from edgecnn.errors import BundleError, CompilerFailed, EdgeCnnError, InputError, Unavailable, first_line
from edgecnn.inference import Inference
from edgecnn.loading import artifact_for, check_precision, open_artifact, open_bundle
from edgecnn.manifest import ArtifactEntry
from edgecnn.paths import cache_dir, make_private, replace_file
from edgecnn.runtimes import Runtime, RuntimeOptions, backend, known
from edgecnn.timing import interleaved_ms
from edgecnn.vision.windows import Level

if TYPE_CHECKING:
    from edgecnn.engines import OnStale

__all__ = [
    "Candidate",
    "Choice",
    "choose",
    "explain",
    "in_lower_arithmetic",
    "intel_target",
    "open_model",
    "options_for",
]

log = logging.getLogger(__name__)

RUNTIME_VARIABLE = "EDGECNN_RUNTIME"
# what the first start of a bundle takes longer for each way to run it
SECONDS_A_CANDIDATE = 0.4
# of a model of windows, the rows and columns of windows that are timed
WINDOWS_A_SIDE = 12


@dataclass(frozen=True)
class Candidate:
    """One way to run a bundle here.

    Attributes:
        runtime: What loads it.
        entry: The artifact.
        compute: Arithmetic of its float layers, see `RuntimeOptions`.
    """

    runtime: type[Runtime]
    entry: ArtifactEntry
    compute: str = "f32"

    def __str__(self) -> str:
        lower = "" if self.compute == "f32" else f" in {self.compute}"
        return f"{self.entry.id} on {self.runtime.name}{lower}"


@dataclass(frozen=True)
class Choice:
    """What ``auto`` takes, and why; ``measured`` is False where a guess waits for its measurement."""

    candidate: Candidate
    reason: str
    measured: bool = True


def open_model(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    on_stale: OnStale = "serve",
    dense: bool = False,
) -> Runtime:
    """Open the model of a bundle for raw tensors: ``open_model(path).run({"image": batch})``.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships.
        runtime: Name of a runtime; ``auto`` is what ``$EDGECNN_RUNTIME`` names, else TensorRT where there is
            an NVIDIA GPU for it, else the fastest of those that can run the bundle here. That is measured
            when a bundle is first opened on a machine, which takes about a second, and remembered.
        device: A profile of `edgecnn.devices`, such as ``intel-gpu``, whose runtimes are tried; ``auto``
            tries all on an NVIDIA GPU or the processor, and an Intel GPU or NPU where the bundle was
            converted for one that is here.
        precision: ``fp32``, ``fp16``, ``int8``; ``auto`` is the first one that the bundle lists and the
            runtime loads; what kept its accuracy at less cost is listed before fp32.
        threads: Threads of one inference; None uses the processors this process may use.
        on_stale: Where TensorRT's engine is yet to be built for this device: ``serve`` answers with ONNX
            Runtime meanwhile, ``wait`` builds it first, ``error`` does neither.
        dense: Of a model of windows: open the form that scores all windows of an image at once, where the
            bundle has one; it gives (batch, classes, rows, columns).

    Raises:
        BundleError: The bundle is missing, altered or unsafe, or holds nothing of that precision.
        InputError: No such runtime, device or precision.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle)
    if on_stale not in ("serve", "wait", "error"):
        raise InputError(f"on_stale is serve, wait or error, not {on_stale!r}")
    profile = intel_target(opened) if device == "auto" else devices.profile(device)
    if device != "auto" and profile is not None and runtime not in ("auto", *profile.runtimes):
        raise InputError(f"{device} runs {', '.join(profile.runtimes)}, not {runtime}")
    if runtime != "auto":
        candidate, why = _named(opened, runtime, precision, profile), "asked for"
    else:
        choice = choose(opened, precision=precision, threads=threads, profile=profile, dense=dense)
        candidate, why = choice.candidate, choice.reason
        log.info("%s: %s, %s", opened.path, candidate, why)
    options = options_for(candidate, threads, profile)
    model = open_artifact(opened, candidate.entry, candidate.runtime, options, on_stale=on_stale, dense=dense)
    model.facts["chosen"] = why
    return model


def choose(
    bundle: Bundle,
    *,
    precision: str = "auto",
    threads: int | None = None,
    profile: devices.DeviceProfile | None = None,
    measure: bool = True,
    dense: bool = True,
) -> Choice:
    """What ``auto`` takes.

    Args:
        bundle: The bundle.
        precision: As `open_model`.
        threads: As `open_model`.
        profile: Whose runtimes to try; None is all that are here.
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
    candidates = _candidates(bundle, precision, profile)
    first = candidates[0]
    if len(candidates) == 1:
        return Choice(first, "the only way to run it here")
    if first.runtime.builds_from:
        return Choice(first, "this device has a GPU for it")
    dense = dense and bundle.manifest.spec.window is not None
    path = _remembered(bundle, candidates, threads, profile, dense=dense)
    tried = _recall(path, candidates)
    if tried is None and measure:
        tried = _measure(bundle, candidates, threads, profile, dense=dense)
        if not any(tried.values()):
            return Choice(first, "none of those that can run it here did", measured=False)
        # what was in the way of one may be gone at the next start
        if len(tried) == len(candidates):
            _remember(path, tried)
    if tried is None:
        return Choice(first, "not measured here yet: the first start does that", measured=False)
    times = {name: ms for name, ms in tried.items() if ms is not None}
    best = min(candidates, key=lambda candidate: times.get(str(candidate), float("inf")))
    listed = ", ".join(f"{name} {ms:.2f} ms" for name, ms in sorted(times.items(), key=lambda item: item[1]))
    return Choice(best, f"the fastest measured here ({listed})")


def explain(bundle: Bundle) -> str:
    """What ``auto`` takes here and why, in a line; nothing is measured for it."""
    try:
        choice = choose(bundle, profile=intel_target(bundle), measure=False)
    except EdgeCnnError as error:
        return first_line(error)
    return f"{choice.candidate}: {choice.reason}" if choice.measured else choice.reason


def intel_target(bundle: Bundle) -> devices.DeviceProfile | None:
    """The profile that a bundle was converted for, where that is an Intel GPU or NPU of this machine."""
    target = bundle.manifest.device
    if target is None or not target.profile.startswith("intel-"):
        return None
    profile = devices.profile(target.profile)
    return profile if profile.openvino_device in devices.this_device().intel else None


def _named(bundle: Bundle, name: str, precision: str, profile: devices.DeviceProfile | None) -> Candidate:
    """What somebody asks for by name."""
    kind = backend(name)
    order = profile.precisions(name) if profile is not None else ()
    return Candidate(kind, artifact_for(bundle, kind, precision, order))


def _candidates(
    bundle: Bundle, precision: str, profile: devices.DeviceProfile | None
) -> tuple[Candidate, ...]:
    """What can run a bundle here, in the order in which the device tries it."""
    there = {entry.precision for entry in bundle.manifest.artifacts}
    check_precision(precision)
    if precision != "auto" and precision not in there:
        listed = ", ".join(entry.id for entry in bundle.manifest.artifacts)
        raise BundleError(f"{bundle.path}: holds nothing in {precision}, but {listed}")
    found: list[Candidate] = []
    reasons = []
    for name in profile.runtimes if profile is not None else known():
        kind = backend(name)
        if not kind.is_engine:
            continue
        try:
            kind.check_here()
            entry = artifact_for(bundle, kind, precision, profile.precisions(name) if profile else ())
        except (Unavailable, BundleError) as error:
            reasons.append(f"{name}: {error}")
            continue
        found += [Candidate(kind, entry), *in_lower_arithmetic(bundle, kind, precision)]
    if not found:
        raise Unavailable(f"no runtime here can run {bundle.path} ({'; '.join(reasons)})")
    return tuple(sorted(found, key=lambda candidate: not candidate.runtime.builds_from))


def in_lower_arithmetic(bundle: Bundle, kind: type[Runtime], precision: str) -> list[Candidate]:
    """Float artifacts whose accuracy held in arithmetic below float32 that this machine has."""
    if len(kind.computes()) == 1:
        return []
    entries = {entry.id: entry for entry in bundle.manifest.artifacts if entry.format in kind.formats}
    return [
        Candidate(kind, entries[row.id], row.compute)
        for row in bundle.manifest.fidelity
        if row.compute != "f32" and row.compute in kind.computes() and row.runtime == kind.name
        if row.id in entries and precision in ("auto", entries[row.id].precision)
    ]


def options_for(
    candidate: Candidate, threads: int | None, profile: devices.DeviceProfile | None
) -> RuntimeOptions:
    """How a candidate is opened here."""
    device, compute = "auto", candidate.compute
    if profile is not None and profile.openvino_device and candidate.runtime.name == "openvino":
        device = profile.openvino_device.lower()
        # an NPU has nothing else, and a GPU is given fp16 for the speed of it
        if device == "npu" or (device == "gpu" and candidate.entry.precision != "fp32"):
            compute = "f16"
    return RuntimeOptions(threads=threads, device=device, compute=compute)  # type: ignore[arg-type]


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
                call = _call(model, bundle, dense=dense)
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


def _call(model: Runtime, bundle: Bundle, *, dense: bool) -> Callable[[], object]:
    """What is timed of a model: one batch, or all windows of a small picture in whichever form it has."""
    info, spec = bundle.manifest.inputs[0], bundle.manifest.spec
    rng = np.random.default_rng(0)
    if dense and spec.window is not None:
        starts = tuple(range(0, WINDOWS_A_SIDE * spec.window.stride, spec.window.stride))
        size_hw = (spec.size_hw[0] + starts[-1], spec.size_hw[1] + starts[-1])
        frame = rng.integers(0, 256, (*size_hw, 3), np.uint8)
        return partial(Inference(model, spec).score_windows, frame, [Level(size_hw, (1, 1), starts, starts)])
    shape = [size if isinstance(size, int) else spec.batch_range[1] for size in info.shape]
    return partial(model.run, {info.name: rng.integers(0, 256, shape, np.uint8)})


def _remembered(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    threads: int | None,
    profile: devices.DeviceProfile | None,
    *,
    dense: bool,
) -> Path:
    """Where the times are kept: under a name made of all that they depend on."""
    cpu = find_cpu()
    parts = [cpu.model, str(cpu.usable_cores), str(threads), str(dense)]
    for candidate in candidates:
        parts += [
            str(candidate),
            options_for(candidate, threads, profile).device,
            candidate.runtime.version(),
            *(bundle.file(path).sha256 for path in candidate.entry.paths),
        ]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return cache_dir() / "choices" / f"{name}.json"


def _recall(path: Path, candidates: Sequence[Candidate]) -> dict[str, float | None] | None:
    """The times that are kept; None where there are none, or not of these candidates."""
    try:
        tried = msgspec.json.decode(path.read_bytes(), type=dict[str, float | None])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    of_these = set(tried) == {str(candidate) for candidate in candidates} and any(tried.values())
    return tried if of_these and all(ms is None or ms > 0 for ms in tried.values()) else None


def _remember(path: Path, times: dict[str, float | None]) -> None:
    try:
        make_private(path.parent)
        replace_file(path, msgspec.json.encode(times))
    except OSError as error:
        log.info("%s: cannot be written (%s), so the next start measures again", path.parent, error.strerror)
