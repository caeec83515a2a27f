"""Does a bundle still compute, on this device, what it computed where it was made?"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from edgecnn.bundle import GOLDEN_INPUT, GOLDEN_NAME, GOLDEN_OUTPUT, Bundle
from edgecnn.engine_cache import fits_here
from edgecnn.engines import OnStale
from edgecnn.errors import BundleError, EdgeCnnError, Unavailable
from edgecnn.loading import artifact_for, is_for, open_artifact, open_bundle
from edgecnn.manifest import ArtifactEntry
from edgecnn.parity import Parity, compare
from edgecnn.runtimes import Runtime, RuntimeOptions, backend, known

__all__ = ["ArtifactCheck", "Verification", "verify"]

# a device may round otherwise than the machine that made the bundle, on inputs that were among the measured
TOLERANCE = 1.5
# the few golden inputs may be harder than the many that the mean was measured on
MEAN_TOLERANCE = 5.0


@dataclass(frozen=True)
class ArtifactCheck:
    """What came of one artifact on one runtime; the figures are None where it did not run.

    Attributes:
        status: ``ok``, ``failed`` or ``skipped``.
        reason: Why it failed or was skipped.
    """

    id: str
    runtime: str
    status: str
    reason: str = ""
    max_abs: float | None = None
    cosine: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Verification:
    """What came of all artifacts; ``ok`` when none failed and at least one ran."""

    artifacts: tuple[ArtifactCheck, ...]

    @property
    def ok(self) -> bool:
        """No artifact failed and at least one was run."""
        statuses = [check.status for check in self.artifacts]
        return "failed" not in statuses and "ok" in statuses

    def to_json(self) -> dict[str, Any]:
        """``{"ok", "artifacts": […]}``."""
        return {"ok": self.ok, "artifacts": [asdict(check) for check in self.artifacts]}


def verify(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    runtime: str = "all",
    public_key: str | os.PathLike[str] | None = None,
) -> Verification:
    """Run every artifact on the golden inputs and compare with the reference's outputs.

    Opening the bundle has compared every file's sha256 before this starts.

    Args:
        bundle: A path, an open bundle or the name of one that ships.
        runtime: Name of a runtime, or ``all`` that are installed here.
        public_key: As `edgecnn.load`.

    Raises:
        BundleError: The bundle is missing, altered, unsafe or not signed, or has no golden tensors.
        InputError: No such runtime, or none that can load what the bundle holds.
        MissingDependency: The runtime asked for by name is not installed.
    """
    opened = open_bundle(bundle, public_key)
    golden = _golden(opened)
    if runtime == "all":
        runtimes = [backend(name) for name in known() if backend(name).is_engine]
    else:
        runtimes = [backend(runtime)]
        artifact_for(opened, runtimes[0])
        runtimes[0].check_here()
    checks = [
        _check(opened, entry, kind, golden, dense=dense)
        for entry in opened.manifest.artifacts
        for kind in runtimes
        if is_for(opened, entry, kind)
        for dense in ((False, True) if entry.dense is not None and entry.format in kind.formats else (False,))
    ]
    return Verification(tuple(checks))


def _golden(bundle: Bundle) -> dict[str, Any]:
    """The golden tensors, which have to cover every output."""
    golden = bundle.golden()
    if golden is None:
        raise BundleError(f"{bundle.path}: has no {GOLDEN_NAME}; convert it again")
    wanted = [GOLDEN_INPUT, *(GOLDEN_OUTPUT + info.name for info in bundle.manifest.outputs)]
    missing = [name for name in wanted if name not in golden or len(golden[name]) == 0]
    if missing:
        raise BundleError(f"{bundle.path / GOLDEN_NAME}: lacks {', '.join(missing)}; convert it again")
    return golden


def _check(
    bundle: Bundle, entry: ArtifactEntry, runtime: type[Runtime], golden: dict[str, Any], *, dense: bool
) -> ArtifactCheck:
    name = f"{entry.id}-dense" if dense else entry.id

    def outcome(status: str, reason: str) -> ArtifactCheck:
        return ArtifactCheck(name, runtime.name, status, reason)

    try:
        runtime.check_here()
    except Unavailable as error:
        return outcome("skipped", str(error))
    if entry.format == "tensorrt" and (reason := fits_here(entry.requires)):
        return outcome("skipped", reason)
    reference = {k[len(GOLDEN_OUTPUT) :]: v for k, v in golden.items() if k.startswith(GOLDEN_OUTPUT)}
    # an engine of the bundle is checked as it is, and not another one that is built in its place
    on_stale: OnStale = "error" if entry.format in runtime.formats else "wait"
    try:
        with open_artifact(bundle, entry, runtime, RuntimeOptions(), on_stale=on_stale, dense=dense) as model:
            outputs = model.run({model.inputs[0].name: golden[GOLDEN_INPUT]})
        if dense:  # an image that is one window; of the outputs it has the scores alone
            scores, expected = next(iter(reference.items()))
            (found, *_) = outputs.values()
            outputs, reference = {scores: found[:, :, 0, 0].reshape(expected.shape)}, {scores: expected}
        parity = compare(reference, outputs, bundle.manifest.spec)
    except EdgeCnnError as error:
        return outcome("failed", str(error))
    missed = _missed(parity, entry, bundle)
    return ArtifactCheck(
        name,
        runtime.name,
        "failed" if missed else "ok",
        missed or "",
        parity.max_abs,
        parity.cosine,
        parity.agreement,
    )


def _missed(parity: Parity, entry: ArtifactEntry, bundle: Bundle) -> str | None:
    """Why an artifact fails here. Below fp32 it may differ from the reference as much as where it was made.

    An engine with other INT8 arithmetic, such as sums that saturate, differs by far more.
    """
    missed = parity.missed("fp32")
    recorded = next(
        (row for row in bundle.manifest.fidelity if row.id == entry.id and row.compute == "f32"), None
    )
    if entry.precision == "fp32" or missed is None:
        return missed
    if recorded is None:
        return parity.missed(entry.precision)
    if (
        parity.max_abs <= TOLERANCE * recorded.max_abs
        and parity.mean_abs <= MEAN_TOLERANCE * recorded.mean_abs
    ):
        return None
    return (
        f"{parity.worst} differs by up to {parity.max_abs:.3g}, where the bundle was made by "
        f"{recorded.max_abs:.3g}: this machine computes something else"
    )
