"""Whole networks, from LeNet-5 to a Vision Transformer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.rows import Row

Layers = Iterator[nn.Module]
Activation = Callable[[], nn.Module]


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: Activation | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution of the same size, BatchNorm and an activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act()] if act else []))


def global_head(channels: int, *widths: int) -> nn.Sequential:
    """Global average and Linear layers with ReLU between them."""
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for width in widths[:-1]:
        layers += [nn.Linear(channels, width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Linear(channels, widths[-1]))


class Skip(nn.Module):
    """A body beside a shortcut, summed in place."""

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()
        self.act = act or nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        out += self.shortcut(x)
        result: Tensor = self.act(out)
        return result


class Concat(nn.Module):
    """Branches beside one another, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


# ------------------------------------------------------------------ plain chains


def base_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip


def image_classifier() -> nn.Module:
    return nn.Sequential(base_cnn(), nn.Flatten(), nn.Linear(1568, 10), nn.Softmax(1))


class FaceWindow(nn.Module):
    """The score of a window is the mean of its last features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.features(x)
        return features.mean((1, 2, 3))


def transfer_head() -> nn.Module:
    base = [conv_bn(i, o, stride=2) for i, o in ((3, 32), (32, 64), (64, 128), (128, 256), (256, 512))]
    return nn.Sequential(
        *base, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(),
        nn.Linear(256, 5), nn.BatchNorm1d(5), nn.Softmax(1),
    )  # fmt: skip


def _valid_blocks() -> Layers:
    channels = 3
    for width in (32, 64, 128):
        yield from (
            nn.Conv2d(channels, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        channels = width


def three_blocks() -> nn.Module:
    return nn.Sequential(
        *_valid_blocks(),
        nn.Flatten(),
        nn.Linear(128 * 24 * 24, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 10),
    )


def separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1), nn.ReLU())


def separable_net() -> nn.Module:
    return nn.Sequential(separable(3, 32), separable(32, 64), global_head(64, 10))


def conv_gap() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), global_head(64, 10))


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(), nn.MaxPool2d(3, 2), nn.BatchNorm2d(96),
        nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.BatchNorm2d(256),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 1000),
    )  # fmt: skip


def _vgg_blocks(blocks: Sequence[Sequence[int]], *, norm: bool = False) -> Layers:
    channels = 3
    for widths in blocks:
        for width in widths:
            yield from (nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
            channels = width
        yield nn.MaxPool2d(2)
        if norm:
            yield nn.BatchNorm2d(channels)


VGG16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)


def vgg16() -> nn.Module:
    return nn.Sequential(
        *_vgg_blocks(VGG16), nn.Flatten(),
        nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 1000),
    )  # fmt: skip


def vgg_style() -> nn.Module:
    return nn.Sequential(
        *_vgg_blocks(((64, 64), (128, 128), (256,) * 3), norm=True), nn.Flatten(),
        nn.Linear(256 * 64, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(512, 10),
    )  # fmt: skip


def mnist_cnn(widths: Sequence[int], flat: int, *, pool_last: bool = True) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 1
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    if not pool_last:
        layers.pop()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, 10))


def cifar_cnn(padding: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=padding), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU(), nn.Linear(128, 10))


def _pooled_blocks(act: Activation = nn.ReLU) -> Layers:
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        yield from (nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), act(), nn.MaxPool2d(2))


def simple_cnn(*head: int) -> nn.Module:
    return nn.Sequential(*_pooled_blocks(), global_head(128, *head))


def all_convolutional() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 48), conv_bn(48, 48, stride=2), conv_bn(48, 96), conv_bn(96, 96, stride=2),
        conv_bn(96, 96, kernel=1), nn.Conv2d(96, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def linear_autoencoder() -> nn.Module:
    widths = (784, 256, 128, 64, 32, 64, 128, 256, 784)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    layers[-1] = nn.Sigmoid()
    return nn.Sequential(*layers)


def conv_autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 3, 2, 1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


class VariationalEncoder(nn.Module):
    """Gives the mean of the code, or a sample of it."""

    def __init__(self, *, sample: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU())
        self.mu, self.log_var = nn.Linear(256, 16), nn.Linear(256, 16)
        self.sample = sample

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        mu: Tensor = self.mu(features)
        if self.sample:
            mu = mu + (0.5 * self.log_var(features)).exp() * torch.randn_like(mu)
        return mu


# ------------------------------------------------------------------ residual networks


def basic(inputs: int, outputs: int, stride: int = 1, *, bias: bool = False) -> Skip:
    conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
    conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
    body = nn.Sequential(conv1, nn.BatchNorm2d(outputs), nn.ReLU(), conv2, nn.BatchNorm2d(outputs))
    return Skip(body, _projection(inputs, outputs, stride, bias=bias))


def bottleneck(inputs: int, width: int, stride: int = 1, *, squeeze: bool = False) -> Skip:
    outputs = 4 * width
    body = [conv_bn(inputs, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, outputs, 1, act=None)]
    if squeeze:
        body.append(nn.Sequential(SqueezeExcite(outputs, outputs // 16)))
    return Skip(nn.Sequential(*body), _projection(inputs, outputs, stride))


def _projection(inputs: int, outputs: int, stride: int, *, bias: bool = False) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=bias), nn.BatchNorm2d(outputs))


def resnet18(*, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=bias), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
    ]
    channels = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if width > 64 and not block else 1
            layers.append(basic(channels, width, stride, bias=bias))
            channels = width
    return nn.Sequential(*layers, global_head(512, 1000))


def resnet50(*, squeeze: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Sequential(conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))]
    channels = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(depth):
            stride = 2 if width > 64 and not block else 1
            layers.append(bottleneck(channels, width, stride, squeeze=squeeze))
            channels = 4 * width
    return nn.Sequential(*layers, global_head(2048, 1000))


def small_residual() -> nn.Module:
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1))
    stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(stem, *(basic(*width, bias=True) for width in widths), global_head(256, 128, 10))


class StochasticResidual(nn.Module):
    """Skips its body at random while it is trained, and weighs it by the chance of that otherwise."""

    def __init__(self, channels: int, survival: float = 0.8) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(channels, channels), conv_bn(channels, channels, act=None))
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return functional.relu(x + self.body(x)) if random.random() < self.survival else x
        return functional.relu(x + self.survival * self.body(x))


class SqueezeExcite(nn.Module):
    """Channels weighed by what the mean of all of them says."""

    def __init__(
        self, channels: int, hidden: int, act: Activation = nn.ReLU, gate: Activation = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            act(),
            nn.Conv2d(hidden, channels, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class SpatialGate(nn.Module):
    """Places weighed by the mean and the largest of their channels: the second half of CBAM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(seen))


