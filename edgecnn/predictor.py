"""A bundle that answers: frames in, results out."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.auto import open_model
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.loading import open_bundle
from edgecnn.results import Classification, Detections, Result, Tensors
from edgecnn.runtimes import Outputs, Runtime
from edgecnn.spec import ModelSpec
from edgecnn.vision.color import check_frame
from edgecnn.vision.decode import class_scores, decode_windows, top_k
from edgecnn.vision.geometry import fit
from edgecnn.vision.smoothing import ScoreSmoother
from edgecnn.vision.windows import pyramid, window_batches

if TYPE_CHECKING:
    from edgecnn.calibration.data import FrameSource
    from edgecnn.engines import OnStale

__all__ = ["Inference", "Predictor", "ScoredWindows", "load"]

log = logging.getLogger(__name__)

# a frame of 640×480 has this many windows of 16 px every 2 px
WINDOWS_MANY = 100_000


@dataclass(frozen=True, eq=False)
class ScoredWindows:
    """What a window model says of every place of a frame.

    Attributes:
        scores: float32 (n, K).
        boxes_xyxy: float32 (n, 4), in source pixels.
        infer_s: Seconds that the engine took.
    """

    scores: npt.NDArray[np.float32]
    boxes_xyxy: npt.NDArray[np.float32]
    infer_s: float


class Inference:
    """A loaded model on images, up to its scores: what prediction and evaluation share.

    Attributes:
        runtime: The loaded model.
        spec: Its spec.
    """

    def __init__(self, runtime: Runtime, spec: ModelSpec) -> None:
        self.runtime = runtime
        self.spec = spec
        self._warned = False
        batch = runtime.inputs[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None

    def batch(self, wanted: int) -> int:
        """Images to give at once: as many as wanted, or what the model was built for."""
        return self._fixed_batch or wanted

    def infer(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Run a batch of at most the size that `batch` tells; a smaller one is filled up and cut again.

        Args:
            images: uint8 (n, h, w, channels), as the model takes them.
        """
        name = self.runtime.inputs[0].name
        count = len(images)
        if self._fixed_batch is None or self._fixed_batch == count:
            return self.runtime.run({name: images})
        padded = np.zeros((self._fixed_batch, *images.shape[1:]), np.uint8)
        padded[:count] = images
        return {key: value[:count] for key, value in self.runtime.run({name: padded}).items()}

    def score_windows(self, frame: npt.NDArray[np.uint8]) -> ScoredWindows:
        """Score every window of a frame.

        Args:
            frame: uint8 (H, W, 3) BGR.

        Raises:
            InputError: The frame is smaller than the smallest window.
        """
        levels = pyramid((frame.shape[0], frame.shape[1]), self.spec)
        self._warn_of_many(sum(level.count for level in levels))
        scores, boxes, infer_s = [], [], 0.0
        for windows, boxes_xyxy in window_batches(
            frame, levels, self.spec, self.batch(self.spec.batch_range[1])
        ):
            before = time.perf_counter()
            outputs = self.infer(windows)
            infer_s += time.perf_counter() - before
            scores.append(class_scores(outputs, self.spec))
            boxes.append(boxes_xyxy.copy())
        return ScoredWindows(np.concatenate(scores), np.concatenate(boxes), infer_s)

    def _warn_of_many(self, windows: int) -> None:
        if windows > WINDOWS_MANY and not self._warned:
            self._warned = True
            log.warning("%d windows a frame: this is slow; a larger min_size or stride has fewer", windows)


