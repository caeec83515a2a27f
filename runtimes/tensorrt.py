"""Engines of TensorRT and of TensorRT for RTX on the first NVIDIA GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn import cuda_api
from edgecnn.device_array import DeviceArray, lies_on_device
from edgecnn.errors import EngineError, EngineMismatch, InputError
from edgecnn.manifest import TensorInfo, sizes_text
from edgecnn.runtimes.base import Artifact, Feeds, Runtime, check_feeds
from edgecnn.tensorrt_api import NUMPY_DTYPES, TensorRT, collector, find_tensorrt, numpy_dtype

__all__ = ["Backend"]

Shape = tuple[int, ...]


class Backend(Runtime):
    """Loads an engine that was built for this GPU and this version of TensorRT, and no other.

    Buffers are made once, for the largest shapes that the engine takes. Runs are done one after the other;
    from the second of the same shapes on, CUDA repeats the network as a graph. `run_on_device` leaves the
    answers on the GPU.
    """

    name = "tensorrt"
    formats = ("tensorrt",)
    builds_from = ("onnx",)
    placement = "tensorrt"

    @classmethod
    def version(cls) -> str:
        """Version of TensorRT; that there is a GPU is seen when an engine is loaded."""
        cuda_api.find_cuda()
        return find_tensorrt().version

    @classmethod
    def check_here(cls) -> None:
        """See that there is TensorRT, and a GPU for it."""
        cls.version()
        cuda_api.compute_capability()

    def _load(self) -> None:
        if self.options.device not in ("auto", "gpu"):
            raise InputError(
                f"device is auto or gpu for TensorRT, not {self.options.device!r}; "
                "CUDA_VISIBLE_DEVICES says which GPU is the first"
            )
        tensorrt = find_tensorrt()
        capability = cuda_api.compute_capability()
        self.facts["device"] = f"GPU of compute capability {capability}"
        self._lock = threading.Lock()
        # what TensorRT was told last, what it gives for that, and its run as a graph
        self._shapes: tuple[Shape, ...] | None = None
        self._given: tuple[Shape, ...] = ()
        self._graph: Any = None
        self._runs = 0
        with self._blamed(), ExitStack() as held:
            self._stream = held.enter_context(cuda_api.stream())
            held.callback(self._forget)
            self._runtime = tensorrt.module.Runtime(collector(tensorrt))
            self._engine = deserialized(self._runtime, self.artifact, capability)
            self._context = self._new_context(tensorrt)
            self._describe(tensorrt)
            self._allocate(held)
            self._graph_held = held.enter_context(ExitStack())
            self._held = held.pop_all()

    def _new_context(self, tensorrt: TensorRT) -> Any:
        """TensorRT for RTX compiles while it runs and knows by itself when its kernels can be captured."""
        strategies = getattr(tensorrt.module, "CudaGraphStrategy", None)
        if strategies is None:
            context = self._engine.create_execution_context()
            self._capturing = True
            self.facts["cuda_graphs"] = "captured"
        else:
            config = self._engine.create_runtime_config()
            config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
            self._capturing = False
            self.facts["cuda_graphs"] = "captured by TensorRT for RTX"
        if context is None:
            raise EngineError(f"TensorRT has no room to run it ({reason()})")
        return context

    def _describe(self, tensorrt: TensorRT) -> None:
        """Set ``inputs``, ``outputs`` and the limits of the inputs' shapes."""
        trt, engine = tensorrt.module, self._engine
        found: dict[Any, list[TensorInfo]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise InputError(
                    f"{self.artifact.name}: {name} holds sizes for TensorRT itself; "
                    "build the engine of a model whose inputs are tensors alone"
                )
            shape = tuple(size if size >= 0 else None for size in engine.get_tensor_shape(name))
            dtype = numpy_dtype(engine.get_tensor_dtype(name))
            if dtype not in NUMPY_DTYPES.values():
                known = ", ".join(NUMPY_DTYPES.values())
                raise InputError(f"{self.artifact.name}: {name} is in {dtype}; edgecnn handles {known}")
            found[engine.get_tensor_mode(name)].append(TensorInfo(name=name, dtype=dtype, shape=shape))
        self.inputs = in_order(found[trt.TensorIOMode.INPUT], self.artifact.inputs)
        self.outputs = in_order(found[trt.TensorIOMode.OUTPUT], self.artifact.outputs)
        self._limits = {info.name: self._limits_of(info) for info in self.inputs}

    def _limits_of(self, info: TensorInfo) -> tuple[Shape, Shape]:
        """The smallest and the largest shape of an input."""
        if None not in info.shape:
            fixed = tuple(self._engine.get_tensor_shape(info.name))
            return fixed, fixed
        low, _, high = self._engine.get_tensor_profile_shape(info.name, 0)
        return tuple(low), tuple(high)

    def _allocate(self, held: ExitStack) -> None:
        """Buffers for the largest shapes, whose addresses stay the same."""
        largest = tuple(high for _, high in self._limits.values())
        shapes = (*largest, *self._set_shapes(largest))
        self._buffers = {}
        for info, shape in zip((*self.inputs, *self.outputs), shapes):
            made = held.enter_context(cuda_api.buffer(tensor_bytes(shape, info.dtype)))
            self._buffers[info.name] = made
            if not self._context.set_tensor_address(info.name, made.device):
                raise EngineError(f"TensorRT takes no memory for {info.name} ({reason()})")

    def _set_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Tell TensorRT the shapes of the inputs; gives those of the outputs."""
        for info, shape in zip(self.inputs, shapes):
            if not self._context.set_input_shape(info.name, shape):
                raise EngineError(f"TensorRT takes no {sizes_text(shape)} as input {info.name} ({reason()})")
        given = tuple(tuple(self._context.get_tensor_shape(info.name)) for info in self.outputs)
        for info, shape in zip(self.outputs, given):
            if min(shape, default=0) < 0:
                raise EngineError(f"the size of output {info.name} depends on the values of the inputs")
        return given

    def _check(self, feeds: Feeds) -> None:
        super()._check(feeds)
        self._check_limits(feeds)

    def _check_limits(self, feeds: Mapping[str, Any]) -> None:
        for name, (low, high) in self._limits.items():
            check_within(name, feeds[name].shape, low, high)

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """Run the model once and leave its outputs on the GPU, for another engine or library there.

        Args:
            feeds: One array for each input, by name, of its dtype and shape: on the host as for `run`, or on
                the GPU, whatever has ``__cuda_array_interface__``: what this method gave, of this engine or
                of another, a PyTorch tensor, a CuPy array. Those are copied within the GPU.

        Returns:
            Outputs by name, in the model's order, complete. They are the engine's own memory: its next run,
            of this method or of `run`, writes over them, and reading them after that is an `InputError`.

        Raises:
            InputError: As `run`; or an array on the GPU is not contiguous, or gone.
            EngineError: The engine failed.
        """
        on_device = {n: DeviceArray.of(v, f"input {n}") for n, v in feeds.items() if lies_on_device(v)}
        values = {**feeds, **on_device}
        check_feeds(values, self.inputs, (np.ndarray, DeviceArray))
        self._check_limits(values)
        with self._running():
            self._execute([values[info.name] for info in self.inputs])
            cuda_api.call("cudaStreamSynchronize", self._stream)
            settle = partial(self._still, self._runs)
            return {
                info.name: DeviceArray(self._buffers[info.name].device, shape, np.dtype(info.dtype), settle)
                for info, shape in zip(self.outputs, self._given)
            }

    def _still(self, run: int) -> None:
        """See that the outputs of a run are there."""
        if self._closed:
            raise InputError(f"{self.artifact.name}: was closed, and its outputs are gone with it")
        if run != self._runs:
            raise InputError(
                f"{self.artifact.name}: these outputs were written over by a later run; "
                "take a copy before it (.numpy()), or give them to the next engine first"
            )

    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        with self._running():
            self._execute([feeds[info.name] for info in self.inputs])
            for info, shape in zip(self.outputs, self._given):
                cuda_api.download(self._buffers[info.name], tensor_bytes(shape, info.dtype), self._stream)
            cuda_api.call("cudaStreamSynchronize", self._stream)
            return [
                self._buffers[info.name].array(shape, info.dtype).copy()
                for info, shape in zip(self.outputs, self._given)
            ]

    @contextmanager
    def _running(self) -> Iterator[None]:
        """One run at a time, and none once the engine was closed."""
        with self._lock:
            if self._closed:
                raise InputError(f"{self.artifact.name}: was closed; open it again")
            with self._blamed():
                yield

    def _execute(self, values: Sequence[npt.NDArray[Any] | DeviceArray]) -> None:
        """Put one run into the stream: copies into the engine's inputs, and the network."""
        shapes = tuple(tuple(value.shape) for value in values)
        for info, value in zip(self.inputs, values):
            self._put(self._buffers[info.name], value)
        self._runs += 1
        if shapes != self._shapes:
            self._take(shapes)
            self._enqueue()
            return
        # what TensorRT does once for a shape is done by now and is no part of the graph
        if self._graph is None and self._capturing:
            self._capture()
        if self._graph is None:
            self._enqueue()
        else:
            cuda_api.call("cudaGraphLaunch", self._graph, self._stream)

    def _put(self, target: cuda_api.Buffer, value: npt.NDArray[Any] | DeviceArray) -> None:
        if isinstance(value, DeviceArray):
            value.settle()
            cuda_api.copy(target, value.address, value.nbytes, self._stream)
        else:
            np.copyto(target.array(value.shape, value.dtype), value)
            cuda_api.upload(target, value.nbytes, self._stream)

    def _take(self, shapes: tuple[Shape, ...]) -> None:
        """Turn to other shapes, for which the graph is none: TensorRT's memory is laid out anew."""
        self._drop_graph()
        self._shapes = None
        self._given = self._set_shapes(shapes)
        self._shapes = shapes

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT failed ({reason()})")

    def _capture(self) -> None:
        """Keep the network for these shapes as a graph; where that cannot be done, runs go on without."""
        try:
            work = cuda_api.captured(self._stream, self._enqueue)
            self._graph = self._graph_held.enter_context(work)
        except EngineError as error:
            self._capturing = False
            self.facts["cuda_graphs"] = f"not used: {error}"

    def _drop_graph(self) -> None:
        self._graph = None
        self._graph_held.close()

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            raise EngineError(f"{self.artifact.name}: {error}") from error

    def _release(self) -> None:
        with self._lock:
            # the graph, buffers, the engine and its stream, in this order
            self._held.close()

    def _forget(self) -> None:
        self._context = self._engine = self._runtime = None


def deserialized(runtime: Any, artifact: Artifact, capability: str) -> Any:
    """The engine that an artifact holds.

    Raises:
        EngineMismatch: It was built for something else than what is here, or is damaged.
    """
    tensorrt = find_tensorrt()
    collector(tensorrt).take()
    engine = runtime.deserialize_cuda_engine(artifact.content)
    if engine is None:
        here = f"{tensorrt.flavor} {tensorrt.version} on a GPU of compute capability {capability}"
        raise EngineMismatch(
            f"{artifact.name}: {here} does not load this engine ({reason()}); build it again from the ONNX"
        )
    return engine


def reason() -> str:
    """What TensorRT complained of first since it was last asked."""
    errors = collector(find_tensorrt()).take().errors
    return errors[0] if errors else "it does not say why"


def in_order(found: Sequence[TensorInfo], described: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """Tensors of an engine in the order of the manifest, which TensorRT does not promise to keep."""
    place = {info.name: index for index, info in enumerate(described)}
    return tuple(sorted(found, key=lambda info: place.get(info.name, len(place))))


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor."""
    return prod(shape) * np.dtype(dtype).itemsize


def check_within(name: str, shape: Shape, low: Shape, high: Shape) -> None:
    """Compare a feed with the shapes an engine was built for.

    Raises:
        InputError: It is smaller or larger; names the range.
    """
    if not all(least <= size <= most for least, size, most in zip(low, shape, high)):
        raise InputError(
            f"input {name}: shape {sizes_text(shape)}, the engine was built for {sizes_text(low)} "
            f"to {sizes_text(high)}"
        )
