"""An ONNX artifact on TensorRT: with the engine that is kept for this device, or a new one.

What answers while that is built is the caller's choice.
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy.typing as npt

from edgecnn.engine_cache import EngineCache, Recipe, Target, target_here
from edgecnn.errors import EngineError, EngineMismatch, MissingDependency, Unavailable, first_line
from edgecnn.isolation import Cancelled, Limits
from edgecnn.runtimes import Artifact, Feeds, Runtime, RuntimeOptions
from edgecnn.runtimes.tensorrt import Backend, check_within

__all__ = ["OnStale", "ServedMeanwhile", "open_on_tensorrt"]

log = logging.getLogger(__name__)

OnStale = Literal["serve", "wait", "error"]

# of a large model, a small Jetson times its kernels for longer than a workstation would be given
ON_DEVICE = Limits(seconds=3600)


def open_on_tensorrt(
    artifact: Artifact,
    options: RuntimeOptions,
    *,
    fallback: Callable[[], Runtime],
    on_stale: OnStale = "serve",
    batches: tuple[int, int, int] = (1, 1, 8),
    target: Target | None = None,
) -> Runtime:
    """Open an ONNX artifact on TensorRT: with the engine that was kept for this device, or a new one.

    Args:
        artifact: In ONNX, placed for TensorRT where it is INT8.
        options: Of the engine; ``cache`` is the folder that holds ``tensorrt/``.
        fallback: Opens what answers while an engine is built; called with ``serve`` alone.
        on_stale: Where there is no engine yet: ``serve`` builds it beside the fallback, or first where what
            the fallback needs is not installed; ``wait`` builds it first, ``error`` does neither.
        batches: Smallest, usual and largest batch, where the model leaves it open.
        target: Defaults to `target_here`.

    Raises:
        Unavailable: There is no engine and it is not to be built, or no TensorRT, or no GPU.
        ModelError: TensorRT refuses the model (not with ``serve``, which logs it).
    """
    target = target or target_here()
    cache = EngineCache(options.cache_path / "tensorrt")
    recipe = Recipe(
        onnx_sha256=hashlib.sha256(artifact.content).hexdigest(),
        precision=artifact.precision,
        batches=batches,
        target=target,
    )
    plan = cache.get(recipe)
    if plan is not None:
        try:
            return _opened(artifact, plan, options)
        except EngineMismatch as error:
            log.warning("%s", error)
        except EngineError as error:  # such as too little memory left: no other engine would need less
            if on_stale != "serve":
                raise
            log.warning("%s", error)
            return fallback()
    if on_stale == "error":
        raise Unavailable(
            f"{artifact.name}: {cache.folder} holds no engine of it for {target}; "
            "open it once with on_stale='wait' to have it built"
        )

    def make(cancelled: threading.Event | None) -> Runtime:
        return _opened(artifact, _built(artifact, recipe, cache, cancelled), options)

    if on_stale == "serve":
        try:
            return ServedMeanwhile(artifact, options, fallback, make, batches)
        except MissingDependency as error:
            log.warning("%s: TensorRT builds its engine first, since %s", artifact.name, error)
    return make(None)


def _built(
    artifact: Artifact, recipe: Recipe, cache: EngineCache, cancelled: threading.Event | None
) -> bytes:
    """Build an engine and keep it."""
    from edgecnn.converters.onnx_tensorrt import OnnxToTensorRT

    target = recipe.target
    arrow = OnnxToTensorRT(
        precision=cast(Any, recipe.precision),
        batch=recipe.batches,
        # TensorRT itself builds for the GPU it finds
        compute_capability=target.compute_capability if target.flavor == "tensorrt_rtx" else None,
        limits=ON_DEVICE,
        cancelled=cancelled,
    )
    engine = arrow(artifact.content)
    cache.put(recipe, engine.plan, engine.build_s)
    log.info("%s: TensorRT built its engine in %.1f s", artifact.name, engine.build_s)
    return engine.plan


def _opened(artifact: Artifact, plan: bytes, options: RuntimeOptions) -> Runtime:
    return Backend(dataclasses.replace(artifact, format="tensorrt", content=plan), options)


class ServedMeanwhile(Runtime):
    """Answers with another runtime while TensorRT builds, then with TensorRT.

    A run ends on the engine that it began on. Where nothing comes of the build, the first one stays.
    """

    name = "tensorrt"
    is_engine = False
    formats = ("onnx",)
    placement = "tensorrt"

    def __init__(
        self,
        artifact: Artifact,
        options: RuntimeOptions,
        fallback: Callable[[], Runtime],
        make: Callable[[threading.Event], Runtime],
        batches: tuple[int, int, int],
    ) -> None:
        """Open the fallback and start to build.

        Args:
            artifact: What TensorRT is to run.
            options: For messages; both callables have their own.
            fallback: Opens the runtime that answers first.
            make: Builds and opens TensorRT's, until the event that it is given is set.
            batches: What TensorRT will take: the same is taken from the start.
        """
        self._fallback, self._make, self._batches = fallback, make, batches
        super().__init__(artifact, options)
        self._closing = threading.Event()
        self._builder = threading.Thread(target=self._replace, name="edgecnn-engine", daemon=True)
        # a program that ends without `close` would leave the files of the build behind
        atexit.register(self.close)
        self._builder.start()

    @classmethod
    def version(cls) -> str:
        """Version of TensorRT."""
        return Backend.version()

    def _load(self) -> None:
        self._active = self._fallback()
        self.inputs, self.outputs = self._active.inputs, self._active.outputs
        self.facts = {
            **self._active.facts,
            "tensorrt": f"being built; {self._active.name} answers meanwhile",
        }

    def _check(self, feeds: Feeds) -> None:
        super()._check(feeds)
        least, _, most = self._batches
        for info in self.inputs:
            shape = feeds[info.name].shape
            if info.shape and not isinstance(info.shape[0], int):
                check_within(info.name, shape, (least, *shape[1:]), (most, *shape[1:]))

    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        answer = self._active.run(feeds)
        return [answer[info.name] for info in self.outputs]

    def _replace(self) -> None:
        start, name = time.monotonic(), self.artifact.name
        log.info("%s: TensorRT builds an engine; %s answers meanwhile", name, self._active.name)
        try:
            made = self._make(self._closing)
        except Cancelled:
            return
        except Exception as error:  # whatever it was, the answers go on
            reason = first_line(error)
            self.facts["tensorrt"] = f"not used: {reason}"
            log.warning(
                "%s: stays with %s, since TensorRT cannot be used: %s", name, self._active.name, reason
            )
            return
        finally:
            atexit.unregister(self.close)
        # the last run on the other one lets go of it
        before, self._active = self._active.name, made
        self.facts = {**self.facts, **made.facts, "tensorrt": "in use"}
        log.info("%s: from %s to TensorRT after %.1f s", name, before, time.monotonic() - start)
        if self._closed:
            made.close()

    def _release(self) -> None:
        self._closing.set()
        self._builder.join()
        self._active.close()
