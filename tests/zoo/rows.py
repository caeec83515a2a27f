"""One row of the coverage matrix: a network of the zoo, what it reads, and what is to become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgecnn.spec import ModelSpec
from edgecnn.vision.opencv import cv2

__all__ = ["Importance", "Row", "images", "seasoned"]

Importance = Literal["core", "expected", "beyond"]

COLORS: dict[str, dict[str, Any]] = {
    "rgb": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "gray": {"mean": (0.5,), "std": (0.25,)},
}
# statistics of fewer images hold for no others
SEASONING_IMAGES, SEASONING_PIXELS = (8, 32), 600_000


# What units have for a mean. About zero, half of them are cut off by ReLU in every layer: then random networks
# blow up the rounding of their first layers by 1.2 a layer (Yang et al., "A Mean Field Theory of Batch
# Normalization", 2019), as trained ones do not, and float16 says nothing.
SHIFT = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network of the zoo.

    Attributes:
        name: Unique; the part before the slash is its section.
        importance: Whether users miss it.
        build: Makes the module, with random weights.
        size_hw: Pixels of its input.
        color: ``rgb`` or ``gray``.
        task: ``tensors`` where the outputs are no scores of classes.
        output: The output that holds the scores, where it is not the first.
        scale: 1.0 for a module that takes 0..255 and normalises by itself.
        refused: What the message matches that a user sees, where the network must not be converted.
        needs: A package that is no dependency of the suite.
        params: Parameters that the network is known to have.
        note: How the row differs from the network it stands for.
    """

    name: str
    importance: Importance
    build: Callable[[], nn.Module]
    size_hw: tuple[int, int]
    color: Literal["rgb", "gray"] = "rgb"
    task: Literal["classification", "window_detection", "tensors"] = "classification"
    output: str | None = None
    scale: float = 1 / 255
    refused: str | None = None
    needs: str | None = None
    params: int | None = None
    note: str = ""

    @property
    def section(self) -> str:
        """The part of the zoo it belongs to."""
        return self.name.partition("/")[0]

    @property
    def spec(self) -> ModelSpec:
        """What it wants; its scores are compared as they leave the network, before any softmax."""
        normalised = COLORS[self.color] if self.scale != 1 else {}
        return ModelSpec(
            task=self.task,
            size_hw=self.size_hw,
            color=self.color,
            scale=self.scale,
            activation="none",
            output=self.output,
            **normalised,
        )

    def make(self) -> nn.Module:
        """The module in eval mode, the same each time, with weights and statistics as after training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.build().eval()
            return module if self.refused else seasoned(module, self._normalised())

    def _normalised(self) -> Tensor:
        spec = self.spec
        least, most = SEASONING_IMAGES
        count = min(max(SEASONING_PIXELS // (spec.size_hw[0] * spec.size_hw[1]), least), most)
        pixels = torch.from_numpy(images(spec, count, seed=2)).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
        return (pixels * spec.scale - mean) / std


def images(spec: ModelSpec, count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Smooth pictures, uint8 (count, h, w, c): coarse noise enlarged, with a little fine noise on top."""
    rng = np.random.default_rng(seed)
    height, width, channels = spec.input_shape
    batch = np.empty((count, height, width, channels), np.uint8)
    for picture in batch:
        coarse = rng.uniform(-40, 296, (rng.integers(2, 9), rng.integers(2, 9), channels))
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        fine = rng.normal(0, 4, picture.shape)
        picture[:] = (smooth.reshape(picture.shape) + fine).clip(0, 255)
    return batch


def seasoned(module: nn.Module, inputs: Tensor) -> nn.Module:
    """Take a module out of its initial state, so that its values are as those of a trained one.

    Parameters that are all of one value (scales of norms, biases, scales of residual branches) are spread
    about it. Layers then take their scale from what the inputs make of them, one after the other, and
    BatchNorm its statistics: no activation grows or fades with depth, and outputs tell images apart. See
    Krähenbühl et al., "Data-dependent Initializations of Convolutional Neural Networks" (2016).
    """
    for name, parameter in module.named_parameters():
        if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
            _spread(parameter.data, bias=name.endswith("bias"))
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            norm.bias.data.uniform_(*SHIFT)
    seen: set[nn.Module] = set()
    hooks = []
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            hooks.append(layer.register_forward_pre_hook(lambda layer, args: _observed(layer, args[0], seen)))
        elif type(layer) in (nn.Conv2d, nn.Linear) and layer.weight.requires_grad:
            hooks.append(layer.register_forward_hook(lambda layer, _, out: _scaled(layer, out, seen)))
    with torch.no_grad():
        module(inputs)
    for hook in hooks:
        hook.remove()
    return module


def _spread(values: Tensor, *, bias: bool) -> None:
    value = float(values.flatten()[0])
    if bias:
        values.uniform_(value - 0.1, value + 0.1)
    elif abs(value) > 0.01:
        values.uniform_(0.6 * value, 1.4 * value)
    elif values.ndim > 1:
        values.normal_(0, 0.02)
    else:
        values.uniform_(0.1, 0.3)


def _observed(norm: Any, values: Tensor, seen: set[nn.Module]) -> None:
    if norm in seen:
        return
    seen.add(norm)
    channels = values.transpose(0, 1).flatten(1)
    norm.running_mean.copy_(channels.mean(1))
    norm.running_var.copy_(_not_small(channels.std(1), channels) ** 2)


def _not_small(spread: Tensor, values: Tensor) -> Tensor:
    # what hardly moves, as pooled features do, would be blown up, and its rounding with it
    return spread.clamp(min=0.7 * float(values.square().mean().sqrt()) + 1e-6)


def _scaled(layer: Any, out: Tensor, seen: set[nn.Module]) -> Tensor:
    """Give each channel a spread of about one and, by the bias, a mean within `SHIFT`."""
    if layer in seen:  # shared by several inputs: the first one counts
        return out
    seen.add(layer)
    axis = 1 if isinstance(layer, nn.Conv2d) else out.ndim - 1
    values = out.transpose(0, axis).flatten(1)
    factor = torch.empty(len(values)).uniform_(0.6, 1.4) / _not_small(values.std(1), values)
    layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
    shape = [-1 if i == axis else 1 for i in range(out.ndim)]
    if layer.bias is None:
        return out * factor.view(shape)
    shift = torch.empty_like(factor).uniform_(*SHIFT) - values.mean(1) * factor
    layer.bias.mul_(factor).add_(shift)
    return out * factor.view(shape) + shift.view(shape)
