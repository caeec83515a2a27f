"""A bundle that answers: frames in, results out."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.auto import open_model
from edgecnn.bundle import Bundle
from edgecnn.choices import Objective
from edgecnn.errors import InputError
from edgecnn.inference import Inference
from edgecnn.loading import open_bundle
from edgecnn.results import Detections, Result, Tensors
from edgecnn.runtimes import Runtime
from edgecnn.spec import ModelSpec
from edgecnn.still import StillScene
from edgecnn.tiling import TiledDetector
from edgecnn.vision.color import check_frame
from edgecnn.vision.decode import class_scores, decode_windows, top_k
from edgecnn.vision.detection import decode_detections, each_frame
from edgecnn.vision.geometry import fit
from edgecnn.vision.smoothing import ScoreSmoother

if TYPE_CHECKING:
    from edgecnn.calibration.data import FrameSource
    from edgecnn.engines import OnStale

__all__ = ["Predictor", "load"]

log = logging.getLogger(__name__)


class Predictor(Inference):
    """Runs a bundle on frames. Thread-safe unless it smooths or reuses scores; a context manager.

    Attributes:
        bundle: The bundle.
        spec: Its spec, with the changes that `load` was asked for.
        runtime: The loaded model.
        smooth: Number of frames over which class scores are averaged; 1 is off.
        still: Grey levels by which a pixel may change before the windows that see it are scored again; None
            scores all windows of each frame.
        tiles: Share of a tile that its neighbour covers too; None looks at each frame as a whole.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        spec: ModelSpec,
        smooth: int = 1,
        still: int | None = None,
        tiles: float | None = None,
    ) -> None:
        if smooth > 1 and spec.task != "classification":
            raise InputError(f"smooth: goes with classification, not with {spec.task}")
        if still is not None and spec.task != "window_detection":
            raise InputError(f"still: goes with window_detection, not with {spec.task}")
        super().__init__(runtime, spec)
        self.bundle = bundle
        self.smooth = smooth
        self.still = still
        self.tiles = tiles
        self._scene = StillScene(self, still) if still is not None else None
        self._tiled = TiledDetector(self, tiles) if tiles is not None else None
        self._canvases: deque[npt.NDArray[np.uint8]] = deque()
        self._smoother = ScoreSmoother(smooth)
        self._smoothing = threading.Lock()

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Result:
        """Detect or classify.

        Args:
            frame: uint8 (H, W, 3) BGR; not changed.

        Returns:
            `Detections`, `Classification` or `Tensors` by the spec's task, with ``timing_ms`` of
            geometry, infer and decode, and of detections nms.

        Raises:
            InputError: Not such a frame, or one smaller than the smallest window.
        """
        check_frame(frame)
        if self.spec.task == "window_detection":
            return self._detect_windows(frame)
        return (self._tiled or self._whole)(frame)

    @property
    def workers(self) -> int:
        """How many frames to give it at the same time so that it is always busy; 1 where order matters."""
        if self.smooth > 1 or self.still is not None or self.runtime.options.mode == "latency":
            return 1
        return self.runtime.parallel + 1

    def stream(self, source: FrameSource | int) -> Iterator[tuple[npt.NDArray[np.uint8], Result]]:
        """Give the frames of a camera, video, image, folder or iterable, each with its result.

        Frames are read and predicted in other threads meanwhile, a few ahead; those of an iterable when
        they are asked for. Of a camera, frames that come while there is no time for them are left out.
        Smoothing and reusing scores start anew.
        """
        from edgecnn.stream import open_pipeline, open_source  # the one import against the grain

        self.forget()
        with open_source(source) as opened, open_pipeline(opened, self, self.workers) as pipeline:
            while (prediction := pipeline.take()) is not None:
                yield prediction.frame.image, prediction.result()

    def forget(self) -> None:
        """Start smoothing and reusing scores anew: the next frame belongs to another stream."""
        with self._smoothing:
            self._smoother.reset()
        if self._scene is not None:
            self._scene.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        """Engines do not travel between processes: the other one opens the bundle again."""
        engine = {
            "runtime": self.runtime.name,
            "precision": self.runtime.artifact.precision,
            "threads": self.runtime.options.threads,
            "mode": self.runtime.options.mode,
            "dense": self.is_dense,
        }
        return _reopen, (
            self.bundle.path,
            self.bundle.signed_by,
            engine,
            self.spec,
            self.smooth,
            self.still,
            self.tiles,
        )

    def close(self) -> None:
        """Release the engine."""
        self.runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _whole(self, frame: npt.NDArray[np.uint8]) -> Result:
        start = time.perf_counter()
        try:
            canvas = self._canvases.pop()
        except IndexError:  # one for each of the threads that are here at the same time
            canvas = np.empty((1, *self.spec.input_shape), np.uint8)
        _, transform = fit(frame, self.spec, canvas[0])
        fitted = time.perf_counter()
        outputs = self.infer(canvas)
        inferred = time.perf_counter()
        self._canvases.append(canvas)
        if self.spec.task == "tensors":
            return Tensors(
                {name: array[0] for name, array in outputs.items()}, _timing(start, fitted, inferred)
            )
        if self.spec.task == "detection":
            (of_frame,) = each_frame(outputs)
            found = decode_detections(of_frame, self.spec, transform.to_source, transform.source_hw)
            return _timed(found, start, fitted, inferred)
        scores = class_scores(outputs, self.spec)[0]
        if self.smooth > 1:
            with self._smoothing:
                scores = self._smoother(scores)
        result = top_k(scores, self.spec)
        return replace(result, timing_ms=_timing(start, fitted, inferred))

    def _detect_windows(self, frame: npt.NDArray[np.uint8]) -> Detections:
        start = time.perf_counter()
        windows = (self._scene or self.score_windows)(frame)
        inferred = time.perf_counter()
        size_hw = (frame.shape[0], frame.shape[1])
        found = decode_windows(windows.scores, windows.boxes_xyxy, self.spec, size_hw)
        return _timed(found, start, inferred - windows.infer_s, inferred)