class Predictor(Inference):
    """Runs a bundle on frames. Thread-safe unless it smooths; a context manager.

    Attributes:
        bundle: The bundle.
        spec: Its spec, with the changes that `load` was asked for.
        runtime: The loaded model.
        smooth: Number of frames over which class scores are averaged; 1 is off.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, spec: ModelSpec, smooth: int = 1) -> None:
        if smooth > 1 and spec.task != "classification":
            raise InputError(f"smooth: goes with classification, not with {spec.task}")
        super().__init__(runtime, spec)
        self.bundle = bundle
        self.smooth = smooth
        self._smoother = ScoreSmoother(smooth)
        self._smoothing = threading.Lock()

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Result:
        """Detect or classify.

        Args:
            frame: uint8 (H, W, 3) BGR; not changed.

        Returns:
            `Detections`, `Classification` or `Tensors` by the spec's task, with ``timing_ms`` of
            geometry, infer and decode.

        Raises:
            InputError: Not such a frame, or one smaller than the smallest window.
        """
        check_frame(frame)
        if self.spec.task == "window_detection":
            return self._detect(frame)
        return self._whole(frame)

    def stream(self, source: FrameSource | int) -> Iterator[tuple[npt.NDArray[np.uint8], Result]]:
        """Give the frames of a camera, video, image, folder or iterable, each with its result.

        Smoothing starts anew.
        """
        from edgecnn.stream import open_source  # the one import against the grain: a convenience

        self.forget()
        with open_source(source) as opened:
            for frame in opened:
                yield frame.image, self(frame.image)

    def forget(self) -> None:
        """Start smoothing anew: the next frame belongs to another stream."""
        with self._smoothing:
            self._smoother.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        """Engines do not travel between processes: the other one opens the bundle again."""
        engine = {
            "runtime": self.runtime.name,
            "precision": self.runtime.artifact.precision,
            "threads": self.runtime.options.threads,
        }
        return _reopen, (self.bundle.path, engine, self.spec, self.smooth)

    def close(self) -> None:
        """Release the engine."""
        self.runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _whole(self, frame: npt.NDArray[np.uint8]) -> Classification | Tensors:
        start = time.perf_counter()
        image, _ = fit(frame, self.spec)
        fitted = time.perf_counter()
        outputs = self.infer(image[None])
        inferred = time.perf_counter()
        if self.spec.task == "tensors":
            return Tensors(
                {name: array[0] for name, array in outputs.items()}, _timing(start, fitted, inferred)
            )
        scores = class_scores(outputs, self.spec)[0]
        if self.smooth > 1:
            with self._smoothing:
                scores = self._smoother(scores)
        result = top_k(scores, self.spec)
        return replace(result, timing_ms=_timing(start, fitted, inferred))

    def _detect(self, frame: npt.NDArray[np.uint8]) -> Detections:
        start = time.perf_counter()
        windows = self.score_windows(frame)
        inferred = time.perf_counter()
        size_hw = (frame.shape[0], frame.shape[1])
        result = decode_windows(windows.scores, windows.boxes_xyxy, self.spec, size_hw)
        return replace(result, timing_ms=_timing(start, inferred - windows.infer_s, inferred))


def load(
    bundle: str | os.PathLike[str] | Bundle = "face",
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    on_stale: OnStale = "serve",
    threshold: float | None = None,
    min_size: int | None = None,
    smooth: int = 1,
) -> Predictor:
    """Open a bundle for prediction.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships: ``face``.
        runtime: As `edgecnn.open_model`.
        device: As `edgecnn.open_model`.
        precision: As `edgecnn.open_model`.
        threads: Threads of one inference; None uses the processors this process may use.
        on_stale: As `edgecnn.open_model`.
        threshold: Instead of the bundle's threshold and class thresholds.
        min_size: Instead of the bundle's smallest window, in source pixels (window detection).
        smooth: Average class scores over this many frames (classification of one stream).

    Raises:
        BundleError: The bundle is missing, altered or unsafe.
        InputError: An argument does not fit the bundle.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle)
    spec = _changed(opened.manifest.spec, threshold, min_size)
    loaded = open_model(
        opened, runtime=runtime, device=device, precision=precision, threads=threads, on_stale=on_stale
    )
    return Predictor(opened, loaded, spec, smooth)


def _reopen(path: Path, engine: dict[str, Any], spec: ModelSpec, smooth: int) -> Predictor:
    bundle = Bundle(path)
    return Predictor(bundle, open_model(bundle, **engine), spec, smooth)


def _changed(spec: ModelSpec, threshold: float | None, min_size: int | None) -> ModelSpec:
    changes: dict[str, Any] = {}
    if threshold is not None:
        changes |= {"threshold": threshold, "class_thresholds": {}}
    if min_size is not None:
        if spec.window is None:
            raise InputError(f"min_size: goes with window_detection, not with {spec.task}")
        changes["window"] = msgspec.structs.replace(spec.window, min_size=min_size)
    return spec.replace(**changes)


def _timing(start: float, fitted: float, inferred: float) -> dict[str, float]:
    end = time.perf_counter()
    return {
        "geometry": round((fitted - start) * 1e3, 3),
        "infer": round((inferred - fitted) * 1e3, 3),
        "decode": round((end - inferred) * 1e3, 3),
    }
