"""Single operations between two convolutions, as layers meet them in a network.

A 1×1 convolution makes the channels that an operation wants of an image of three, and where the operation
gives a map again another one reads it, so that INT8 has layers on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.models import Concat
from tests.zoo.rows import Importance, Row

SIZE = (32, 32)


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Combine(nn.Module):
    """A sum, product or other function of two convolutions of one input."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], channels: int = 8) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.first(x), self.second(x))


class Tokens(nn.Module):
    """Pixels as tokens with their channels last; one more in front, as a class token is."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, channels))
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        tokens = x.flatten(2).transpose(1, 2)
        return self.layer(torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1))


class Attention(nn.Module):
    """Scaled dot-product attention with eight heads."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.qkv, self.heads = nn.Conv2d(channels, 3 * channels, 1), heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-2, -1).unbind(1)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return mixed.transpose(-2, -1).flatten(1, 2).unflatten(2, x.shape[-2:])


class GuessedRange(nn.Module):
    """Guesses from its values whether an image was normalised."""

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 1.0:
            x = x / 255
        return x.flatten(1)


class NearestCode(nn.Module):
    """Replaces each place by the nearest vector of a codebook."""

    def __init__(self, channels: int = 8, codes: int = 32) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(codes, channels))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        places = x.flatten(2).transpose(1, 2)
        distances = (self.codes**2).sum(1) - 2 * places @ self.codes.T
        return {"distances": distances, "codes": distances.argmin(2)}


def nails(x: Tensor) -> Tensor:
    """Bed of nails by assigning to every second place."""
    up = x.new_zeros(x.shape[0], x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    up[:, :, ::2, ::2] = x
    return up


def nails_stacked(x: Tensor) -> Tensor:
    """Bed of nails by interleaving with zeros."""
    zeros = torch.zeros_like(x)
    wide = torch.stack([x, zeros], -1).flatten(-2)
    return torch.stack([wide, torch.zeros_like(wide)], -2).flatten(2, 3)


def expected_pool(x: Tensor) -> Tensor:
    """Stochastic pooling at inference: the mean of a window weighed by its own activations."""
    x = functional.relu(x)
    return functional.avg_pool2d(x * x, 2) / (functional.avg_pool2d(x, 2) + 1e-4)


def sampled_pool(x: Tensor) -> Tensor:
    """Stochastic pooling as it is trained: one value of a window, drawn by its size."""
    windows = functional.unfold(functional.relu(x), 2, stride=2).unflatten(1, (x.shape[1], 4)).transpose(2, 3)
    drawn = torch.multinomial(windows.flatten(0, 2) + 1e-4, 1)
    return windows.flatten(0, 2).gather(1, drawn).reshape(x.shape[0], x.shape[1], -1)


def shifted_pad(x: Tensor) -> Tensor:
    """The border that Keras gives a convolution of stride 2 and the same size: below and right only."""
    return functional.pad(x, (0, 1, 0, 1))


def decode(x: Tensor) -> Tensor:
    """Sizes of boxes from their logarithms, limited first."""
    return x.clamp(-4, 4).exp()


def pyramid_pool(x: Tensor) -> Tensor:
    """Grids of 1×1, 2×2 and 4×4 beside one another."""
    return torch.cat([functional.adaptive_avg_pool2d(x, grid).flatten(1) for grid in (1, 2, 4)], 1)


FIXED_KERNELS = (
    ((0, -1, 0), (-1, 4, -1), (0, -1, 0)),
    ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    ((-1, -1, -1), (0, 0, 0), (1, 1, 1)),
    ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16)),
    ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    ((1 / 9,) * 3,) * 3,
)


def fixed_kernels() -> nn.Module:
    """Laplace, Sobel, Prewitt, Gauss, sharpening and box on one channel."""
    conv = nn.Conv2d(1, 6, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(FIXED_KERNELS).unsqueeze(1))
    return conv.requires_grad_(False)


def operation(
    name: str,
    layer: Callable[[], nn.Module],
    *,
    importance: Importance = "expected",
    channels: int = 8,
    after: int | None = 8,
    size_hw: tuple[int, int] = SIZE,
    refused: str | None = None,
    note: str = "",
) -> Row:
    """A row of one operation; ``after`` is how many channels it gives, None where it gives no map."""

    def build() -> nn.Module:
        ends = [] if after is None else [nn.Conv2d(after, 8, 1)]
        return nn.Sequential(nn.Conv2d(3, channels, 1), layer(), *ends)

    return Row(
        name=f"operations/{name}",
        importance=importance,
        build=build,
        size_hw=size_hw,
        task="tensors",
        refused=refused,
        note=note,
    )


def function(name: str, function: Callable[[Tensor], Tensor], **options: Any) -> Row:
    """A row of a function."""
    return operation(name, lambda: Function(function), **options)


RANDOM = r"draws random numbers"

