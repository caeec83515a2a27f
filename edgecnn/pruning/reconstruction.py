"""Least-squares reconstruction: what is left of each layer is fitted to what the whole layer gave.

Layer by layer, in the order in which they run, weights W and bias b become those of

    min Σ ‖y - W x - b‖² + ‖(W - W₀) Λ^½‖²

over calibration images and places. x is what the layer reads in the pruned network, with all layers before
it fitted; y is what the same layer gave in the original; W₀ is what the cut left of its weights, which stay
where the samples say little. Centred on the means of x and y the solution is

    W = W₀ + (Y - W₀ X) Xᵀ (X Xᵀ + Λ)⁻¹        b = ȳ - W x̄

A layer without bias gives b to the BatchNorm behind it; with neither, x and y are not centred and b is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgecnn.pruning.groups import Channels
from edgecnn.pruning.network import batch_norms, watched

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["can_be_fitted", "followers", "reconstruct"]

ROWS = 8192
"""Pairs of x and y a layer is fitted on, spread over all images."""

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Λ as shares of the power of each input, the diagonal of X Xᵀ; for each layer the best one is kept."""


def reconstruct(
    module: nn.Module,
    original: nn.Module,
    names: Sequence[str],
    kept: Mapping[str, Channels],
    batches: Sequence[Tensor],
    on_layer: Callable[[], None],
) -> None:
    """Fit layers of a pruned network, in place.

    Args:
        module: The pruned network, in eval mode.
        original: The network before the cut.
        names: Layers that `can_be_fitted`, in the order in which they run.
        kept: Of layers that have lost outputs, the numbers of those that are left.
        batches: Inputs, float32 [n, C, H, W].
        on_layer: Called after each layer.
    """
    import torch

    norms = followers(module, names, batches[0][:1])
    rows = _sampled(original, names, kept, batches)
    for name in names:
        layer: Any = module.get_submodule(name)
        norm: Any = module.get_submodule(norms[name]) if name in norms else None
        places, outputs = rows.pop(name)
        x, y = _inputs(module, name, batches, places).double(), outputs.double()
        affine = layer.bias is not None or norm is not None
        x_mean, y_mean = (x.mean(0), y.mean(0)) if affine else (x.new_zeros(x.shape[1]), y.new_zeros(1))
        weight = _solved(layer.weight.detach().double().flatten(1), x - x_mean, y - y_mean)
        bias = y_mean - weight @ x_mean
        with torch.no_grad():
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(bias)
            elif norm is not None:
                norm.running_mean.sub_(bias)
        on_layer()


def followers(module: nn.Module, names: Iterable[str], image: Tensor) -> dict[str, str]:
    """The BatchNorm that reads a layer's output as it is, by the layer's name."""
    import torch

    norms = batch_norms(module)
    made: dict[str, Tensor] = {}
    found: dict[str, str] = {}

    def note(name: str, layer: Any, x: Tensor, y: Tensor) -> None:
        if name in norms:
            found.update({maker: name for maker, output in made.items() if output is x})
        else:
            made[name] = y

    with watched(module, [*names, *norms], note), torch.inference_mode():
        module(image)
    return found


def can_be_fitted(layer: nn.Module) -> bool:
    """Whether a layer is linear or a two-dimensional convolution, neither grouped nor transposed."""
    from torch import nn

    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _solved(before: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The weights (outputs, inputs) for rows x (rows, inputs) and y (rows, outputs), float64.

    Rows come image by image: how far the weights may go is tried on the last images.
    """
    import torch

    seen = len(x) * 3 // 4
    missing = y - x @ before.T
    gram, cross = x[:seen].T @ x[:seen], x[:seen].T @ missing[:seen]

    def change(ridge: float) -> Tensor:
        held = gram + torch.diag(ridge * gram.diagonal() + 1e-12)
        solved: Tensor = torch.linalg.solve(held, cross)
        return solved

    errors = [float((missing[seen:] - x[seen:] @ change(ridge)).square().sum()) for ridge in RIDGES]
    if min(errors) >= missing[seen:].square().sum():
        return before
    gram += x[seen:].T @ x[seen:]
    cross += x[seen:].T @ missing[seen:]
    return before + change(RIDGES[errors.index(min(errors))]).T


Places = list["tuple[Tensor, Tensor]"]


def _sampled(
    original: nn.Module, names: Sequence[str], kept: Mapping[str, Channels], batches: Sequence[Tensor]
) -> dict[str, tuple[Places, Tensor]]:
    """Where each layer is looked at in each batch, and what the original gives there (rows, outputs)."""
    import torch

    each = -(-ROWS // sum(len(batch) for batch in batches))
    random = torch.Generator().manual_seed(0)
    places: dict[str, Places] = {name: [] for name in names}
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}

    def note(name: str, layer: Any, x: Tensor, y: Tensor) -> None:
        if not isinstance(layer, torch.nn.Linear):
            height, width = y.shape[2:]
            chosen = torch.randperm(height * width, generator=random)[:each]
            places[name].append((chosen // width, chosen % width))
            y = y[:, :, chosen // width, chosen % width].movedim(1, -1)
        y = y.reshape(-1, y.shape[-1])
        outputs[name].append(y[:, torch.from_numpy(kept[name])] if name in kept else y.clone())

    with watched(original, names, note), torch.inference_mode():
        for batch in batches:
            original(batch)
    return {name: (places[name], torch.cat(outputs[name])) for name in names}


class _Reached(Exception):
    """Ends a run at the layer whose input was wanted."""


def _inputs(module: nn.Module, name: str, batches: Sequence[Tensor], places: Places) -> Tensor:
    """What a layer reads for its outputs at some places: (rows, inputs × kernel taps)."""
    import torch

    layer: Any = module.get_submodule(name)
    rows: list[Tensor] = []

    def take(layer: Any, inputs: tuple[Tensor]) -> None:
        x = inputs[0]
        if isinstance(layer, torch.nn.Linear):
            rows.append(x.reshape(-1, x.shape[-1]).clone())
        else:
            rows.append(_patches(layer, x, *places[len(rows)]))
        raise _Reached

    handle = layer.register_forward_pre_hook(take)
    try:
        with torch.inference_mode():
            for batch in batches:
                with suppress(_Reached):
                    module(batch)
    finally:
        handle.remove()
    return torch.cat(rows)


def _patches(conv: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What a convolution reads for some places of its output: (n × places, inputs × kernel taps)."""
    import torch
    from torch.nn import functional

    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = functional.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    (height, width), (down, right), (step_y, step_x) = conv.kernel_size, conv.stride, conv.dilation
    y_of = (rows * down)[:, None, None] + torch.arange(height)[:, None] * step_y
    x_of = (columns * right)[:, None, None] + torch.arange(width) * step_x
    # (n, inputs, places, taps down, taps across)
    return x[:, :, y_of, x_of].movedim(2, 1).flatten(2).flatten(0, 1)
