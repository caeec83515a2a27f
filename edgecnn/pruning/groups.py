"""Which channels have to be cut together, from Torch-Pruning's dependency graph, and which cannot be cut.

The graph follows channels by their numbers, so an operation that moves them (a shuffle, padding along the
channels) would be cut in the wrong place. Each group is therefore tried: to remove channels has to give
the same output as to set the weights to zero with which other layers read them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.quiet import quiet
from edgecnn.errors import InputError, first_line, require
from edgecnn.pruning.network import LayerCost, is_depthwise, layer_costs, layers, oriented, outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["STEP", "ChannelGroup", "Channels", "Groups", "find_groups", "remove_channels"]

Channels = npt.NDArray[np.int64]

STEP = 8
"""Channels are left in multiples of this: vector units of CPUs and tensor cores work on blocks of them."""

SAME_OUTPUT = 1e-3
"""Largest difference, as a share of the largest output, that still counts as rounding."""

MOVED = "its channels are moved, padded or mixed on the way to the layers that read them"
OUTPUT = "its channels are the model's output"


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that have to be cut together.

    Attributes:
        root: The first layer that computes them.
        channels: How many there are.
        writers: Layers that compute them, with the number of each channel among their outputs: (channels,).
        readers: Layers that read them across channels, with the numbers of each channel among their
            inputs: (channels, inputs a channel); more than one where a layer reads flattened images.
        norms: BatchNorm layers they pass, each in the order of the group.
    """

    root: str
    channels: int
    writers: Mapping[str, Channels]
    readers: Mapping[str, Channels]
    norms: tuple[str, ...]


@dataclass(frozen=True)
class Groups:
    """What can be cut, and for each layer that cannot be the reason.

    Attributes:
        cuttable: In the order in which the network computes them.
        reasons: Layer name to one line.
        costs: Layer name to calls and multiply-accumulates, in the order in which they run.
        tied: Layers whose weights are used in more than one place.
    """

    cuttable: tuple[ChannelGroup, ...]
    reasons: Mapping[str, str]
    costs: Mapping[str, LayerCost]
    tied: frozenset[str] = frozenset()


def find_groups(module: nn.Module, image: Tensor) -> Groups:
    """Group the channels of a network and try each group.

    Args:
        module: In eval mode; it is not changed.
        image: float32 [1, C, H, W].

    Raises:
        InputError: The module holds no layer, or its channels cannot be followed.
    """
    costs = layer_costs(module, image)
    if not costs:
        raise InputError(
            f"{type(module).__name__}: runs no convolution or linear layer that could be cut (an exported "
            "program holds operations, not layers); prune the nn.Module before it is exported"
        )
    reasons = dict.fromkeys(set(layers(module)) - set(costs), "does not run")
    shared = _shared(module, costs)
    cuttable = []
    for group, obstacle in _described(module, image):
        reason = obstacle or _too_narrow(group) or _tied(group, shared) or _trial(module, image, group)
        if reason is None:
            cuttable.append(group)
        reasons |= dict.fromkeys(group.writers, reason) if reason else {}
    order = list(costs)
    cuttable.sort(key=lambda group: order.index(group.root))
    return Groups(tuple(cuttable), reasons, costs, frozenset(shared))


def remove_channels(module: nn.Module, image: Tensor, removed: Mapping[str, Channels]) -> None:
    """Cut channels out of a module, in place.

    Args:
        module: The module whose groups were found, or a copy of it.
        image: float32 [1, C, H, W].
        removed: The root of a group to the numbers of its channels that go.
    """
    graph = _dependencies(module, image)
    for root, channels in removed.items():
        layer = module.get_submodule(root)
        cut = graph.get_pruner_of_module(layer).prune_out_channels
        graph.get_pruning_group(layer, cut, channels.tolist()).prune(record_history=False)


def _dependencies(module: nn.Module, image: Tensor) -> Any:
    """Torch-Pruning's graph of a module, which it follows backwards from the outputs by autograd."""
    import torch

    pruning = require("torch_pruning", "convert")
    module.requires_grad_(True)
    try:
        with quiet(), torch.enable_grad():
            return pruning.DependencyGraph().build_dependency(module, (image,), verbose=False)
    except Exception as error:  # the tracer runs the module's code and follows whatever it does
        raise InputError(
            f"{type(module).__name__}: its channels cannot be followed: {first_line(error)}"
        ) from error


