"""The PyTorch side of a canonical model, written apart from it: what every artifact is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecnn.converters.torch_eager import named_outputs
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["reference_module"]


def reference_module(module: nn.Module, spec: ModelSpec, chosen: str | None) -> nn.Module:
    """Wrap a module so that it takes and gives what the canonical ONNX model does.

    Args:
        module: Takes float32 [N, C, H, W], in eval mode.
        spec: Preprocessing ``(pixel * scale - mean) / std`` and activation.
        chosen: Name of the output that the activation is applied to; None is the first.

    Returns:
        A module from uint8 [N, H, W, C] to the outputs as a tuple, the chosen one first.
    """
    import torch

    class Reference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32))
            self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32))

        def forward(self, image_nhwc: Tensor) -> tuple[Tensor, ...]:
            pixels = image_nhwc.to(torch.float32) * spec.scale
            mean: Any = self.mean
            std: Any = self.std
            x = ((pixels - mean) / std).permute(0, 3, 1, 2).contiguous()
            outputs = named_outputs(self.module(x))
            first = outputs.pop(chosen or next(iter(outputs)))
            if spec.activation == "softmax":
                first = torch.softmax(first, dim=-1)
            elif spec.activation == "sigmoid":
                first = torch.sigmoid(first)
            return (first, *outputs.values())

    return Reference()
