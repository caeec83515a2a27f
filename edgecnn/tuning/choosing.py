"""``tune()``: the fastest setting of a bundle on this machine, kept for ``auto``."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from edgecnn.auto import RUNTIME_VARIABLE
from edgecnn.bundle import Bundle
from edgecnn.candidates import engines_here, find_candidates, intel_target
from edgecnn.choices import Objective, Tuned, tuned_path
from edgecnn.devices.system import find_cpu
from edgecnn.errors import InputError, Unavailable, first_line
from edgecnn.loading import artifact_for, open_bundle
from edgecnn.paths import cannot_write, make_private, replace_file
from edgecnn.progress import OnWork, silent_work
from edgecnn.runtimes import Runtime, RuntimeOptions, backend
from edgecnn.tuning.results import Tuning, TuningRow
from edgecnn.tuning.search import Search
from edgecnn.tuning.settings import Grid, Setting

__all__ = ["forget", "tune"]

log = logging.getLogger(__name__)

PAGE = 4096  # of bytes: what a file system gives at once

OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput")


def tune(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    objective: Objective = "latency",
    runtime: str = "all",
    threads: int | None = None,
    seconds: float = 5.0,
    on_work: OnWork = silent_work,
) -> Tuning:
    """Find what runs a bundle fastest on this machine; ``auto`` takes it from then on.

    What is in a bundle has held its accuracy budget, so that time alone decides.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships.
        objective: ``latency`` of one input after the other, or ``throughput`` of many side by side.
        runtime: Names with commas between them, or ``all`` that can be used here.
        threads: Threads to use at most; None is one for each processor that this process may use.
        seconds: How long to time what is close to the fastest; the way there takes some seconds more.
        on_work: Told what goes on.

    Raises:
        BundleError: The bundle is missing, altered or unsafe, or a runtime takes nothing of it.
        InputError: An argument cannot be used.
        Unavailable: No runtime on this machine can run it, or the cache cannot be written.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"objective is latency or throughput, not {objective!r}")
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, not {seconds!r}")
    threads = RuntimeOptions(threads=threads).thread_count
    opened, cpu = open_bundle(bundle), find_cpu()
    path = _path(opened, objective)
    _check_writable(path.parent)
    if os.environ.get(RUNTIME_VARIABLE) not in (None, "", "auto"):
        log.warning("$%s names a runtime, which goes before what is found here", RUNTIME_VARIABLE)
    profile = intel_target(opened)
    engines, missing = engines_here(profile) if runtime == "all" else (_named(opened, runtime), [])
    precisions = sorted({entry.precision for entry in opened.manifest.artifacts})
    candidates, refused = find_candidates(opened, engines, precisions, profile)
    if not candidates:
        raise Unavailable(f"no runtime here can run {opened.path} ({'; '.join([*missing, *refused])})")
    with ExitStack() as closing:
        grid = Grid.of(opened, objective, min(threads, cpu.usable_cores))
        search = Search(opened, profile, grid, closing, on_work)
        found = search.fastest(candidates, seconds)
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    best, best_ms = found[0]
    kept = Tuned(
        candidate=str(best.candidate),
        threads=best.threads,
        streams=best.streams,
        batch=best.batch,
        ms=best_ms,
        settings=len(found),
        created=created,
    )
    try:
        replace_file(path, msgspec.json.encode(kept))
    except OSError as error:
        raise cannot_write(path, error) from error
    return Tuning(
        bundle=opened.manifest.name,
        objective=objective,
        created=created,
        cpu=cpu.model,
        cores=cpu.usable_cores,
        rows=tuple(_row(setting, ms, best_ms) for setting, ms in found),
        best=str(best),
        left_out={name: first_line(error) for name, error in search.refused.items()},
        stored=str(path),
    )


def forget(bundle: str | os.PathLike[str] | Bundle) -> list[Objective]:
    """Forget what `tune` found for a bundle here: ``auto`` chooses as it did before.

    Returns:
        The objectives that something was kept for.

    Raises:
        BundleError: The bundle is missing, altered or unsafe.
        Unavailable: The cache cannot be written.
    """
    opened = open_bundle(bundle)
    paths = {objective: _path(opened, objective) for objective in OBJECTIVES}
    kept = [objective for objective, path in paths.items() if path.exists()]
    for objective in kept:
        _check_writable(paths[objective].parent)
        paths[objective].unlink(missing_ok=True)
    return kept


def _path(bundle: Bundle, objective: Objective) -> Path:
    profile = intel_target(bundle)
    return tuned_path(bundle, engines_here(profile)[0], objective, profile.name if profile else "")


def _check_writable(folder: Path) -> None:
    try:
        make_private(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PAGE))
    except OSError as error:
        raise Unavailable(
            f"{folder} cannot be written ({error.strerror}), where the fastest is kept; set EDGECNN_CACHE"
        ) from error


def _named(bundle: Bundle, names: str) -> Sequence[type[Runtime]]:
    kinds = [backend(name) for name in dict.fromkeys(map(str.strip, names.split(",")))]
    for kind in kinds:
        artifact_for(bundle, kind)
        kind.check_here()
    return kinds


def _row(setting: Setting, ms: float, best_ms: float) -> TuningRow:
    candidate = setting.candidate
    return TuningRow(
        id=candidate.entry.id,
        runtime=candidate.runtime.name,
        precision=candidate.entry.precision,
        compute=candidate.compute,
        threads=setting.threads,
        streams=setting.streams,
        batch=setting.batch,
        ms=ms,
        per_second=round(1e3 / ms, 2),
        ratio=round(ms / best_ms, 4),
    )
