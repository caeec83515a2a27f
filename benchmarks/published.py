"""Networks as their published weights want them."""

from __future__ import annotations

from torch import nn
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
