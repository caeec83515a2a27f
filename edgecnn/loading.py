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
    bundle: str | os.PathLike[str] | Bundle, *, runtime: str = "auto", threads: int | None = None
) -> Runtime:
    """Open the model of a bundle for raw tensors: ``open_model(path).run({"image": batch})``.

    Raises:
        BundleError: The bundle is missing, altered or unsafe.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle)
    options = RuntimeOptions(threads=threads)
    if runtime != "auto":
        return _open(opened, backend(runtime), options)
    reasons = []
    for name in known():
        kind = backend(name)
        if not kind.is_engine:
            continue
        try:
            kind.version()
            return _open(opened, kind, options)
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


def artifact_for(bundle: Bundle, runtime: type[Runtime]) -> ArtifactEntry:
    """The first artifact that a runtime can load.

    Raises:
        BundleError: There is none.
    """
    for entry in bundle.manifest.artifacts:
        if entry.format in runtime.formats:
            return entry
    there = ", ".join(sorted({entry.format for entry in bundle.manifest.artifacts}))
    raise BundleError(
        f"{bundle.path}: the runtime {runtime.name} takes {' or '.join(runtime.formats)}, it holds {there}"
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
    )
    return runtime(artifact, options)


def _open(bundle: Bundle, runtime: type[Runtime], options: RuntimeOptions) -> Runtime:
    return open_artifact(bundle, artifact_for(bundle, runtime), runtime, options)
