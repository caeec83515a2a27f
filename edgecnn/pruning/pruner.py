"""Pruning a network: analysis once, then cuts by a share of the work or by measured latency."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.factories import copied
from edgecnn.errors import InputError, require
from edgecnn.manifest import sizes_text
from edgecnn.pruning import batchnorm
from edgecnn.pruning.allocation import allocate, fewest, macs_left
from edgecnn.pruning.groups import Channels, find_groups, remove_channels
from edgecnn.pruning.importance import CRITERIA, channel_moments, importance
from edgecnn.pruning.network import input_batches, is_depthwise, layer_costs, layers, outputs
from edgecnn.pruning.reconstruction import can_be_fitted, followers, reconstruct
from edgecnn.pruning.sensitivity import sensitivity
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.pruning.importance import Criterion

__all__ = ["Pruned", "PrunedLayer", "Pruner", "prune"]

RATIO_MAX = 0.9
SENSITIVITY_IMAGES = 32
IMAGES_MIN = 2

Finetune = Callable[["nn.Module"], "nn.Module | None"]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrunedLayer:
    """What became of a convolution or linear layer.

    Attributes:
        name: Its name in the module.
        channels_before, channels_after: Channels of its output.
        reason: Why its channels cannot be cut; None where they can be, cut or not.
    """

    name: str
    channels_before: int
    channels_after: int
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned network.

    Attributes:
        module: An ordinary module in eval mode, a copy of the one that was given.
        macs_before, macs_after: Multiply-accumulates of convolutions and linear layers for one image.
        params_before, params_after: Number of parameters.
        layers: Every convolution and linear layer, in the order in which they run.
    """

    module: nn.Module
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    layers: tuple[PrunedLayer, ...]