OPERATIONS = [
    operation("conv-strided", lambda: nn.Conv2d(8, 8, 3, 2, 1), importance="core"),
    operation("conv-strided-shifted", lambda: nn.Sequential(Function(shifted_pad), nn.Conv2d(8, 8, 3, 2)), importance="core"),
    operation("conv-reflect", lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")),
    operation("conv-replicate", lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate")),
    operation("conv-circular", lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")),
    operation("conv-even-kernel-same", lambda: nn.Conv2d(8, 8, 4, padding="same"), importance="core"),
    operation("conv-dilated", lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2)),
    operation("conv-depthwise", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), importance="core"),
    operation("conv-32-groups", lambda: nn.Conv2d(256, 256, 3, padding=1, groups=32), importance="core", channels=256, after=256, size_hw=(8, 8)),
    operation("conv-transpose-3", lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1)),
    operation("conv-transpose-2", lambda: nn.ConvTranspose2d(8, 8, 2, 2)),
    Row(name="operations/fixed-kernels", importance="expected", build=fixed_kernels, size_hw=SIZE, color="gray", task="tensors"),
    operation("adaptive-max-pool-28-to-7", lambda: nn.AdaptiveMaxPool2d(7), importance="core", size_hw=(28, 28)),
    operation("adaptive-max-pool-32-to-7", lambda: nn.AdaptiveMaxPool2d(7), importance="core", refused=r"\(AdaptiveMaxPool2d\): ONNX has no form of adaptive_max_pool2d"),
    operation("adaptive-avg-pool-32-to-7", lambda: nn.AdaptiveAvgPool2d(7), importance="core"),
    operation("adaptive-avg-pool-10-to-7", lambda: nn.AdaptiveAvgPool2d(7), importance="core", size_hw=(10, 10)),
    operation("global-avg-pool", lambda: nn.AdaptiveAvgPool2d(1), importance="core"),
    operation("global-max-pool", lambda: nn.AdaptiveMaxPool2d(1), importance="core"),
    operation("fractional-max-pool", lambda: nn.FractionalMaxPool2d(2, output_ratio=1 / 1.5), refused=RANDOM),
    operation("lp-pool", lambda: nn.LPPool2d(2, 2)),
    function("mixed-pool", lambda x: 0.3 * functional.max_pool2d(x, 2) + 0.7 * functional.avg_pool2d(x, 2)),
    function("stochastic-pool-expectation", expected_pool),
    function("stochastic-pool-sampling", sampled_pool, after=None, refused=RANDOM),
    function("spatial-pyramid-pool", pyramid_pool, after=None),
    operation("max-pool-2", lambda: nn.MaxPool2d(2), importance="core"),
    operation("max-pool-3-same", lambda: nn.MaxPool2d(3, 1, 1), importance="core"),
    operation("max-pool-ceil-31", lambda: nn.MaxPool2d(3, 2, ceil_mode=True), importance="core", size_hw=(31, 31)),
    operation("avg-pool", lambda: nn.AvgPool2d(3, 2, 1), importance="core"),
    operation("avg-pool-border-not-counted", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), importance="core"),
    operation("nearest-x2", lambda: nn.Upsample(scale_factor=2), importance="core"),
    operation("bilinear-x32", lambda: nn.Upsample(scale_factor=32, mode="bilinear"), importance="core", channels=21, after=None, size_hw=(7, 7)),
    function("interpolate-to-24", lambda x: functional.interpolate(x, size=(24, 24), mode="bilinear"), importance="core"),
    function("interpolate-antialias", lambda x: functional.interpolate(x, size=(24, 24), mode="bilinear", antialias=True)),
    function("bed-of-nails-assigned", nails),
    function("bed-of-nails-stacked", nails_stacked),
    operation("pixel-shuffle", lambda: nn.PixelShuffle(2), after=2),
    operation("layer-norm", lambda: Tokens(nn.LayerNorm(64), 64), channels=64, after=None, size_hw=(14, 14), note="197 tokens of 64: the pixels of 14×14 and one more"),
    operation("group-norm", lambda: nn.GroupNorm(4, 8)),
    operation("instance-norm", lambda: nn.InstanceNorm2d(8, affine=True)),
    operation("attention", lambda: Attention(64), channels=64, after=64, size_hw=(14, 14)),
    operation("patches-token-positions", lambda: nn.Sequential(nn.Conv2d(8, 32, 8, 8), Tokens(nn.Linear(32, 32), 32)), after=None),
    function("sampling", lambda x: x + torch.randn_like(x), refused=RANDOM),
    operation("dropout2d", lambda: nn.Dropout2d(0.5), importance="core"),
    operation("softmax", lambda: nn.Softmax(1), importance="core"),
    operation("sigmoid", lambda: nn.Sigmoid(), importance="core"),
    operation("tanh", lambda: nn.Tanh()),
    operation("relu", lambda: nn.ReLU(), importance="core"),
    operation("leaky-relu-0.1", lambda: nn.LeakyReLU(0.1), importance="core"),
    operation("leaky-relu-0.01", lambda: nn.LeakyReLU(0.01), importance="core"),
    operation("exp", lambda: Function(decode)),
    function("argmax", lambda x: x.argmax(1), after=None),
    function("top-k", lambda x: x.mean((2, 3)).topk(3).values, after=None),
    operation("concat", lambda: Concat(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(3, 1, 1)), importance="core", after=16),
    operation("add", lambda: Combine(torch.add), importance="core"),
    operation("mul", lambda: Combine(torch.mul), importance="core"),
    operation("linear-batch-norm", lambda: nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)), importance="core", after=None),
    operation("conv-batch-norm-dropout", lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3), nn.MaxPool2d(2)), importance="core"),
    operation("nearest-code", NearestCode, importance="beyond", after=None),
    operation("control-flow-on-values", GuessedRange, importance="core", after=None, refused=r"what forward does depends on the values"),
]  # fmt: skip
