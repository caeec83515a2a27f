"""From a bundle to a loaded model: which of its artifacts a runtime takes, and how it is opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, EngineMismatch, InputError
from edgecnn.external_data import external_tensor
from edgecnn.manifest import ArtifactEntry, DenseForm
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from edgecnn.signing import required_key

if TYPE_CHECKING:
    from edgecnn.engines import OnStale

__all__ = [
    "artifact_for",
    "bundle_path",
    "check_precision",
    "is_for",
    "open_artifact",
    "open_bundle",
    "read_artifact",
]

log = logging.getLogger(__name__)

PRECISIONS = ("int8", "fp16", "fp32")  # what costs least first


def open_bundle(
    bundle: str | os.PathLike[str] | Bundle, public_key: str | os.PathLike[str] | None = None
) -> Bundle:
    """A bundle by path, by the name of one that ships, or as it is.

    Args:
        bundle: One of these.
        public_key: Of whoever has to have signed it, a PEM file; None is what
            ``$EDGECNN_REQUIRE_SIGNATURE`` names, else nobody.

    Raises:
        InputError: It is none of these, there is no such key, or the variable is empty.
        BundleError: The bundle is missing, altered, unsafe, or not signed.
    """
    if not isinstance(bundle, (str, os.PathLike, Bundle)):
        raise InputError(f"a bundle is a path, a name or a Bundle, not a {type(bundle).__name__}")
    key = required_key() if public_key is None else public_key
    if not isinstance(bundle, Bundle):
        return Bundle(bundle_path(bundle), public_key=key)
    if key is not None:
        bundle.check_signature(key)
    return bundle


def bundle_path(bundle: str | os.PathLike[str]) -> Path:
    """The path of a bundle: itself, or that of the shipped bundle of this name.

    A bare name that ships is always the shipped one; a folder of that name is ``./face``.
    """
    name = os.fspath(bundle)
    shipped = {path.stem: path for path in Path(str(files("edgecnn") / "models")).glob("*.edge")}
    return shipped.get(name, Path(name))


def check_precision(precision: str) -> None:
    """See that there is such a precision.

    Raises:
        InputError: There is not.
    """
    if precision not in ("auto", "fp32", "fp16", "int8"):
        raise InputError(f"precision is auto, fp32, fp16 or int8, not {precision!r}")


def artifact_for(
    bundle: Bundle, runtime: type[Runtime], precision: str = "auto", prefer: Sequence[str] = ()
) -> ArtifactEntry:
    """The artifact that a runtime takes here.

    Of what it can load and what is placed for it, its own format comes before others, an engine only where
    it fits this device. Of a format it is the precision that the bundle lists first, which was the fastest
    where it was made; where the runtime builds engines of its own, the precision that costs least.

    Args:
        bundle: The bundle.
        runtime: What is to load it.
        precision: The one to take; ``auto`` takes any.
        prefer: Precisions in the order in which a device is known to run them best.

    Raises:
        InputError: There is no such precision.
        BundleError: There is no such artifact.
    """
    check_precision(precision)
    formats = (*runtime.formats, *runtime.builds_from)
    fitting = [
        entry
        for entry in bundle.manifest.artifacts
        if entry.format in formats
        and precision in ("auto", entry.precision)
        and entry.placement in (None, runtime.placement)
        and _fits(entry)
    ]
    order = tuple(prefer) or (PRECISIONS if runtime.builds_from else ())
    if fitting:
        return min(
            fitting,
            key=lambda entry: (
                formats.index(entry.format),
                order.index(entry.precision) if entry.precision in order else len(order),
            ),
        )
    there = ", ".join(f"{entry.id} ({entry.format})" for entry in bundle.manifest.artifacts)
    asked = "" if precision == "auto" else f" in {precision}"
    raise BundleError(
        f"{bundle.path}: the runtime {runtime.name} takes {' or '.join(formats)}{asked}, it holds {there}"
    )


def is_for(bundle: Bundle, entry: ArtifactEntry, kind: type[Runtime]) -> bool:
    """It can load the artifact, which is placed for it or was measured on it where the bundle was made."""
    measured = any((row.id, row.runtime) == (entry.id, kind.name) for row in bundle.manifest.fidelity)
    placed = entry.placement in (None, kind.placement)
    return entry.format in (*kind.formats, *kind.builds_from) and (placed or measured)


def _fits(entry: ArtifactEntry) -> bool:
    if entry.format != "tensorrt":
        return True
    from edgecnn.engine_cache import fits_here

    return fits_here(entry.requires) is None


def read_artifact(bundle: Bundle, entry: ArtifactEntry, *, dense: bool = False) -> Artifact:
    """One artifact of a bundle for an engine; its bytes are hashed first.

    Args:
        bundle: The bundle.
        entry: Which of its artifacts.
        dense: Its form for all windows of an image, which it has to have.

    Raises:
        BundleError: A file of it is altered, or keeps weights in a file that the bundle does not list.
    """
    manifest = bundle.manifest
    form = entry.dense if dense and entry.dense is not None else entry
    content, name = bundle.read(form.path), str(bundle.path / form.path)
    if entry.format == "onnx":
        _check_own_weights(content, name)
    return Artifact(
        format=entry.format,
        content=content,
        name=name,
        inputs=manifest.inputs,
        # a dense form gives the scores alone, as a map
        outputs=() if isinstance(form, DenseForm) else manifest.outputs,
        precision=entry.precision,
        placement=entry.placement,
        weights=bundle.read(form.weights) if form.weights else b"",
        dense_stride=form.stride if isinstance(form, DenseForm) else None,
        dense_exact=form.exact if isinstance(form, DenseForm) else True,
    )


def _check_own_weights(model: bytes, name: str) -> None:
    try:
        external = external_tensor(model)
    except ValueError as error:
        raise BundleError(f"{name}: not an ONNX model ({error})") from error
    if external is not None:
        raise BundleError(f"{name}: the weights ({external!r}) are in another file, which is never opened")


def open_artifact(
    bundle: Bundle,
    entry: ArtifactEntry,
    runtime: type[Runtime],
    options: RuntimeOptions,
    *,
    on_stale: OnStale = "serve",
    dense: bool = False,
) -> Runtime:
    """Load one artifact of a bundle.

    Args:
        bundle: The bundle.
        entry: Which of its artifacts.
        runtime: What to load it with.
        options: How.
        on_stale: What to do where TensorRT's engine is yet to be built, or the bundle's does not load here;
            see `edgecnn.engines`.
        dense: Take its form for all windows of an image, where it has one and the runtime loads it as it is.
    """
    artifact = read_artifact(
        bundle, entry, dense=dense and runtime.is_engine and entry.format in runtime.formats
    )
    if entry.format not in runtime.builds_from:
        try:
            return runtime(artifact, options)
        except EngineMismatch as error:
            made_from = {each.id: each for each in bundle.manifest.artifacts}.get(
                entry.requires.get("source", "")
            )
            if on_stale == "error" or made_from is None:
                raise
            log.warning("%s", error)
            return open_artifact(bundle, made_from, runtime, options, on_stale=on_stale)
    from edgecnn.engines import open_on_tensorrt

    def fallback() -> Runtime:
        meanwhile = backend("ort")
        serving = artifact_for(bundle, meanwhile, prefer=[entry.precision])
        return open_artifact(bundle, serving, meanwhile, RuntimeOptions(threads=options.threads))

    return open_on_tensorrt(
        artifact, options, fallback=fallback, on_stale=on_stale, batches=bundle.manifest.spec.batch_range
    )