def _described(module: nn.Module, image: Tensor) -> list[tuple[ChannelGroup, str | None]]:
    """The groups of a module by the names of their layers, with the operation that forbids a cut."""
    module = copy.deepcopy(module)
    graph = _dependencies(module, image)
    names = {layer: name for name, layer in module.named_modules()}
    return [_describe(graph, group, names) for group in graph.get_all_groups()]


def _describe(graph: Any, group: Any, names: Mapping[Any, str]) -> tuple[ChannelGroup, str | None]:
    from torch import nn

    writers: dict[str, Channels] = {}
    readers: dict[str, Channels] = {}
    norms, obstacle = [], None
    count = len(group[0].idxs)
    for item in group:
        layer = item.dep.target.module
        name = names.get(layer, "")
        if type(layer).__name__ in ("_ConcatOp", "_SplitOp", "_UnbindOp"):
            obstacle = "its channels are concatenated or split"
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            norms.append(name)
        elif isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            if getattr(layer, "groups", 1) > 1 and not is_depthwise(layer):
                obstacle = f"{name} is a grouped convolution"
            writes = is_depthwise(layer) or graph.is_out_channel_pruning_fn(item.dep.handler)
            # sorted by the group's own numbers; a stable sort keeps the order of a flattened image
            order = np.argsort(item.root_idxs, kind="stable")
            positions = np.asarray(item.idxs, np.int64)[order]
            if len(positions) % count or np.any(np.bincount(item.root_idxs) * count != len(positions)):
                obstacle = obstacle or MOVED
            elif writes:
                writers[name] = positions
            else:
                readers[name] = positions.reshape(count, -1)
    root = names[group[0].dep.target.module]
    if not readers:
        obstacle = obstacle or OUTPUT
    return ChannelGroup(root, count, writers or {root: np.arange(count)}, readers, tuple(norms)), obstacle


def _too_narrow(group: ChannelGroup) -> str | None:
    if group.channels >= 2 * STEP:
        return None
    return f"has {group.channels} channels, fewer than {2 * STEP}: a cut leaves a multiple of {STEP}"


def _shared(module: nn.Module, costs: Mapping[str, LayerCost]) -> dict[str, str]:
    """Why a layer is not free to change: it runs twice, or another one holds the same weights."""
    reasons = {name: f"{name} is tied: it runs {c.calls} times" for name, c in costs.items() if c.calls > 1}
    owners: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    for names in owners.values():
        if len(names) > 1:
            tied = f"{' and '.join(dict.fromkeys(names))} are tied: they share their weights"
            reasons |= {name: reasons.get(name, tied) for name in names}
    return reasons


def _tied(group: ChannelGroup, shared: Mapping[str, str]) -> str | None:
    members: Iterable[str] = [*group.writers, *group.readers, *group.norms]
    return next((shared[name] for name in members if name in shared), None)


def _trial(module: nn.Module, image: Tensor, group: ChannelGroup) -> str | None:
    """Remove every third channel, set to zero what reads them, and compare."""
    import torch

    removed = np.arange(1, group.channels, 3)
    cut, masked = copy.deepcopy(module), copy.deepcopy(module)
    try:
        remove_channels(cut, image, {group.root: removed})
        found = outputs(cut, [image])
    except (InputError, RuntimeError, ValueError, IndexError, AssertionError, TypeError):
        return MOVED
    with torch.no_grad():
        for name, positions in group.readers.items():
            layer: Any = masked.get_submodule(name)
            oriented(layer, layer.weight)[:, positions[removed]] = 0
    expected = outputs(masked, [image])
    if [y.shape for y in found] != [y.shape for y in expected]:
        return OUTPUT
    same = all((a - b).abs().max() <= SAME_OUTPUT * b.abs().max() for a, b in zip(found, expected))
    return None if same else MOVED
