"""The rungs below fp32 in ONNX: INT8, INT8 with layers in float, fp16; each has to earn its place.

A rung has to hold the accuracy budget, and on this machine it has to be faster than fp32. What is meant for
another engine is judged for accuracy alone, in ONNX Runtime.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np

from edgecnn.calibration import Samples
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.calibration.overflow import first_overflow
from edgecnn.calibration.placement import Placement
from edgecnn.calibration.search import Choice, LayerSensitivity, fewest_float_layers, most_trials
from edgecnn.calibration.sensitivity import layer_sensitivities
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.errors import ModelError, require
from edgecnn.manifest import ArtifactEntry, FloatLayer, Network, Quantization
from edgecnn.progress import OnStep, OnWork, silent_work
from edgecnn.rungs import Examiner, Rung
from edgecnn.runtimes import Artifact

__all__ = ["Ladder"]

log = logging.getLogger(__name__)

FP16_IMAGES = 4  # all tensors inside are in memory for these, twice
FILES = {"cpu": "model.int8.onnx", "tensorrt": "model.int8.tensorrt.onnx", None: "model.fp16.onnx"}
IDS = {"cpu": "onnx-int8", "tensorrt": "onnx-int8-tensorrt", None: "onnx-fp16"}


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
        network: Network,
        samples: Samples,
        examiner: Examiner,
        *,
        opset: str,
        on_step: OnStep | None = None,
        on_work: OnWork | None = None,
    ) -> None:
        """Take the canonical fp32 model, what is known of it, and who tries its artifacts."""
        self.rungs: list[Rung] = []
        self.builder: Int8Builder | None = None
        self.sensitivities: dict[str, tuple[LayerSensitivity, ...]] = {}
        self.model_bytes = len(model)
        self._model, self._network, self._samples = model, network, samples
        self._examiner, self._goal = examiner, examiner.goal
        self._requires = {"opset": opset}
        self._step: OnStep = on_step or (lambda name, seconds: None)
        self._work: OnWork = on_work or silent_work

    def descend(self) -> list[Rung]:
        """Try what the goal asks for; fp16 as well where INT8 is not faster here."""
        if self._goal.precision == "int8":
            for placement in self._goal.placements:
                rung = self._timed(f"int8 for {placement}", partial(self._int8, placement))
                if rung.slow and not rung.missed:
                    self._instead()
        elif self._goal.precision == "fp16" and set(self._goal.targets) != {"openvino"}:
            # OpenVINO's own form of it comes from fp32
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
            lambda kept: self._examiner.drop(Artifact("onnx", builder.build(placement, kept))),
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
        with self._examiner.open(Artifact("onnx", self._model), "ort") as model:
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
        """Try an artifact in ONNX Runtime, and time it where that is what it is meant for."""
        entry = ArtifactEntry(
            id=IDS[placement],
            format="onnx",
            precision="fp16" if placement is None else "int8",
            placement=placement,
            path=FILES[placement],
            requires=self._requires,
        )
        here = "onnx" in self._goal.targets and placement != "tensorrt"
        against = Artifact("onnx", self._model) if here else None
        return self._examiner.examine(entry, Artifact("onnx", content), against, "ort")
