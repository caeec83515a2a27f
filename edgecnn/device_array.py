"""Arrays that live in the memory of a GPU, as libraries hand them to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn import cuda_api
from edgecnn.errors import InputError, first_line

__all__ = ["DeviceArray", "lies_on_device"]

INTERFACE = "__cuda_array_interface__"


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array on the GPU. It owns nothing: whoever made the memory keeps it.

    PyTorch, CuPy and Numba take it as it is (``torch.as_tensor(array, device="cuda")``), without a copy.

    Attributes:
        address: Of its first byte on the GPU.
        shape, dtype: As of a NumPy array.
        settle: Waits until the content may be read; raises `InputError` if it is gone.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    settle: Callable[[], None]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface of Numba's documentation; settled, so that a reader need not wait."""
        self.settle()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def numpy(self) -> npt.NDArray[Any]:
        """A copy on the host.

        Raises:
            InputError: The content is gone.
            EngineError: CUDA failed.
        """
        self.settle()
        copy = np.empty(self.shape, self.dtype)
        cuda_api.read(copy, self.address)
        return copy

    @classmethod
    def of(cls, value: object, name: str) -> DeviceArray:
        """The array that another library shows by ``__cuda_array_interface__``; the library keeps the memory.

        Args:
            value: Such as a PyTorch tensor on the GPU.
            name: What to call it in messages.

        Raises:
            InputError: It is not on the GPU, not C-contiguous, masked, or of a dtype NumPy does not know.
        """
        if isinstance(value, cls):
            return value
        try:
            interface: Mapping[str, Any] = getattr(value, INTERFACE)
        except (AttributeError, RuntimeError, TypeError) as error:  # PyTorch: on the host, sparse, needs grad
            reason = first_line(error)
            raise InputError(
                f"{name}: is not readable on the GPU ({reason}); give its NumPy array"
            ) from error
        try:
            shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
            address = int(interface["data"][0])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{name}: its {INTERFACE} is not one that edgecnn can read ({error!r})"
            ) from error
        if interface.get("mask") is not None:
            raise InputError(f"{name}: has a mask; fill it in first")
        if not _contiguous(shape, interface.get("strides"), dtype.itemsize):
            raise InputError(f"{name}: its elements do not lie one after the other; make it contiguous first")
        return cls(address, shape, dtype, lambda: _wait_for(interface))


def lies_on_device(value: object) -> bool:
    """Whether an array is in the memory of a GPU and not in the host's."""
    return not isinstance(value, np.ndarray) and hasattr(type(value), INTERFACE)


def _contiguous(shape: Sequence[int], strides: Sequence[int] | None, itemsize: int) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _wait_for(interface: Mapping[str, Any]) -> None:
    """Wait for who still writes to an array; before version 3 of the interface nobody could say who."""
    if interface.get("version", 0) < 3:
        cuda_api.call("cudaDeviceSynchronize")
    elif interface.get("stream") is not None:
        cuda_api.call("cudaStreamSynchronize", interface["stream"])
