"""From a bundle to a loaded model: which artifact, on which runtime."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, InputError, MissingDependency, Unavailable
from edgecnn.manifest import ArtifactEntry
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend, known

__all__ = ["artifact_for", "bundle_path", "open_artifact", "open_bundle", "open_model"]


def open_model(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Runtime:
    """Open the model of a bundle for raw tensors: ``open_model(path).run({"image": batch})``.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships.
        runtime: Name of a runtime, or ``auto``.
        precision: ``fp32``, ``fp16``, ``int8``; ``auto`` is the first one that the bundle lists and the
            runtime loads; what kept its accuracy at less cost is listed before fp32.
        threads: Threads of one inference; None uses the processors this process may use.

    Raises:
        BundleError: The bundle is missing, altered or unsafe, or holds nothing of that precision.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle)
    options = RuntimeOptions(threads=threads)
    if runtime != "auto":
        return _open(opened, backend(runtime), precision, options)
    if precision != "auto" and precision not in {entry.precision for entry in opened.manifest.artifacts}:
        there = ", ".join(entry.id for entry in opened.manifest.artifacts)
        raise BundleError(f"{opened.path}: holds nothing in {precision}, but {there}")
    reasons = []
    for name in known():
        kind = backend(name)
        if not kind.is_engine:
            continue
        try:
            kind.version()
            return _open(opened, kind, precision, options)
        except (MissingDependency, BundleError) as error:
            reasons.append(f"{name}: {error}")
    raise Unavailable(f"no runtime here can run {opened.path} ({'; '.join(reasons)})")


def open_bundle(bundle: str | os.PathLike[str] | Bundle) -> Bundle:
    """A bundle by path, by the name of one that ships, or as it is.

    Raises:
        InputError: It is none of these.
        BundleError: The bundle is missing, altered or unsafe.
    """
    if not isinstance(bundle, (str, os.PathLike, Bundle)):
        raise InputError(f"a bundle is a path, a name or a Bundle, not a {type(bundle).__name__}")
    return bundle if isinstance(bundle, Bundle) else Bundle(bundle_path(bundle))


def bundle_path(bundle: str | os.PathLike[str]) -> Path:
    """The path of a bundle: itself, or that of the shipped bundle of this name.

    A bare name that ships is always the shipped one; a folder of that name is ``./face``.
    """
    name = os.fspath(bundle)
    shipped = {path.stem: path for path in Path(str(files("edgecnn") / "models")).glob("*.edge")}
    return shipped.get(name, Path(name))


def artifact_for(bundle: Bundle, runtime: type[Runtime], precision: str = "auto") -> ArtifactEntry:
    """The first artifact of a precision that a runtime can load and that is placed for it.

    Raises:
        InputError: There is no such precision.
        BundleError: There is no such artifact.
    """
    if precision not in ("auto", "fp32", "fp16", "int8"):
        raise InputError(f"precision is auto, fp32, fp16 or int8, not {precision!r}")
    for entry in bundle.manifest.artifacts:
        fits = entry.format in runtime.formats and entry.placement in (None, runtime.placement)
        if fits and precision in ("auto", entry.precision):
            return entry
    there = ", ".join(f"{entry.id} ({entry.format})" for entry in bundle.manifest.artifacts)
    wanted = "" if precision == "auto" else f" in {precision}"
    raise BundleError(
        f"{bundle.path}: the runtime {runtime.name} takes {' or '.join(runtime.formats)}{wanted}, "
        f"it holds {there}"
    )


def open_artifact(
    bundle: Bundle, entry: ArtifactEntry, runtime: type[Runtime], options: RuntimeOptions
) -> Runtime:
    """Load one artifact of a bundle: its bytes are hashed, then handed to the engine."""
    manifest = bundle.manifest
    artifact = Artifact(
        format=entry.format,
        content=bundle.read(entry.path),
        name=str(bundle.path / entry.path),
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        precision=entry.precision,
    )
    return runtime(artifact, options)


def _open(bundle: Bundle, runtime: type[Runtime], precision: str, options: RuntimeOptions) -> Runtime:
    return open_artifact(bundle, artifact_for(bundle, runtime, precision), runtime, options)
