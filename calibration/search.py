"""Which layers go back to float so that a quantised model keeps an accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Choice", "LayerSensitivity", "fewest_float_layers", "most_trials", "within"]

DropOf = Callable[[frozenset[str]], float]
OnTrial = Callable[[tuple[str, ...], float], None]


@dataclass(frozen=True)
class LayerSensitivity:
    """What int8 in one layer costs and saves.

    Attributes:
        name: Name of the layer.
        macs: Its multiply-accumulates for one input.
        error: Error of the network's output when only this layer is in int8, in any unit.
    """

    name: str
    macs: int
    error: float


@dataclass(frozen=True)
class Choice:
    """The layers that stay in float, and how they were found.

    Attributes:
        kept_float: Their names, in the order of the network.
        drop: The accuracy drop that was measured with them in float.
        met: The drop is within the budget; if not, no trial's was and this is the smallest.
        evaluations: Number of models that were built and measured.
        trials: Each of them in its order: the layers in float and the drop.
    """

    kept_float: tuple[str, ...]
    drop: float
    met: bool
    evaluations: int
    trials: tuple[tuple[tuple[str, ...], float], ...]


def most_trials(layers: int) -> int:
    """How often a search over n layers measures at most: ``2 + 3 ceil(log2(n + 1))``."""
    return 2 + 3 * layers.bit_length()


def fewest_float_layers(
    sensitivities: Sequence[LayerSensitivity],
    drop_of: DropOf,
    max_drop: float,
    *,
    on_trial: OnTrial | None = None,
) -> Choice:
    """Find few layers, with few multiply-accumulates, that meet the budget when they stay in float.

    1. Everything in int8.
    2. The shortest prefix of the layers, most harmful first, that meets the budget, by bisection. The
       error counts by itself here and not per MAC: many cheap layers of little harm would come first,
       each with two changes of precision around it.
    3. With the trials that are left, the kept layers from the most MACs down: each is given back to
       int8, or exchanged for the one or two most harmful others that together have less than half of its
       MACs, where the budget still holds. At most one layer more than in 2 is kept.

    What is returned with ``met`` was itself measured and met the budget, whatever ``drop_of`` is like.
    Where the harm of layers adds up and ``error`` ranks them by it, at most one layer more than the
    fewest possible is kept. Where layers interact, the drop is noisy or the errors are only a guess, that
    is likely and no more; and few MACs are looked for, the fewest are not proven. The best of many trials
    flatters itself on the data of the trials: confirm it on other data.

    Args:
        sensitivities: All layers that can be in int8, in the order of the network.
        drop_of: Builds the quantised model with the named layers in float and measures its accuracy
            drop (float metric minus quantised metric). Called once for a set of layers, at most
            `most_trials` times.
        max_drop: The budget: largest drop that is accepted.
        on_trial: Called after each measurement with the layers in float and the drop.
    """
    trials = _Trials([layer.name for layer in sensitivities], drop_of, max_drop, on_trial)
    ranked = sorted(sensitivities, key=lambda layer: -layer.error)
    if trials.meet(()):
        return trials.choice(())
    missing, meeting = 0, len(ranked)
    while meeting - missing > 1:
        middle = (missing + meeting) // 2
        if trials.meet(ranked[:middle]):
            meeting = middle
        else:
            missing = middle
    if not trials.meet(ranked[:meeting]):
        return trials.choice(None)
    return trials.choice(_cheaper(ranked, meeting, trials))


def within(drop: float, max_drop: float) -> bool:
    """Whether a drop holds a budget; 0.95 - 0.94 is a little above 0.01 in binary."""
    return drop <= max_drop + 1e-9


class _Trials:
    """Measures sets of layers, each once."""

    def __init__(
        self, names: Sequence[str], drop_of: DropOf, max_drop: float, on_trial: OnTrial | None
    ) -> None:
        self._names = names
        self._drop_of = drop_of
        self._max_drop = max_drop
        self._on_trial = on_trial
        self._drops: dict[tuple[str, ...], float] = {}

    def meet(self, kept: Iterable[LayerSensitivity]) -> bool:
        """Whether the budget holds with these layers in float."""
        names = self._ordered(kept)
        if names not in self._drops:
            self._drops[names] = self._drop_of(frozenset(names))
            if self._on_trial:
                self._on_trial(names, self._drops[names])
        return within(self._drops[names], self._max_drop)

    @property
    def spent(self) -> bool:
        """Whether there are no trials left."""
        return len(self._drops) >= most_trials(len(self._names))

    def choice(self, kept: Iterable[LayerSensitivity] | None) -> Choice:
        """The result; None is the least bad of what was tried."""
        names = min(self._drops, key=self._drops.__getitem__) if kept is None else self._ordered(kept)
        return Choice(
            names, self._drops[names], kept is not None, len(self._drops), tuple(self._drops.items())
        )

    def _ordered(self, kept: Iterable[LayerSensitivity]) -> tuple[str, ...]:
        chosen = {layer.name for layer in kept}
        return tuple(name for name in self._names if name in chosen)


def _cheaper(ranked: Sequence[LayerSensitivity], length: int, trials: _Trials) -> list[LayerSensitivity]:
    """Give the costliest layers of the prefix back to int8, or exchange them, while there are trials."""
    kept = list(ranked[:length])
    for layer in sorted(kept, key=lambda layer: -layer.macs):
        fewer = [other for other in kept if other is not layer]
        in_int8 = (other for other in ranked if other not in kept)
        others = _stand_ins(in_int8, layer.macs / 2, min(2, length + 1 - len(fewer)))
        for instead in (fewer, fewer + others):
            if trials.spent:
                return kept
            if trials.meet(instead):
                kept = instead
                break
    return kept


def _stand_ins(ranked: Iterable[LayerSensitivity], macs: float, most: int) -> list[LayerSensitivity]:
    """The first layers that together have fewer MACs than given."""
    found: list[LayerSensitivity] = []
    for layer in ranked:
        if len(found) < most and layer.macs < macs:
            found.append(layer)
            macs -= layer.macs
    return found
