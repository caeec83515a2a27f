"""Networks as their published weights want them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2


def mobilenet_v2_tf_padding() -> nn.Module:
    """MobileNetV2 with TensorFlow's padding: convolutions of stride 2 are padded right and below only."""
    net = mobilenet_v2()
    for block in net.modules():
        first = block[0] if isinstance(block, nn.Sequential) and len(block) else None
        if isinstance(first, nn.Conv2d) and first.stride == (2, 2) and first.padding == (1, 1):
            first.padding = (0, 0)
            first.register_forward_pre_hook(lambda module, inputs: nn.functional.pad(inputs[0], (0, 1, 0, 1)))
    return net


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new = stride, channels - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.new:
            # a shortcut without weights: every second pixel, and channels of zeros on both sides
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new // 2)
            )
        return functional.relu(x + y)


class ResNet20(nn.Module):
    """The residual network of the CIFAR-10 experiments, with shortcuts that have no weights."""

    def __init__(self) -> None:
        """Creates it with random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_BasicBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(_BasicBlock(16, 32, 2), *(_BasicBlock(32, 32, 1) for _ in range(2)))
        self.layer3 = nn.Sequential(_BasicBlock(32, 64, 2), *(_BasicBlock(64, 64, 1) for _ in range(2)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ten classes."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def resnet20_cifar10() -> nn.Module:
    """ResNet20 for 32×32 RGB normalised with the mean and standard deviation of ImageNet."""
    return ResNet20()
