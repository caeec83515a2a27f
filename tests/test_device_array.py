"""Arrays on a GPU as other libraries show them: what is read of them, and what is refused. No GPU is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgecnn import cuda_api
from edgecnn.cuda_api import buffer, call, copy, stream, upload
from edgecnn.device_array import DeviceArray, lies_on_device
from edgecnn.errors import InputError
from tests.gpu import gpu


class OnDevice:
    """What a library gives."""

    def __init__(self, **interface: Any) -> None:
        self.interface = interface

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        whole = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}
        return {**whole, **self.interface}


def nothing() -> None:
    pass


def test_what_lies_on_a_gpu() -> None:
    mine = DeviceArray(0, (1,), np.dtype("uint8"), nothing)
    assert lies_on_device(mine)
    assert lies_on_device(OnDevice())
    assert not any(map(lies_on_device, (np.zeros(1), [1], None, "x")))


def test_what_is_read() -> None:
    array = DeviceArray.of(OnDevice(), "input x")
    assert (array.address, array.shape, array.dtype, array.nbytes) == (4096, (2, 3), np.dtype("float32"), 24)
    assert DeviceArray.of(array, "input x") is array


@pytest.mark.parametrize(
    ("shape", "strides", "typestr"),
    [
        ((2, 3), (12, 4), "<f4"),
        ((2, 3), None, "<f4"),
        ((1, 3), (999, 1), "|u1"),
        ((2, 1), (2, 777), "<f2"),
        ((0, 3), (1, 1), "<f4"),
        ((), (), "<i8"),
        ((4, 5, 6), (240, 48, 8), "<i8"),
    ],
)
def test_contiguous_ones_are_taken(shape: tuple[int, ...], strides: Any, typestr: str) -> None:
    shown = OnDevice(shape=shape, strides=strides, typestr=typestr)
    assert DeviceArray.of(shown, "input x").shape == shape


@pytest.mark.parametrize(
    ("shape", "strides"), [((2, 3), (4, 8)), ((2, 3), (24, 4)), ((2, 3), (-12, 4)), ((2, 3), (0, 4))]
)
def test_others_are_refused(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Transposed, every second row, upside down, broadcast."""
    with pytest.raises(InputError, match=r"^input x: its elements do not lie one after the other; make it"):
        DeviceArray.of(OnDevice(shape=shape, strides=strides), "input x")


def test_a_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"^input x: has a mask"):
        DeviceArray.of(OnDevice(mask=OnDevice()), "input x")


@pytest.mark.parametrize(
    "broken", [{"typestr": "bfloat"}, {"shape": 3}, {"data": None}, {"data": ()}, {"data": ("x", 0)}]
)
def test_a_broken_interface_is_one_line(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^input x: its __cuda_array_interface__ is not one .*\)$"):
        DeviceArray.of(OnDevice(**broken), "input x")


@pytest.mark.parametrize("tensor", [torch.zeros(2), torch.zeros(2, requires_grad=True)])
def test_a_tensor_on_the_host_is_one_line(tensor: torch.Tensor) -> None:
    """Its type has the interface, and using it is an error."""
    with pytest.raises(InputError, match=r"^input x: is not readable on the GPU \(.+\); give .+$"):
        DeviceArray.of(tensor, "input x")


@pytest.mark.parametrize(
    ("interface", "waits"),
    [
        ({"stream": None}, []),
        ({}, []),
        ({"stream": 1}, [("cudaStreamSynchronize", 1)]),
        ({"stream": 77}, [("cudaStreamSynchronize", 77)]),
        ({"version": 2}, [("cudaDeviceSynchronize",)]),
    ],
)
def test_who_is_waited_for(
    interface: dict[str, Any], waits: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's tensors are of version 2, which does not say who writes to them."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cuda_api, "call", lambda *arguments: calls.append(arguments))
    DeviceArray.of(OnDevice(**interface), "input x").settle()
    assert calls == waits


def test_what_others_are_shown() -> None:
    mine = DeviceArray(4096, (2, 3), np.dtype("float16"), nothing)
    shown = mine.__cuda_array_interface__
    assert shown["typestr"] == "<f2"
    assert (shown["shape"], shown["data"], shown["version"]) == ((2, 3), (4096, False), 3)
    assert (shown["strides"], shown["stream"]) == (None, None)


def test_what_is_gone_is_not_shown() -> None:
    def gone() -> None:
        raise InputError("written over")

    mine = DeviceArray(4096, (2, 3), np.dtype("float16"), gone)
    with pytest.raises(InputError, match="written over"):
        mine.numpy()
    with pytest.raises(InputError, match="written over"):
        _ = mine.__cuda_array_interface__
    assert lies_on_device(mine)


def test_within_a_gpu_and_back() -> None:
    gpu()
    with stream() as queue, buffer(8) as first, buffer(8) as second:
        first.host[:] = range(8)
        upload(first, 8, queue)
        copy(second, first.device, 8, queue)
        call("cudaStreamSynchronize", queue)
        array = DeviceArray(second.device, (2, 4), np.dtype("uint8"), nothing)
        assert array.numpy().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        again = DeviceArray.of(OnDevice(**array.__cuda_array_interface__), "input x")
        assert again.numpy().tolist() == array.numpy().tolist()