class ChannelGate(nn.Module):
    """Channels weighed by their mean and their largest value through one MLP: the first half of CBAM."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // ratio), nn.ReLU(), nn.Linear(channels // ratio, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        return x * weights[:, :, None, None]


def cbam() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 64, stride=2), Skip(nn.Sequential(conv_bn(64, 64), ChannelGate(64), SpatialGate()))
    )


class ChannelAttention(nn.Module):
    """Softmax of q · k over the channels, times v: no attention between places."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.q(x) * self.k(x), 1) * self.v(x)


# ------------------------------------------------------------------ branches and inverted bottlenecks


def inception() -> nn.Module:
    """The first block of GoogLeNet."""
    return nn.Sequential(
        conv_bn(3, 192, 1),
        Concat(
            conv_bn(192, 64, 1),
            nn.Sequential(conv_bn(192, 96, 1), conv_bn(96, 128, 3)),
            nn.Sequential(conv_bn(192, 16, 1), conv_bn(16, 32, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(192, 32, 1)),
        ),
    )


def dense_block(growth: int = 16, depth: int = 4) -> nn.Module:
    def layer(channels: int) -> nn.Module:
        body = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, growth, 3, padding=1, bias=False)
        )
        return Concat(nn.Identity(), body)

    return nn.Sequential(conv_bn(3, 32), *(layer(32 + growth * i) for i in range(depth)))


