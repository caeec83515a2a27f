"""One artifact that was tried: compared with the reference, marked, timed where it is meant to run here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.calibration.placement import Placement
from edgecnn.calibration.search import Choice
from edgecnn.judging import Judge, outputs_of
from edgecnn.manifest import ArtifactEntry, Fidelity, Quantization
from edgecnn.parity import compare
from edgecnn.runtimes import Artifact, Outputs, Runtime, RuntimeOptions, backend
from edgecnn.spec import ModelSpec
from edgecnn.timing import SpeedComparison, compare_speed

__all__ = ["PLACEMENTS", "Compared", "Examiner", "Goal", "Precision", "Rung", "marked"]

Precision = Literal["fp32", "fp16", "int8"]

# what engines of a target take
PLACEMENTS: dict[str, Placement] = {"onnx": "cpu", "openvino": "cpu", "tensorrt": "tensorrt"}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is asked for.

    Attributes:
        precision: ``fp16`` or ``int8``; ``fp32`` has no rungs in ONNX.
        targets: Forms to write: ``onnx`` for ONNX Runtime, ``openvino``, ``tensorrt``.
        max_drop: Largest drop of the judge's metric; None accepts what parity accepts.
        speed_gate: Keep only what is faster than fp32 here.
        method: How ranges are chosen.
        threads: Threads of the engine; None is all processors.
    """

    precision: Precision
    targets: tuple[str, ...] = ("onnx",)
    max_drop: float | None = None
    speed_gate: bool = True
    method: str = "auto"
    threads: int | None = None

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Styles of INT8 to write, each once."""
        return tuple(dict.fromkeys(PLACEMENTS[name] for name in self.targets))


@dataclass(frozen=True, eq=False)
class Compared:
    """What fidelity is measured on: images uint8 (n, h, w, c), and the outputs expected for them."""

    images: npt.NDArray[np.uint8]
    reference: Outputs


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One artifact that was tried.

    Attributes:
        entry, fidelity, quantization: As in the manifest.
        in_bf16: Fidelity with float layers in bfloat16, where that holds and pays; else None.
        content: The bytes of the model.
        weights: Those of its second file, where it has one.
        speed: Against fp32 on this machine; None where it was not measured.
        missed: The gate that it missed, or empty.
        slow: It is not faster than fp32 here.
        search: How its float layers were found; None where no search was needed.
    """

    entry: ArtifactEntry
    content: bytes
    fidelity: Fidelity
    in_bf16: Fidelity | None = None
    weights: bytes = b""
    quantization: Quantization | None = None
    speed: SpeedComparison | None = None
    missed: str = ""
    slow: bool = False
    search: Choice | None = None

    @property
    def kept(self) -> bool:
        """It met its gates."""
        return not self.missed and not self.slow

    @property
    def files(self) -> dict[str, bytes]:
        """Its files by their paths in a bundle."""
        second = {self.entry.weights: self.weights} if self.entry.weights else {}
        return {self.entry.path: self.content, **second}


class Examiner:
    """Tries artifacts of one network.

    Attributes:
        judge: Marks them; None where parity is all there is.
        goal: What is asked for.
    """

    def __init__(self, compared: Compared, spec: ModelSpec, judge: Judge | None, goal: Goal) -> None:
        """Take what artifacts are compared on, and what they have to hold."""
        self.judge, self.goal = judge, goal
        self._compared, self._spec = compared, spec

    def examine(
        self, entry: ArtifactEntry, artifact: Artifact, against: Artifact | None, runtime: str
    ) -> Rung:
        """Run an artifact on one of the engines of this machine.

        Args:
            entry: What it will be in the manifest.
            artifact: The same for the engine.
            against: The fp32 model in the engine's form, to time it against; None does not time it.
            runtime: Name of the engine.
        """
        with self.open(artifact, runtime) as model:
            row, missed = self.measure(entry, model)
            speed = self.speed(model, against) if against is not None else None
        return Rung(
            entry=entry,
            content=artifact.content,
            weights=artifact.weights,
            fidelity=row,
            speed=speed,
            missed=missed,
            slow=self.goal.speed_gate and speed is not None and not speed.faster,
        )

    def measure(
        self, entry: ArtifactEntry, model: Runtime, limits: Precision | None = None
    ) -> tuple[Fidelity, str]:
        """How far a loaded artifact is from the reference, and the gate that it missed.

        Args:
            entry: What it is.
            model: The same, loaded.
            limits: Whose parity it has to have; None is that of its precision.
        """
        parity = compare(self._compared.reference, outputs_of(model, self._compared.images), self._spec)
        row = Fidelity(
            id=entry.id,
            runtime=model.name,
            n=parity.n,
            max_abs=parity.max_abs,
            mean_abs=parity.mean_abs,
            cosine=parity.cosine,
            agreement=parity.agreement,
        )
        missed = parity.missed(limits or entry.precision) or ""
        if self.judge is None:
            return row, missed
        metric = self.judge.measure(model)
        return marked(row, self.judge, metric), missed or self.judge.missed(metric, self.goal.max_drop)

    def drop(self, artifact: Artifact) -> float:
        """How much of the judge's metric is lost in ONNX Runtime."""
        assert self.judge is not None
        with self.open(artifact, "ort") as model:
            return self.judge.fp32 - self.judge.measure(model)

    def speed(self, model: Runtime, against: Artifact) -> SpeedComparison:
        """Time a loaded artifact beside another on the same engine."""
        with self.open(against, model.name) as reference:
            batch = reference.inputs[0].shape[0]
            count = batch if isinstance(batch, int) else self._spec.batch_range[1]
            images = np.resize(self._compared.images, (count, *self._compared.images.shape[1:]))
            feeds = {reference.inputs[0].name: images}
            return compare_speed(partial(model.run, feeds), partial(reference.run, feeds))

    def open(self, artifact: Artifact, runtime: str, options: RuntimeOptions | None = None) -> Runtime:
        """Load an artifact with the threads that the goal allows."""
        options = options or RuntimeOptions()
        return backend(runtime)(artifact, replace(options, threads=self.goal.threads))


def marked(row: Fidelity, judge: Judge, mark: float) -> Fidelity:
    """A row with the mark that a judge gave."""
    return msgspec.structs.replace(row, metric=mark, metric_fp32=judge.fp32, drop=judge.fp32 - mark)