class Pruner:
    """A network that is ready to be cut: what can go, in which order, and what it costs, was measured.

    Attributes:
        batches: The calibration images as the network takes them, float32 [n, C, H, W].
        ratio_max: The largest share of the multiply-accumulates that can be cut.
    """

    def __init__(
        self,
        module: nn.Module,
        images: npt.NDArray[np.uint8],
        spec: ModelSpec,
        *,
        criterion: Criterion = "activation",
        on_progress: OnProgress | None = None,
    ) -> None:
        """Analyse a network; the module is copied and stays as it is.

        Args:
            module: Takes float32 [N, C, H, W].
            images: Calibration samples, uint8 (n, h, w, c) in the model's size and colour order.
            spec: The model's spec, for the normalisation.
            criterion: What channels are compared by, see `importance`.
            on_progress: Called with the steps done and the number of all.

        Raises:
            InputError: An argument cannot be used, or nothing in the network can be cut.
        """
        if criterion not in CRITERIA:
            raise InputError(f"criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
        self.original = _copied(module)
        self.batches = input_batches(_checked(images, spec), spec)
        self._image = self.batches[0][:1]
        self.groups = find_groups(self.original, self._image)
        if not self.groups.cuttable:
            named = "; ".join(f"{name}: {reason}" for name, reason in sorted(self.groups.reasons.items()))
            raise InputError(f"{type(module).__name__}: nothing in it can be cut: {named}")
        self._steps = len(self.groups.cuttable) + len(self.groups.costs)
        self._on_progress = on_progress or (lambda done, total: None)
        self._measure(criterion)
        self._macs = macs_left(self.groups, {group.root: group.channels for group in self.groups.cuttable})
        self.ratio_max = min(RATIO_MAX, 1 - macs_left(self.groups, fewest(self.groups)) / self._macs)

    def _measure(self, criterion: str) -> None:
        moments = channel_moments(self.original, self.groups.cuttable, self.batches)
        few = self.batches[: -(-SENSITIVITY_IMAGES // len(self.batches[0]))]
        expected = outputs(self.original, few)
        self._order: dict[str, Channels] = {}
        self._curves = {}
        for done, group in enumerate(self.groups.cuttable, 1):
            scores = importance(self.original, group, criterion, moments)
            order = np.argsort(scores, kind="stable")
            self._order[group.root] = order
            self._curves[group.root] = sensitivity(self.original, group, order, moments, few, expected)
            self._on_progress(done, self._steps)

    def cut(self, ratio: float, *, recover: bool = True, finetune: Finetune | None = None) -> Pruned:
        """Cut a share of the multiply-accumulates.

        Args:
            ratio: Share that goes, 0 to `ratio_max`.
            recover: Fit what is left to what the whole network gave.
            finetune: Called with the module at the end; trains it in place or returns another.

        Raises:
            InputError: The ratio cannot be reached.
        """
        if not 0 <= ratio <= RATIO_MAX:
            raise InputError(f"ratio must be in 0..{RATIO_MAX}, not {ratio}")
        if ratio > self.ratio_max:
            raise InputError(
                f"{type(self.original).__name__}: {ratio:.0%} of its multiply-accumulates cannot be cut, the "
                f"most is {int(self.ratio_max * 100)}%; ask for less"
            )
        left = allocate(self.groups, self._curves, round(self._macs * (1 - ratio)))
        removed = {
            group.root: np.sort(self._order[group.root][: group.channels - left[group.root]])
            for group in self.groups.cuttable
            if left[group.root] < group.channels
        }
        module = copy.deepcopy(self.original)
        remove_channels(module, self._image, removed)
        if recover and removed:
            self._recover(module, removed)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self.original.get_parameter(name).requires_grad)
        if finetune is not None:
            module = _finetuned(finetune, module)
        return self._described(module)

    def _recover(self, module: nn.Module, removed: Mapping[str, Channels]) -> None:
        """Fit the layers from the first that reads what was cut, or re-estimate the BatchNorm behind them."""
        kept: dict[str, Channels] = {}
        read: set[str] = set()
        for group in self.groups.cuttable:
            if group.root in removed:
                stay = np.setdiff1d(np.arange(group.channels), removed[group.root])
                kept |= {name: positions[stay] for name, positions in group.writers.items()}
                read |= set(group.readers)
        order = list(self.groups.costs)
        behind = [n for n in order[min(map(order.index, read)) :] if n not in self.groups.tied]
        fitted = [name for name in behind if can_be_fitted(module.get_submodule(name))]
        unfitted = [
            name for name in behind if not (name in fitted or is_depthwise(module.get_submodule(name)))
        ]
        batchnorm.reestimate(module, followers(module, unfitted, self._image).values(), self.batches)
        done = itertools.count(self._steps - len(fitted) + 1)
        reconstruct(
            module,
            self.original,
            fitted,
            kept,
            self.batches,
            lambda: self._on_progress(next(done), self._steps),
        )

    def _described(self, module: nn.Module) -> Pruned:
        before, after = layers(self.original), layers(module)
        return Pruned(
            module=module,
            macs_before=self._macs,
            macs_after=sum(cost.macs for cost in layer_costs(module, self._image).values()),
            params_before=sum(p.numel() for p in self.original.parameters()),
            params_after=sum(p.numel() for p in module.parameters()),
            layers=tuple(
                PrunedLayer(name, _width(before[name]), _width(after[name]), self.groups.reasons.get(name))
                for name in [*self.groups.costs, *(before.keys() - self.groups.costs.keys())]
            ),
        )


def _copied(module: Any) -> nn.Module:
    torch = require("torch", "convert")
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"only an nn.Module can be pruned, not a {type(module).__name__}: exported programs and ONNX "
            "files hold operations, not layers; prune the module they were made from"
        )
    return copied(module, type(module).__name__).cpu().float().eval()


def _checked(images: Any, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    shape = getattr(images, "shape", ())
    if getattr(images, "dtype", None) != np.uint8 or len(shape) != 4 or shape[1:] != spec.input_shape:
        raise InputError(
            f"images must be uint8 n×{sizes_text(spec.input_shape)}, not "
            f"{getattr(images, 'dtype', type(images).__name__)} {sizes_text(shape)}"
        )
    if len(images) < IMAGES_MIN:
        raise InputError(
            f"images holds {len(images)}; to see what channels matter takes {IMAGES_MIN} or more"
        )
    checked: npt.NDArray[np.uint8] = images
    return checked


def _finetuned(finetune: Finetune, module: nn.Module) -> nn.Module:
    from torch import nn

    trained = finetune(module)
    if trained is not None and not isinstance(trained, nn.Module):
        raise InputError(f"finetune returned a {type(trained).__name__}; return an nn.Module or None")
    return (module if trained is None else trained).eval()


def _width(layer: Any) -> int:
    return int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))


def prune(
    module: nn.Module,
    images: npt.NDArray[np.uint8],
    spec: ModelSpec,
    *,
    ratio: float,
    criterion: Criterion = "activation",
    recover: bool = True,
    finetune: Finetune | None = None,
    on_progress: OnProgress | None = None,
) -> Pruned:
    """Cut whole channels out of a network until a share of its multiply-accumulates is gone.

    Channels are left in multiples of 8. How many each layer loses is chosen by the error that the network's
    output shows when that layer is cut alone.

    Args:
        module: Takes float32 [N, C, H, W]; it is copied and stays as it is.
        images: Calibration samples, uint8 (n, h, w, c) in the model's size and colour order; 100 or more.
        spec: The model's spec, for the normalisation.
        ratio: Share of the multiply-accumulates to cut, 0..0.9; a little more is cut where steps of 8
            channels want it.
        criterion: The channels that go first: ``activation`` (those that add least to the layers that
            read them, on the samples), ``l1`` (smallest weights), ``bn_scale`` (smallest BatchNorm scale).
        recover: Fit what is left to what the whole network gave: no training and no labels.
        finetune: Called with the pruned module; trains it in place and returns None, or returns another.
        on_progress: Called with the steps done and the number of all.

    Raises:
        InputError: An argument cannot be used, nothing can be cut, or not as much as that.
        MissingDependency: torch or torch-pruning is not installed.
    """
    pruner = Pruner(module, images, spec, criterion=criterion, on_progress=on_progress)
    return pruner.cut(ratio, recover=recover, finetune=finetune)
