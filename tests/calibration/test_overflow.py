"""Layers whose results float16 cannot hold are found, also where nothing at the end shows it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecnn import ModelSpec
from edgecnn.calibration.overflow import Overflow, first_overflow
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from tests import models
from tests.converters.helpers import convert

SPEC = ModelSpec(task="tensors", size_hw=(2, 2), color="gray", scale=1.0)


def chain(*steps: float | nn.Module) -> nn.Module:
    """1×1 convolutions that multiply by a factor, and other modules; the input is the pixel's value."""
    modules = []
    for step in steps:
        if isinstance(step, nn.Module):
            modules.append(step)
            continue
        conv = nn.Conv2d(1, 1, 1, bias=False)
        with torch.no_grad():
            conv.weight.fill_(step)
        modules.append(conv)
    return nn.Sequential(*modules)


def find(module: nn.Module, *batches: float, batch: int | None = None) -> Overflow | None:
    """Each batch is two pictures of pixels of one value."""
    model = convert(module, SPEC, batch=batch).model
    half = OnnxToFp16()(onnx.load_from_string(model)).SerializeToString()
    pictures = [np.full((2, 2, 2, 1), value, np.uint8) for value in batches]
    return first_overflow(model, half, pictures, threads=1)


@pytest.mark.parametrize(
    ("module", "layer", "op", "value"),
    [
        # 100 · 10 · 100 = 1e5; the next layer would bring it back
        (chain(10.0, 100.0, 0.001), "1", "Conv", 1e5),
        # a clamp and a sigmoid hide it
        (chain(10.0, 100.0, nn.ReLU6()), "1", "Conv", 1e5),
        (chain(1000.0, nn.Sigmoid(), 2.0), "0", "Conv", 1e5),
        # negative
        (chain(-1.0, 1000.0, nn.ReLU()), "1", "Conv", 1e5),
        # the output itself, which is cast to float32 at once
        (chain(10.0, 100.0), "1", "Conv", 1e5),
        # the pixels, before float16 begins
        (models.Lambda(lambda x: torch.sigmoid((x * 1000).mean((2, 3)))), "mul", "Mul", 1e5),
        # two layers that overflow: the first is named
        (chain(1000.0, 2.0, 3.0), "0", "Conv", 1e5),
    ],
)
def test_the_first_layer_is_named(module: nn.Module, layer: str, op: str, value: float) -> None:
    found = find(module, 100)
    assert found is not None
    assert (found.layer, found.op) == (layer, op)
    assert found.value == pytest.approx(value)


@pytest.mark.parametrize("module", [chain(10.0, 65.0), chain(100.0, nn.Softmax(dim=-1)), chain(0.0, 5.0)])
def test_what_fits_is_not_named(module: nn.Module) -> None:
    assert find(module, 100) is None


def test_what_float32_breaks_too_is_not_the_fault_of_float16() -> None:
    class Logarithm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(x)

    assert find(chain(1.0, Logarithm()), 0) is None


def test_every_batch_counts_and_the_first_layer_of_all_is_named() -> None:
    """Pixels of 50 overflow in the last layer only, pixels of 250 in the middle one."""
    module = chain(10.0, 30.0, 11.0)
    last, middle = find(module, 10, 50), find(module, 50, 250)
    assert last is not None
    assert middle is not None
    assert (last.layer, last.value) == ("2", pytest.approx(165_000))
    assert (middle.layer, middle.value) == ("1", pytest.approx(75_000))


def test_a_fixed_batch() -> None:
    found = find(chain(1000.0, 0.5), 100, batch=2)
    assert found is not None
    assert found.layer == "0"
