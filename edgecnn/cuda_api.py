"""The few calls of the CUDA runtime that running an engine needs, each of them checked.

They go through cuda-python, whose module has had two names since version 11 and the same calls. What is
taken from CUDA is given back when its ``with`` ends.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import DeviceUnavailable, EngineError, MissingDependency, first_line

__all__ = [
    "Buffer",
    "buffer",
    "call",
    "captured",
    "compute_capability",
    "copy",
    "download",
    "find_cuda",
    "read",
    "stream",
    "upload",
]

# the second is that of cuda-python 11 and 12.0 to 12.5
MODULES = ("cuda.bindings.runtime", "cuda.cudart")
CURE = "install NVIDIA's driver, or choose another runtime"


@cache
def find_cuda() -> ModuleType:
    """The module of cuda-python that has the CUDA runtime; importing it needs no driver.

    Raises:
        MissingDependency: It is not installed.
    """
    reasons = []
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(first_line(error))
    raise MissingDependency(
        f"cuda-python could not be imported ({reasons[0]}); try: pip install 'edgecnn[tensorrt]'"
    )


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime by its name in C.

    Returns:
        What it gives beside its error code, or None.

    Raises:
        EngineError: It failed; holds CUDA's name of the error.
        DeviceUnavailable: There is no driver.
        MissingDependency: There is no cuda-python.
    """
    cuda = find_cuda()
    try:
        code, *values = getattr(cuda, name)(*arguments)
    except RuntimeError as error:  # of versions 11 and 12, which look for the driver in the first call
        raise DeviceUnavailable(f"no NVIDIA driver can be used here ({first_line(error)}); {CURE}") from error
    if code != cuda.cudaError_t.cudaSuccess:
        # CUDA keeps an error until it is asked for, and the next to ask would take it for its own
        cuda.cudaGetLastError()
        raise EngineError(f"{name} failed: {code.name}")
    return values[0] if values else None


def compute_capability() -> str:
    """That of the first GPU, such as ``8.7``; ``CUDA_VISIBLE_DEVICES`` says which one is the first.

    Raises:
        DeviceUnavailable: No GPU, or no driver for it.
        MissingDependency: There is no cuda-python.
    """
    try:
        if not call("cudaGetDeviceCount"):
            raise EngineError("CUDA finds none")
        attributes = find_cuda().cudaDeviceAttr
        major = call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, 0)
        minor = call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, 0)
    except EngineError as error:
        raise DeviceUnavailable(f"no NVIDIA GPU can be used here ({error}); {CURE}") from error
    return f"{major}.{minor}"


@dataclass(frozen=True)
class Buffer:
    """Memory of the GPU, and as much of the host that the GPU can copy from and to by itself.

    Attributes:
        device: Its address on the GPU.
        host: The bytes on the host, uint8.
    """

    device: int
    host: npt.NDArray[np.uint8]

    def array(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The first bytes on the host as an array: no copy, and gone with the buffer."""
        view: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer=self.host)
        return view


@contextmanager
def stream() -> Iterator[Any]:
    """A queue of work for the GPU; ``int`` of it is what TensorRT takes.

    Raises:
        EngineError: CUDA gave none.
    """
    made = call("cudaStreamCreateWithFlags", find_cuda().cudaStreamNonBlocking)
    try:
        yield made
    finally:
        _give_back("cudaStreamDestroy", made)


@contextmanager
def buffer(nbytes: int) -> Iterator[Buffer]:
    """Memory for at most so many bytes; also for none, since TensorRT wants an address of everything.

    Raises:
        EngineError: There is not as much left.
    """
    size = max(nbytes, 1)
    device = call("cudaMalloc", size)
    try:
        host = call("cudaHostAlloc", size, find_cuda().cudaHostAllocDefault)
        try:
            memory = (ctypes.c_uint8 * size).from_address(int(host))
            yield Buffer(int(device), np.ctypeslib.as_array(memory))
        finally:
            _give_back("cudaFreeHost", host)
    finally:
        _give_back("cudaFree", device)


def upload(target: Buffer, nbytes: int, queue: Any) -> None:
    """Queue the copy of the first bytes to the GPU."""
    kind = find_cuda().cudaMemcpyKind.cudaMemcpyHostToDevice
    call("cudaMemcpyAsync", target.device, target.host.ctypes.data, nbytes, kind, queue)


def download(source: Buffer, nbytes: int, queue: Any) -> None:
    """Queue the copy of the first bytes from the GPU."""
    kind = find_cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
    call("cudaMemcpyAsync", source.host.ctypes.data, source.device, nbytes, kind, queue)


def copy(target: Buffer, source: int, nbytes: int, queue: Any) -> None:
    """Queue the copy of bytes at another address of the GPU."""
    kind = find_cuda().cudaMemcpyKind.cudaMemcpyDeviceToDevice
    call("cudaMemcpyAsync", target.device, source, nbytes, kind, queue)


def read(target: npt.NDArray[Any], source: int) -> None:
    """Fill a contiguous array with what is at an address of the GPU; done when this returns."""
    kind = find_cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
    call("cudaMemcpy", target.ctypes.data, source, target.nbytes, kind)


@contextmanager
def captured(queue: Any, work: Callable[[], None]) -> Iterator[Any]:
    """What ``work`` puts into a stream as a graph for ``cudaGraphLaunch``; none of it runs for this.

    Raises:
        EngineError: ``work`` did something that cannot be captured; the stream is as it was.
    """
    # other threads may go on allocating
    mode = find_cuda().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    call("cudaStreamBeginCapture", queue, mode)
    try:
        work()
    except BaseException:
        # until its capture is ended, a stream runs nothing
        with suppress(EngineError):
            _give_back("cudaGraphDestroy", call("cudaStreamEndCapture", queue))
        raise
    graph = call("cudaStreamEndCapture", queue)
    try:
        made = call("cudaGraphInstantiateWithFlags", graph, 0)
    finally:
        _give_back("cudaGraphDestroy", graph)
    try:
        yield made
    finally:
        _give_back("cudaGraphExecDestroy", made)


def _give_back(name: str, *arguments: Any) -> None:
    """Call what frees something: it fails only with an error of earlier work, which was reported then."""
    with suppress(EngineError):
        call(name, *arguments)
