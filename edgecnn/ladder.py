"""The rungs below fp32: INT8, INT8 with layers in float, fp16; each is kept only if it earns its place.

A rung has to hold the accuracy budget, and on this machine it has to be faster than fp32. What is meant for
another engine (the placement ``tensorrt``) is judged for accuracy alone, in ONNX Runtime.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.calibration import Samples
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.calibration.overflow import first_overflow
from edgecnn.calibration.placement import Placement
from edgecnn.calibration.search import Choice, LayerSensitivity, fewest_float_layers, most_trials
from edgecnn.calibration.sensitivity import layer_sensitivities
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.errors import ModelError, require
from edgecnn.judging import Judge, outputs_of
from edgecnn.manifest import ArtifactEntry, Fidelity, FloatLayer, Network, Quantization
from edgecnn.parity import compare
from edgecnn.runtimes import Artifact, Outputs, Runtime, RuntimeOptions, backend
from edgecnn.spec import ModelSpec
from edgecnn.timing import SpeedComparison, compare_speed

__all__ = ["Compared", "Goal", "Ladder", "Precision", "Rung"]

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]

OnStep = Callable[[str, float], None]
OnWork = Callable[[str, int, int], None]

FP16_IMAGES = 4  # all tensors inside are in memory for these, twice
SPEED_BATCH = {"window_detection": 64}
FILES = {"cpu": "model.int8.onnx", "tensorrt": "model.int8.tensorrt.onnx", None: "model.fp16.onnx"}
IDS = {"cpu": "onnx-int8", "tensorrt": "onnx-int8-tensorrt", None: "onnx-fp16"}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is asked for.

    Attributes:
        precision: ``fp16`` or ``int8``; ``fp32`` has no rungs.
        placements: Styles of INT8 to write.
        max_drop: Largest drop of the judge's metric; None accepts what parity accepts.
        speed_gate: Keep only what is faster than fp32 here.
        method: How ranges are chosen.
        threads: Threads of the engine; None is all processors.
    """

    precision: Precision
    placements: tuple[Placement, ...] = ("cpu",)
    max_drop: float | None = None
    speed_gate: bool = True
    method: str = "auto"
    threads: int | None = None

    @property
    def runs_here(self) -> bool:
        """Something of it is meant for the engine of this machine."""
        return "cpu" in self.placements


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
        content: The bytes of the model.
        speed: Against fp32 on this machine; None where it was not measured.
        missed: The gate that it missed, or empty.
        slow: It is not faster than fp32 here.
        search: How its float layers were found; None where no search was needed.
    """

    entry: ArtifactEntry
    content: bytes
    fidelity: Fidelity
    quantization: Quantization | None = None
    speed: SpeedComparison | None = None
    missed: str = ""
    slow: bool = False
    search: Choice | None = None

    @property
    def kept(self) -> bool:
        """It met its gates."""
        return not self.missed and not self.slow


class Ladder:
    """Tries the rungs for one network.

    Attributes:
        rungs: What was tried so far, in order.
        builder: Of the INT8 models; None before one was made.
        sensitivities: Error of each layer in INT8, by placement.
        model_bytes: Size of the fp32 model.
    """

    def __init__(
        self,
        model: bytes,
        spec: ModelSpec,
        network: Network,
        samples: Samples,
        compared: Compared,
        judge: Judge,
        goal: Goal,
        *,
        opset: str,
        on_step: OnStep | None = None,
        on_work: OnWork | None = None,
    ) -> None:
        """Take the canonical fp32 model, what is known of it, and what its artifacts are compared on."""
        self.rungs: list[Rung] = []
        self.builder: Int8Builder | None = None
        self.sensitivities: dict[str, tuple[LayerSensitivity, ...]] = {}
        self.model_bytes = len(model)
        self._model, self._spec, self._network = model, spec, network
        self._samples, self._compared, self._judge, self._goal = samples, compared, judge, goal
        self._requires = {"opset": opset}
        self._step: OnStep = on_step or (lambda name, seconds: None)
        self._work: OnWork = on_work or (lambda what, done, total: None)

    def descend(self) -> list[Rung]:
        """Try what the goal asks for; fp16 as well where INT8 is not faster here."""
        if self._goal.precision == "int8":
            for placement in self._goal.placements:
                rung = self._timed(f"int8 for {placement}", partial(self._int8, placement))
                if rung.slow and not rung.missed:
                    self._instead()
        elif self._goal.precision == "fp16":
            self._timed("fp16", self._fp16)
        return self.rungs

    def _instead(self) -> None:
        """fp16 in place of INT8, where the network can be written so; nobody asked for it."""
        try:
            self._timed("fp16", self._fp16)
        except ModelError as error:
            log.warning("fp16 is left out: %s", error)

    def _timed(self, name: str, make: Callable[[], Rung]) -> Rung:
        start = time.perf_counter()
        rung = make()
        seconds = time.perf_counter() - start
        entry = msgspec.structs.replace(rung.entry, build_s=round(seconds, 3))
        rung = replace(rung, entry=entry)
        self.rungs.append(rung)
        self._step(name, seconds)
        return rung

    def _int8(self, placement: Placement) -> Rung:
        if self.builder is None:
            self.builder = Int8Builder(
                self._model,
                self._samples.images,
                method=self._goal.method,
                threads=self._goal.threads,
                on_work=self._work,
            )
        builder = self.builder
        macs = {layer.name: layer.macs for layer in self._network.layers}
        sensitivities = layer_sensitivities(
            builder,
            placement,
            macs,
            self._samples.images,
            threads=self._goal.threads,
            on_progress=lambda done, total: self._work(f"sensitivity of layers for {placement}", done, total),
        )
        self.sensitivities[placement] = sensitivities
        search = None
        kept: Collection[str] = ()
        if self._goal.max_drop is not None:
            choice = self._search(placement, sensitivities, builder, self._goal.max_drop)
            kept = choice.kept_float
            search = choice if kept or not choice.met else None
        rung = self._judged(placement, builder.build(placement, kept))
        if len(kept) == len(sensitivities):
            rung = replace(rung, missed=f"the budget of {self._goal.max_drop:g} leaves no layer in int8")
        return replace(rung, quantization=self._record(placement, sensitivities, kept), search=search)

    def _search(
        self,
        placement: Placement,
        sensitivities: tuple[LayerSensitivity, ...],
        builder: Int8Builder,
        max_drop: float,
    ) -> Choice:
        total, tried = most_trials(len(sensitivities)), 0

        def on_trial(names: tuple[str, ...], drop: float) -> None:
            nonlocal tried
            tried += 1
            self._work(f"searching float layers for {placement}", tried, total)

        return fewest_float_layers(
            sensitivities,
            lambda kept: self._drop(builder.build(placement, kept)),
            max_drop,
            on_trial=on_trial,
        )

    def _record(
        self, placement: Placement, sensitivities: tuple[LayerSensitivity, ...], kept: Collection[str]
    ) -> Quantization:
        total = self._network.macs or 1
        by_name = {layer.name: layer for layer in sensitivities}
        int8 = sum(layer.macs for layer in sensitivities if layer.name not in kept)
        return Quantization(
            artifact=IDS[placement],
            method=self._goal.method,
            int8_macs_share=int8 / total,
            kept_float=tuple(
                FloatLayer(
                    layer=name,
                    macs_share=by_name[name].macs / total,
                    reason=f"int8 in it alone moves the output by {by_name[name].error:.2%}",
                )
                for name in kept
            ),
        )

    def _fp16(self) -> Rung:
        onnx = require("onnx", "convert")
        half: bytes = OnnxToFp16()(onnx.load_from_string(self._model)).SerializeToString()
        rung = self._judged(None, half)
        with self._open(self._model) as model:
            batch = model.inputs[0].shape[0]
        size = batch if isinstance(batch, int) else 1
        images = self._samples.images
        batches = np.resize(images, (-(-FP16_IMAGES // size), size, *images.shape[1:]))
        overflow = first_overflow(self._model, half, batches, threads=self._goal.threads)
        if overflow is None:
            return rung
        return replace(
            rung,
            missed=f"{overflow.layer} ({overflow.op}) reaches {overflow.value:.3g}, float16 ends at 65504",
        )

    def _judged(self, placement: Placement | None, content: bytes) -> Rung:
        """Compare an artifact with the reference, mark it, and time it where it is meant to run here."""
        precision: Precision = "fp16" if placement is None else "int8"
        with self._open(content) as model:
            outputs = outputs_of(model, self._compared.images)
            parity = compare(self._compared.reference, outputs, self._spec)
            metric = self._judge.measure(model)
            here = placement == "cpu" or (placement is None and self._goal.runs_here)
            speed = self._speed(model) if here else None
        missed = parity.missed(precision) or self._judge.missed(metric, self._goal.max_drop)
        return Rung(
            entry=ArtifactEntry(
                id=IDS[placement],
                format="onnx",
                precision=precision,
                placement=placement,
                path=FILES[placement],
                requires=self._requires,
            ),
            content=content,
            fidelity=Fidelity(
                id=IDS[placement],
                runtime="ort",
                n=parity.n,
                max_abs=parity.max_abs,
                mean_abs=parity.mean_abs,
                cosine=parity.cosine,
                agreement=parity.agreement,
                metric=metric,
                metric_fp32=self._judge.fp32,
                drop=self._judge.fp32 - metric,
            ),
            speed=speed,
            missed=missed,
            slow=self._goal.speed_gate and speed is not None and not speed.faster,
        )

    def _drop(self, content: bytes) -> float:
        with self._open(content) as model:
            return self._judge.fp32 - self._judge.measure(model)

    def _speed(self, model: Runtime) -> SpeedComparison:
        with self._open(self._model) as reference:
            batch = reference.inputs[0].shape[0]
            count = batch if isinstance(batch, int) else SPEED_BATCH.get(self._spec.task, 1)
            images = np.resize(self._samples.images, (count, *self._samples.images.shape[1:]))
            feeds = {reference.inputs[0].name: images}
            return compare_speed(partial(model.run, feeds), partial(reference.run, feeds))

    def _open(self, content: bytes) -> Runtime:
        return backend("ort")(Artifact("onnx", content), RuntimeOptions(threads=self._goal.threads))
