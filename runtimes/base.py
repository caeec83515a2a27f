"""The contract of a runtime: what it is given, what it checks, what it hands back."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgecnn.errors import EngineError, InputError
from edgecnn.manifest import TensorInfo, sizes_text
from edgecnn.paths import cache_dir

__all__ = ["Artifact", "Feeds", "Outputs", "Runtime", "RuntimeOptions", "check_feeds"]

Feeds = Mapping[str, npt.NDArray[Any]]
Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Artifact:
    """A model in the form one kind of engine loads.

    Attributes:
        format: Name of the form, such as ``onnx``; a runtime lists those it takes.
        content: Its bytes, already verified (for the format ``torch``, a module).
        name: Where it came from, for messages.
        inputs, outputs: As the manifest lists them; empty where the engine can tell.
        precision, placement: As the manifest has them.
        weights: Bytes of the second file of a form that has two, such as OpenVINO's.
        dense_stride: It takes images of any size and scores the windows in them that are so many pixels
            apart; None is a model of single inputs.
        dense_exact: A score there depends on the pixels of its window alone.
    """

    format: str
    content: Any
    name: str = "model"
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    precision: str = "fp32"
    placement: str | None = None
    weights: bytes = b""
    dense_stride: int | None = None
    dense_exact: bool = True


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How an engine may use the machine.

    Attributes:
        threads: Threads of one inference; None shares the processors that may be used among the streams.
        spin: Let idle threads burn processor time for a little less latency.
        device: The engine's own name of a device, such as ``gpu``; ``auto`` is its first choice.
        mode: What the engine is tuned for: ``latency`` of one inference, or ``throughput`` of many.
        streams: How many inferences run side by side; None is one, and for ``throughput`` as many as there
            are processors for, unless the engine knows better.
        compute: Arithmetic of layers in float, which some engines lower by themselves: never here.
        pin: Bind threads to processors; where another program keeps one busy, that is many times slower.
        cache: Folder for what the engine compiles; None is the user's cache.
    """

    threads: int | None = None
    spin: bool = False
    device: str = "auto"
    mode: Literal["latency", "throughput"] = "latency"
    streams: int | None = None
    compute: Literal["f32", "bf16", "f16"] = "f32"
    pin: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not (isinstance(self.threads, int) and 1 <= self.threads <= 1024):
            raise InputError(f"threads must be a whole number in 1..1024, not {self.threads!r}")
        if self.streams is not None and not (isinstance(self.streams, int) and 1 <= self.streams <= 1024):
            raise InputError(f"streams must be a whole number in 1..1024, not {self.streams!r}")
        if self.mode not in ("latency", "throughput"):
            raise InputError(f"mode is latency or throughput, not {self.mode!r}")
        if self.compute not in ("f32", "bf16", "f16"):
            raise InputError(f"compute is f32, bf16 or f16, not {self.compute!r}")

    @property
    def thread_count(self) -> int:
        """Threads of one inference."""
        return self.threads or max(_processors() // self.stream_count, 1)

    @property
    def stream_count(self) -> int:
        """Inferences side by side."""
        if self.streams is None and self.mode == "throughput":
            return max(_processors() // (self.threads or 1), 1)
        return self.streams or 1

    @property
    def cache_path(self) -> Path:
        """The folder for what is compiled."""
        return self.cache or cache_dir()


def _processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runtime(ABC):
    """A loaded model. Thread-safe: `run` may be called from several threads at once.

    Attributes:
        inputs, outputs: What the model takes and gives, in the model's order.
        facts: What the engine runs in truth, such as its device and the precision of its arithmetic.
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    # False for what is never chosen by itself: it has no engine, or needs more than a bundle
    is_engine: ClassVar[bool] = True
    # where INT8 models for this engine have their QuantizeLinear
    placement: ClassVar[str] = "cpu"
    # whether inputs of a size it has not seen before are as quick as others
    any_size: ClassVar[bool] = True
    # formats that the engine's own one is built from on the device
    builds_from: ClassVar[tuple[str, ...]] = ()

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def __init__(self, artifact: Artifact, options: RuntimeOptions | None = None) -> None:
        """Load an artifact.

        Raises:
            InputError: The engine does not accept the artifact, or it is not what the manifest describes.
            MissingDependency: The engine is not installed.
        """
        if artifact.format not in self.formats:
            raise InputError(
                f"{artifact.name}: the runtime {self.name} takes {' or '.join(self.formats)}, "
                f"not {artifact.format}"
            )
        self.artifact = artifact
        self.options = options or RuntimeOptions()
        self.facts: dict[str, str] = {}
        self._closed = False
        self._load()
        try:
            _check_described("input", artifact.inputs, self.inputs, artifact.name)
            _check_described("output", artifact.outputs, self.outputs, artifact.name)
        except InputError:
            self.close()
            raise

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Version of the engine.

        Raises:
            MissingDependency: It is not installed; the message says how to get it.
        """

    @classmethod
    def check_here(cls) -> None:
        """See whether this machine has what the engine runs on.

        Raises:
            Unavailable: It is not installed, or its device is missing; the message says which.
        """
        cls.version()

    @classmethod
    def computes(cls) -> tuple[str, ...]:
        """Arithmetic for float layers that this machine has in hardware, of what options offer."""
        return ("f32",)

    @abstractmethod
    def _load(self) -> None:
        """Open ``self.artifact`` and set ``inputs`` and ``outputs``."""

    @abstractmethod
    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        """Outputs in the order of ``self.outputs``; the feeds were checked."""

    def run(self, feeds: Feeds) -> Outputs:
        """Run the model once.

        Args:
            feeds: One array for each input, by name, of its dtype and shape.

        Returns:
            Outputs by name, in the model's order: fresh arrays, yours to keep.

        Raises:
            InputError: A feed is missing, unknown, or of another dtype or shape; or `close` was called.
            EngineError: The engine failed.
        """
        self._check(feeds)
        return self._answered(feeds)

    def submit(self, feeds: Feeds) -> Future[Outputs]:
        """Start one inference; the feeds must not change until it is done.

        At most `parallel` of them run at once, more wait. An engine that cannot overlap runs it right away.

        Returns:
            Its outputs, as `run` gives them, or its `EngineError`.

        Raises:
            InputError: As `run`.
        """
        self._check(feeds)
        future: Future[Outputs] = Future()
        try:
            future.set_result(self._answered(feeds))
        except EngineError as error:
            future.set_exception(error)
        return future

    @property
    def parallel(self) -> int:
        """How many inferences `submit` runs at once."""
        return 1

    def _check(self, feeds: Feeds) -> None:
        if self._closed:
            raise InputError(f"{self.artifact.name}: was closed; open it again")
        check_feeds(feeds, self.inputs)

    def _answered(self, feeds: Feeds) -> Outputs:
        try:
            return self._named(self._run(feeds))
        except EngineError:
            raise
        except Exception as error:
            if self._closed:  # another thread took the engine away
                raise EngineError(f"{self.artifact.name}: was closed while it ran") from error
            raise

    def _named(self, values: Sequence[npt.NDArray[Any]]) -> Outputs:
        if len(values) != len(self.outputs):
            raise EngineError(
                f"{self.artifact.name}: {self.name} gave {len(values)} outputs, not {len(self.outputs)}"
            )
        return {info.name: value for info, value in zip(self.outputs, values)}

    def close(self) -> None:
        """Release what the engine holds; the runtime cannot be used afterwards."""
        if not self._closed:
            self._closed = True
            self._release()

    def _release(self) -> None:  # noqa: B027 (most engines have nothing to release)
        """Let go of the engine; called once."""

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_feeds(
    feeds: Mapping[str, Any], inputs: Sequence[TensorInfo], kinds: tuple[type[Any], ...] = (np.ndarray,)
) -> None:
    """Compare feeds with what a model takes.

    Args:
        feeds: One array for each input, by name.
        inputs: What the model takes.
        kinds: Types of arrays that the engine can read; each has a ``shape`` and a ``dtype``.

    Raises:
        InputError: Says which input, what it is and what it should be.
    """
    if len(feeds) != len(inputs) or any(info.name not in feeds for info in inputs):
        wanted = ", ".join(info.name for info in inputs)
        raise InputError(f"the model takes the inputs {wanted}; got {', '.join(feeds) or 'none'}")
    for info in inputs:
        value = feeds[info.name]
        if not isinstance(value, kinds):
            raise InputError(f"input {info.name}: a {type(value).__name__}, not a numpy array")
        if value.dtype != info.dtype:
            raise InputError(f"input {info.name}: dtype {value.dtype}, the model takes {info.dtype}")
        fits = len(value.shape) == len(info.shape) and all(
            size == wanted or (not isinstance(wanted, int) and size > 0)
            for size, wanted in zip(value.shape, info.shape)
        )
        if not fits:
            raise InputError(
                f"input {info.name}: shape {sizes_text(value.shape)}, "
                f"the model takes {sizes_text(info.shape)}"
            )


def _check_described(
    kind: str, described: Sequence[TensorInfo], actual: Sequence[TensorInfo], name: str
) -> None:
    """A manifest that describes another model than the one it came with is not to be trusted."""
    if described and [(i.name, i.dtype) for i in described] != [(i.name, i.dtype) for i in actual]:
        listed = ", ".join(f"{i.name} {i.dtype}" for i in described)
        found = ", ".join(f"{i.name} {i.dtype}" for i in actual)
        raise InputError(f"{name}: has the {kind}s {found}; the manifest says {listed}")