def inverted(
    inputs: int, outputs: int, expand: int, kernel: int = 3, stride: int = 1, *,
    squeeze: int = 0, act: Activation = nn.ReLU6, gate: Activation = nn.Sigmoid,
) -> nn.Module:  # fmt: skip
    """The inverted residual of MobileNet and EfficientNet; a skip where the shape stays."""
    layers: list[nn.Module] = [] if expand == inputs else [conv_bn(inputs, expand, 1, act=act)]
    layers.append(conv_bn(expand, expand, kernel, stride, groups=expand, act=act))
    if squeeze:
        layers.append(SqueezeExcite(expand, squeeze, nn.ReLU if gate is nn.Hardsigmoid else act, gate))
    body = nn.Sequential(*layers, conv_bn(expand, outputs, 1, act=None))
    return Skip(body, act=nn.Identity()) if stride == 1 and inputs == outputs else body


def mobilenet_v2(classes: int) -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 32, stride=2, act=nn.ReLU6)]
    channels = 32
    for factor, width, depth, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for block in range(depth):
            layers.append(inverted(channels, width, factor * channels, stride=1 if block else first))
            channels = width
    return nn.Sequential(*layers, conv_bn(320, 1280, 1, act=nn.ReLU6), global_head(1280, classes))


def mobilenet_v3() -> nn.Module:
    """The small one."""
    layers: list[nn.Module] = [conv_bn(3, 16, stride=2, act=nn.Hardswish)]
    channels = 16
    for kernel, expand, width, squeeze, act, stride in (
        (3, 16, 16, 8, nn.ReLU, 2), (3, 72, 24, 0, nn.ReLU, 2), (3, 88, 24, 0, nn.ReLU, 1),
        (5, 96, 40, 24, nn.Hardswish, 2), (5, 240, 40, 64, nn.Hardswish, 1), (5, 240, 40, 64, nn.Hardswish, 1),
        (5, 120, 48, 32, nn.Hardswish, 1), (5, 144, 48, 40, nn.Hardswish, 1), (5, 288, 96, 72, nn.Hardswish, 2),
        (5, 576, 96, 144, nn.Hardswish, 1), (5, 576, 96, 144, nn.Hardswish, 1),
    ):  # fmt: skip
        options = {"squeeze": squeeze, "act": act, "gate": nn.Hardsigmoid}
        layers.append(inverted(channels, width, expand, kernel, stride, **options))  # type: ignore[arg-type]
        channels = width
    head = (
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(576, 1024),
        nn.Hardswish(),
        nn.Linear(1024, 1000),
    )
    return nn.Sequential(*layers, conv_bn(96, 576, 1, act=nn.Hardswish), *head)


