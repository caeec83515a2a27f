"""Channels are spread over the range of their tensor where, and only where, nothing else changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgecnn import ModelSpec
from edgecnn.calibration.equalization import SCALE_MAX, equalize
from edgecnn.runtimes import Artifact, backend
from tests.converters.helpers import convert

SPEC = ModelSpec(task="tensors", size_hw=(4, 4), color="gray", scale=1.0)
IMAGES = np.random.default_rng(0).integers(1, 256, (6, 4, 4, 1)).astype(np.uint8)

# of channels that are 1, 1/2, 1/4 and 0 times the pixel
FACTORS = [1.0, 0.5, 0.25, 0.0]


def first(*, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(1, 4, 1, bias=bias)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(FACTORS).reshape(4, 1, 1, 1))
        if bias:
            conv.bias.zero_()
    return conv


def depthwise(multiplier: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 4 * multiplier, 3, padding=1, groups=4)


class Branches(nn.Module):
    """Several layers that read the same activation."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.first = first()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return torch.stack([branch(x).mean((1, 2, 3)) for branch in self.branches], 1)


class Twice(nn.Module):
    """One convolution in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = first()
        self.conv = depthwise()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(torch.relu(self.first(x))))


def run(model: ir.Model) -> npt.NDArray[np.float32]:
    artifact = Artifact(format="onnx", content=ir.to_proto(model).SerializeToString())
    with backend("ort")(artifact) as runtime:
        return np.asarray(next(iter(runtime.run({runtime.inputs[0].name: IMAGES}).values())))


def weights(model: ir.Model) -> list[npt.NDArray[np.float32]]:
    """Of the convolutions, in the order of the graph."""
    return [node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "Conv"]


def both(module: nn.Module) -> tuple[ir.Model, ir.Model]:
    """A network before and after; that it computes the same is checked."""
    before = ir.from_proto(onnx.load_from_string(convert(module, SPEC).model))
    content = ir.to_proto(before).SerializeToString()
    after = equalize(before, IMAGES, threads=1)
    assert ir.to_proto(before).SerializeToString() == content
    np.testing.assert_allclose(run(after), run(before), rtol=1e-5, atol=1e-3)
    return before, after


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(first(), nn.ReLU(), depthwise()),
        nn.Sequential(first(bias=False), nn.ReLU(), depthwise()),
        nn.Sequential(first(), depthwise()),
        nn.Sequential(first(), nn.ReLU(), depthwise(multiplier=2)),
        Branches(depthwise(), depthwise(2)),
    ],
)
def test_channels_come_to_the_largest(module: nn.Module) -> None:
    before, after = both(module)
    assert weights(after)[0].ravel() == pytest.approx([1, 1, 1, 0])
    for old, new in zip(weights(before)[1:], weights(after)[1:]):
        scale = np.repeat([1, 2, 4, SCALE_MAX], len(old) // 4).reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(new, old / scale, rtol=1e-6)


def test_biases_are_scaled_and_chains_composed() -> None:
    chain = nn.Sequential(first(), nn.ReLU(), depthwise(), nn.ReLU(), depthwise())
    with torch.no_grad():
        chain[0].bias.copy_(10 * torch.tensor(FACTORS))
        chain[2].weight.fill_(0.25)
        chain[2].bias.zero_()
    before, after = both(chain)
    bias = next(node for node in after.graph if node.op_type == "Conv").inputs[2].const_value.numpy()
    assert bias == pytest.approx([10, 10, 10, 0])
    # what the second divides by, it multiplies with for the third
    np.testing.assert_allclose(weights(after)[1], weights(before)[1])
    scale = np.reshape([1, 2, 4, SCALE_MAX], (4, 1, 1, 1))
    np.testing.assert_allclose(weights(after)[2], weights(before)[2] / scale, rtol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(first(), nn.ReLU6(), depthwise()),
        nn.Sequential(first(), nn.Hardswish(), depthwise()),
        nn.Sequential(first(), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)),
        nn.Sequential(first(), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=2)),
        nn.Sequential(first(), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        Branches(depthwise(), nn.Conv2d(4, 1, 1)),
        Branches(depthwise(), nn.Identity()),
        Twice(),
    ],
)
def test_all_else_is_left_alone(module: nn.Module) -> None:
    before, after = both(module)
    for old, new in zip(weights(before), weights(after)):
        np.testing.assert_array_equal(new, old)


def test_a_tensor_that_is_always_zero() -> None:
    dead = first()
    with torch.no_grad():
        dead.weight.mul_(-1)
    before, after = both(nn.Sequential(dead, nn.ReLU(), depthwise()))
    np.testing.assert_array_equal(weights(after)[0], weights(before)[0])
