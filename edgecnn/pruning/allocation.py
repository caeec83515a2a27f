"""How many channels each group keeps, so that a share of the multiply-accumulates goes at the least error."""

from __future__ import annotations

from collections.abc import Mapping

from edgecnn.pruning.groups import STEP, Groups
from edgecnn.pruning.sensitivity import Curve

__all__ = ["allocate", "fewest", "macs_left"]

OVERSHOOT = 0.02
"""A step that cuts this share of the network beyond the target is taken only where there is no other."""

Kept = dict[str, int]


def macs_left(groups: Groups, kept: Mapping[str, int]) -> int:
    """Multiply-accumulates for one image with so many channels left; ``kept`` is by the group's root.

    A layer costs in proportion to the channels that it writes and to those that it reads.
    """
    share = dict.fromkeys(groups.costs, 1.0)
    for group in groups.cuttable:
        for name in [*group.writers, *group.readers]:
            share[name] *= kept[group.root] / group.channels
    return round(sum(cost.macs * share[name] for name, cost in groups.costs.items()))


def fewest(groups: Groups) -> Kept:
    """The least that can be left: `STEP` channels of each group."""
    return {group.root: STEP for group in groups.cuttable}


def allocate(groups: Groups, curves: Mapping[str, Curve], target: int) -> Kept:
    """Choose the channels that each group keeps, in multiples of `STEP`.

    Errors of groups are taken to add up. Of all groups, the one goes down by a step whose error rises least
    for each multiply-accumulate that it saves, until few enough are left. Then steps that were not needed
    are taken back, the dearest first.

    Args:
        groups: What can be cut.
        curves: Error of each group by its root.
        target: Multiply-accumulates that may be left; reached where `fewest` does.

    Returns:
        Channels left by the group's root.
    """
    kept = {group.root: group.channels for group in groups.cuttable}
    slack = OVERSHOOT * macs_left(groups, kept)
    while (now := macs_left(groups, kept)) > target:
        fewer = {root: (count - 1) // STEP * STEP for root, count in kept.items() if count > STEP}
        left = {root: macs_left(groups, kept | {root: count}) for root, count in fewer.items()}
        if not left:
            break
        near = [root for root in left if left[root] >= target - slack]
        best = min(
            near or left, key=lambda root: _rise(curves[root], fewer[root], kept[root]) / (now - left[root])
        )
        kept[best] = fewer[best]
    return _taken_back(groups, curves, kept, target)


def _taken_back(groups: Groups, curves: Mapping[str, Curve], kept: Kept, target: int) -> Kept:
    """Give channels back to groups as long as no more than the target is left."""
    whole = {group.root: group.channels for group in groups.cuttable}
    while True:
        more = {root: min(count + STEP, whole[root]) for root, count in kept.items() if count < whole[root]}
        spare = [root for root, count in more.items() if macs_left(groups, kept | {root: count}) <= target]
        if not spare:
            return kept
        dearest = max(spare, key=lambda root: _rise(curves[root], kept[root], more[root]))
        kept[dearest] = more[dearest]


def _rise(curve: Curve, fewer: int, more: int) -> float:
    return curve.at(fewer) - curve.at(more)