def load(
    bundle: str | os.PathLike[str] | Bundle = "face",
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    mode: Objective = "latency",
    on_stale: OnStale = "serve",
    threshold: float | None = None,
    min_size: int | None = None,
    smooth: int = 1,
    dense: bool = True,
    still: int | None = None,
    tiles: float | None = None,
    public_key: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Open a bundle for prediction.

    Args:
        bundle: A path, an open `Bundle`, or the name of one that ships: ``face``.
        runtime: As `edgecnn.open_model`.
        device: As `edgecnn.open_model`.
        precision: As `edgecnn.open_model`.
        threads: As `edgecnn.open_model`.
        mode: As `edgecnn.open_model`.
        on_stale: As `edgecnn.open_model`.
        threshold: Instead of the bundle's threshold and class thresholds.
        min_size: Instead of the bundle's smallest window, in source pixels (window detection).
        smooth: Average class scores over this many frames (classification of one stream).
        dense: Score all windows of a frame at once, where the bundle has a form of the model for that
            (window detection); else they are cut out and scored in batches.
        still: Of one camera that does not move: score again only windows with a pixel that changed by more
            than this many grey levels since it was last looked at (window detection).
        tiles: Of frames larger than the model's input, look at tiles of that size too, whose neighbours cover
            this share of them (detection).
        public_key: As `edgecnn.open_model`.

    Raises:
        BundleError: The bundle is missing, altered, unsafe or not signed.
        InputError: An argument does not fit the bundle.
        Unavailable: No runtime on this machine can run it.
    """
    opened = open_bundle(bundle, public_key)
    spec = _changed(opened.manifest.spec, threshold, min_size)
    open_form = partial(
        open_model,
        opened,
        runtime=runtime,
        device=device,
        precision=precision,
        threads=threads,
        mode=mode,
        on_stale=on_stale,
        public_key=public_key,
    )
    loaded = open_form(dense=dense)
    if still is not None and not loaded.artifact.dense_exact:  # a change would have no end in it
        loaded.close()
        loaded = open_form(dense=False)
    try:
        return Predictor(opened, loaded, spec, smooth, still, tiles)
    except BaseException:
        loaded.close()
        raise


def _reopen(
    path: Path, key: Path | None, engine: dict[str, Any], spec: ModelSpec, *options: Any
) -> Predictor:
    bundle = open_bundle(path, key)
    return Predictor(bundle, open_model(bundle, public_key=key, **engine), spec, *options)


def _changed(spec: ModelSpec, threshold: float | None, min_size: int | None) -> ModelSpec:
    changes: dict[str, Any] = {}
    if threshold is not None:
        changes |= {"threshold": threshold, "class_thresholds": {}}
    if min_size is not None:
        if spec.window is None:
            raise InputError(f"min_size: goes with window_detection, not with {spec.task}")
        changes["window"] = msgspec.structs.replace(spec.window, min_size=min_size)
    return spec.replace(**changes)


def _timed(found: Detections, start: float, fitted: float, inferred: float) -> Detections:
    """Suppression is a stage of its own."""
    timing_ms, nms_ms = _timing(start, fitted, inferred), round(found.timing_ms["nms"], 3)
    timing_ms["decode"] = round(timing_ms["decode"] - nms_ms, 3)
    return replace(found, timing_ms=timing_ms | {"nms": nms_ms})


def _timing(start: float, fitted: float, inferred: float) -> dict[str, float]:
    end = time.perf_counter()
    return {
        "geometry": round((fitted - start) * 1e3, 3),
        "infer": round((inferred - fitted) * 1e3, 3),
        "decode": round((end - inferred) * 1e3, 3),
    }