def efficientnet_b0() -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 32, stride=2, act=nn.SiLU)]
    channels = 32
    for factor, kernel, width, depth, first in (
        (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1), (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ):  # fmt: skip
        for block in range(depth):
            stride, squeeze = 1 if block else first, channels // 4
            expand = factor * channels
            layers.append(inverted(channels, width, expand, kernel, stride, squeeze=squeeze, act=nn.SiLU))
            channels = width
    return nn.Sequential(*layers, conv_bn(320, 1280, 1, act=nn.SiLU), global_head(1280, 10))


# ------------------------------------------------------------------ detection and segmentation


def yolo_like() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.BatchNorm2d(outputs),
            nn.MaxPool2d(2),
        ]
    layers += [
        nn.Conv2d(64, 512, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.BatchNorm2d(512),
        nn.Conv2d(512, 125, 1),
    ]
    return nn.Sequential(*layers)


class YoloRows(nn.Module):
    """Three grids of three anchors each as rows of centre, size, objectness and 80 classes, in pixels of 416."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64, 128, 256)
        self.stem = nn.Sequential(*(conv_bn(i, o, stride=2) for i, o in zip((3, *widths), widths[:3])))
        self.down = nn.ModuleList(conv_bn(i, o, stride=2) for i, o in pairwise(widths[2:]))
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * 85, 1) for width in widths[2:])
        for stride in (8, 16, 32):
            cells = 416 // stride
            y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
            self.register_buffer(f"grid{stride}", torch.stack([x, y], -1).float()[None, None])
            anchors = torch.tensor([[1.0, 1.0], [1.0, 2.0], [2.0, 1.0]]) * stride * 2
            self.register_buffer(f"anchors{stride}", anchors.view(1, 3, 1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        return torch.cat([self._rows(i, level) for i, level in enumerate(levels)], 1)

    def _rows(self, index: int, level: Tensor) -> Tensor:
        stride = 8 << index
        cells = 416 // stride
        raw = self.heads[index](level).reshape(-1, 3, 85, cells, cells).permute(0, 1, 3, 4, 2)
        centre = (torch.sigmoid(raw[..., :2]) + self.get_buffer(f"grid{stride}")) * stride
        size = raw[..., 2:4].clamp(-4, 4).exp() * self.get_buffer(f"anchors{stride}")
        return torch.cat([centre, size, torch.sigmoid(raw[..., 4:])], -1).reshape(-1, 3 * cells * cells, 85)


class Pyramid(nn.Module):
    """Feature pyramid P3–P7 with 256 channels on the stages of a residual network of 18 layers."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        net = resnet18(bias=False)
        self.stages = nn.ModuleList([net[:5], net[5:7], net[7:9]])
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in (128, 256, 512))
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.p6 = nn.Conv2d(512, channels, 3, 2, 1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        merged = [lateral(stage) for lateral, stage in zip(self.lateral, stages)]
        for i in (1, 0):
            merged[i] = merged[i] + functional.interpolate(merged[i + 1], size=merged[i].shape[-2:])
        p6 = self.p6(stages[-1])
        return [
            *(smooth(level) for smooth, level in zip(self.smooth, merged)),
            p6,
            self.p7(functional.relu(p6)),
        ]


class RetinaNet(nn.Module):
    """Pyramid, and two heads of four convolutions that all levels share; nine anchors a place."""

    def __init__(self, classes: int = 20, anchors: int = 9) -> None:
        super().__init__()
        self.pyramid = Pyramid()
        self.classes, self.boxes = self._head(classes * anchors), self._head(4 * anchors)
        self.widths = (classes, 4)

    @staticmethod
    def _head(outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(256, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = self.pyramid(x)
        found = {}
        for name, head, width in zip(("classes", "boxes"), (self.classes, self.boxes), self.widths):
            maps = [head(level).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, width)) for level in levels]
            found[name] = torch.cat(maps, 1)
        return found | {"classes": torch.sigmoid(found["classes"])}


class Localization(nn.Module):
    """A class and one box."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_pooled_blocks(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classes = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10), nn.Softmax(1))
        self.box = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {"classes": self.classes(features), "box": self.box(features)}


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    layers = (
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three steps down, three up by nearest neighbours and concatenation."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        self.down = nn.ModuleList(_twice(i, o) for i, o in zip((3, *widths), widths))
        self.up = nn.ModuleList(_twice(i + o, o) for i, o in zip(widths[::-1], widths[-2::-1]))
        self.classes = nn.Conv2d(64, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, down in enumerate(self.down):
            x = down(x)
            if i < 3:
                kept.append(x)
                x = functional.max_pool2d(x, 2)
        for up, skip in zip(self.up, kept[::-1]):
            x = up(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        return torch.softmax(self.classes(x), 1)


def fcn32() -> nn.Module:
    upsample = nn.Upsample(scale_factor=32, mode="bilinear", align_corners=False)
    return nn.Sequential(*_vgg_blocks(VGG16), nn.Conv2d(512, 21, 1), upsample)


# ------------------------------------------------------------------ attention


class SpatialAttention(nn.Module):
    """Self-attention with eight heads over all places of a map; gives the weights too."""

    def __init__(self, channels: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, channels, 1)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.heads = heads

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.expand(x)
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1)
        mixed = self.out((weights @ v).transpose(1, 2).flatten(2))
        return {"features": mixed.transpose(1, 2).reshape(x.shape), "attention": weights}


class Encoder(nn.Module):
    """A transformer block with its norms in front."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of 16, a class token and positions: 197 tokens of 224 pixels."""

    def __init__(self, dim: int = 192, depth: int = 4, heads: int = 3, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, dim) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


class DeploymentReady(nn.Module):
    """Takes pixels 0..255 of any size, normalises them itself; gives logits, probabilities and the class."""

    def __init__(self) -> None:
        super().__init__()
        self.net = simple_cnn(10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = functional.interpolate(x / 255, size=(64, 64), mode="bilinear", align_corners=False)
        logits = self.net((x - self.mean) / self.std)
        return {"logits": logits, "probabilities": torch.softmax(logits, 1), "class": logits.argmax(1)}


class TrainMode(nn.Module):
    """Keeps its norms in training mode, as some fine-tuning code does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = simple_cnn(10)

    def train(self, mode: bool = True) -> TrainMode:
        super().train(mode)
        for layer in self.net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


MODELS = [
    Row(name="models/base-cnn", importance="expected", build=base_cnn, size_hw=(28, 28), color="gray", task="tensors", params=4752),
    Row(name="models/image-classifier", importance="expected", build=image_classifier, size_hw=(28, 28), color="gray"),
    Row(name="models/face-window", importance="core", build=FaceWindow, size_hw=(64, 64), color="gray", task="window_detection"),
    Row(name="models/transfer-head", importance="expected", build=transfer_head, size_hw=(224, 224)),
    Row(name="models/spatial-attention", importance="expected", build=SpatialAttention, size_hw=(28, 28), task="tensors", note="64 channels from a 1×1 convolution"),
    Row(name="models/three-blocks-valid", importance="expected", build=three_blocks, size_hw=(224, 224), params=38_041_386),
    Row(name="models/separable-net", importance="core", build=separable_net, size_hw=(224, 224), params=3205),
    Row(name="models/conv-gap", importance="expected", build=conv_gap, size_hw=(224, 224), params=2442),
    Row(name="models/lenet-5", importance="core", build=lenet5, size_hw=(32, 32), color="gray", params=61_706),
    Row(name="models/alexnet", importance="core", build=alexnet, size_hw=(227, 227), params=62_379_048),
    Row(name="models/vgg16", importance="core", build=vgg16, size_hw=(224, 224), params=138_357_544),
    Row(name="models/vgg-style", importance="expected", build=vgg_style, size_hw=(64, 64), params=10_393_290),
    Row(name="models/resnet-18", importance="core", build=resnet18, size_hw=(224, 224), params=11_694_312),
    Row(name="models/resnet-50", importance="core", build=resnet50, size_hw=(224, 224), params=25_557_032),
    Row(name="models/small-residual", importance="expected", build=small_residual, size_hw=(32, 32), params=2_811_530),
    Row(name="models/inception", importance="core", build=inception, size_hw=(28, 28), task="tensors", note="192 channels from a 1×1 convolution"),
    Row(name="models/mobilenet-v2", importance="core", build=lambda: mobilenet_v2(1000), size_hw=(224, 224), params=3_504_872),
    Row(name="models/mobilenet-v2-32px", importance="core", build=lambda: mobilenet_v2(10), size_hw=(32, 32)),
    Row(name="models/mobilenet-v2-5-classes", importance="core", build=lambda: mobilenet_v2(5), size_hw=(224, 224)),
    Row(name="models/mobilenet-v3", importance="core", build=mobilenet_v3, size_hw=(224, 224), params=2_542_856),
    Row(name="models/efficientnet-b0", importance="core", build=efficientnet_b0, size_hw=(224, 224), params=4_020_358),
    Row(name="models/densenet-block", importance="expected", build=dense_block, size_hw=(32, 32), task="tensors"),
    Row(name="models/se-block", importance="core", build=lambda: nn.Sequential(conv_bn(3, 256), SqueezeExcite(256, 16)), size_hw=(28, 28), task="tensors"),
    Row(name="models/se-resnet-50", importance="core", build=lambda: resnet50(squeeze=True), size_hw=(96, 96)),
    Row(name="models/cbam", importance="expected", build=cbam, size_hw=(64, 64), task="tensors"),
    Row(name="models/channel-attention", importance="expected", build=lambda: nn.Sequential(conv_bn(3, 64), ChannelAttention()), size_hw=(32, 32), task="tensors"),
    Row(name="models/yolo-like", importance="core", build=yolo_like, size_hw=(416, 416), task="tensors", params=380_157),
    Row(name="models/yolov3-rows", importance="core", build=YoloRows, size_hw=(416, 416), task="tensors", note="a small backbone"),
    Row(name="models/retinanet", importance="core", build=RetinaNet, size_hw=(640, 640), task="tensors", note="a backbone of 18 layers"),
    Row(name="models/localization", importance="core", build=Localization, size_hw=(64, 64), output="classes"),
    Row(name="models/u-net", importance="expected", build=UNet, size_hw=(256, 256), task="tensors", params=7_782_978),
    Row(name="models/fcn-32s", importance="expected", build=fcn32, size_hw=(224, 224), task="tensors"),
    Row(name="models/mnist-cnn-a", importance="expected", build=lambda: mnist_cnn((32, 64, 64), 576, pool_last=False), size_hw=(28, 28), color="gray", params=93_322),
    Row(name="models/mnist-cnn-b", importance="expected", build=lambda: mnist_cnn((32,), 5408), size_hw=(28, 28), color="gray", params=347_146, note="two of the four are this one"),
    Row(name="models/mnist-cnn-c", importance="expected", build=lambda: mnist_cnn((32, 64), 1600), size_hw=(28, 28), color="gray", params=121_930),
    Row(name="models/cifar-cnn-as-listed", importance="expected", build=lambda: cifar_cnn(0), size_hw=(32, 32), refused=r"\(MaxPool2d\): input 1×128×1×1 is smaller than its kernel 2×2; use a larger size_hw"),
    Row(name="models/cifar-cnn-padded", importance="expected", build=lambda: cifar_cnn(1), size_hw=(32, 32)),
    Row(name="models/simple-cnn", importance="core", build=lambda: simple_cnn(128, 10), size_hw=(32, 32), params=111_498),
    Row(name="models/simple-cnn-any-size", importance="core", build=lambda: simple_cnn(10), size_hw=(224, 224), params=94_986),
    Row(name="models/all-convolutional", importance="expected", build=all_convolutional, size_hw=(32, 32)),
    Row(name="models/mlp", importance="expected", build=mlp, size_hw=(28, 28), color="gray", params=79_510),
    Row(name="models/linear-autoencoder", importance="expected", build=linear_autoencoder, size_hw=(28, 28), color="gray", task="tensors", params=489_136),
    Row(name="models/conv-autoencoder", importance="expected", build=conv_autoencoder, size_hw=(28, 28), color="gray", task="tensors"),
    Row(name="models/vae-encoder-mean", importance="beyond", build=lambda: VariationalEncoder(sample=False), size_hw=(28, 28), color="gray", task="tensors"),
    Row(name="models/vae-encoder-sample", importance="beyond", build=lambda: VariationalEncoder(sample=True), size_hw=(28, 28), color="gray", task="tensors", refused=r"randn_like draws random numbers"),
    Row(name="models/vit", importance="expected", build=ViT, size_hw=(224, 224), note="four blocks of 192"),
    Row(name="models/stochastic-residual", importance="expected", build=lambda: nn.Sequential(conv_bn(3, 16), StochasticResidual(16)), size_hw=(32, 32), task="tensors"),
    Row(name="models/deployment-ready", importance="core", build=DeploymentReady, size_hw=(96, 96), scale=1.0, output="probabilities"),
    Row(name="models/train-mode", importance="core", build=TrainMode, size_hw=(32, 32), refused=r"\(BatchNorm2d\) stays in training mode after \.eval\(\)"),
]  # fmt: skip
