"""Importance, sensitivity and the choice of channels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecnn.errors import InputError
from edgecnn.pruning.allocation import allocate, fewest, macs_left
from edgecnn.pruning.groups import STEP, ChannelGroup, Groups, find_groups, remove_channels
from edgecnn.pruning.importance import channel_moments, importance
from edgecnn.pruning.network import LayerCost, input_batches, layer_costs, outputs
from edgecnn.pruning.sensitivity import Curve, merging, relative_error, sensitivity
from tests.models import trained_statistics
from tests.pruning.nets import SPEC, Residual, copies, noise

BATCHES = input_batches(noise(), SPEC)


def scaled() -> nn.Module:
    """Channel i is i + 1 times the mean of the colours, its BatchNorm scale 16 - i, and it is read by 1."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16, eps=0), nn.Conv2d(16, 2, 1)
    ).eval()
    with torch.no_grad():
        net[0].weight.copy_((torch.arange(16) + 1.0)[:, None, None, None] / 3)
        net[1].weight.copy_(16.0 - torch.arange(16))
        net[2].weight.fill_(1.0)
    return net


def scores(criterion: str) -> np.ndarray:
    net = scaled()
    (group,) = find_groups(net, BATCHES[0][:1]).cuttable
    return importance(net, group, criterion, channel_moments(net, [group], BATCHES))


def test_l1_is_the_sum_of_absolute_weights() -> None:
    rising = np.arange(1, 17)
    assert scores("l1") == pytest.approx(rising / rising.mean())


def test_bn_scale_is_the_scale_of_the_norm() -> None:
    falling = np.arange(16, 0, -1)
    assert scores("bn_scale") == pytest.approx(falling / falling.mean())


def test_activation_is_the_power_that_a_channel_adds() -> None:
    power = (np.arange(1, 17) * np.arange(16, 0, -1)) ** 2.0
    assert scores("activation") == pytest.approx(power / power.mean(), rel=1e-5)


def test_bn_scale_needs_a_norm() -> None:
    net = copies()
    (group,) = find_groups(net, BATCHES[0][:1]).cuttable
    with pytest.raises(InputError, match="0: criterion bn_scale: no BatchNorm scales its channels"):
        importance(net, group, "bn_scale", {})


def test_moments_are_means_of_products() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Flatten(), nn.Linear(16 * 64, 2)).eval()
    (group,) = find_groups(net, BATCHES[0][:1]).cuttable
    (moments,) = channel_moments(net, [group], BATCHES).values()
    values = net[0](torch.cat(BATCHES)).movedim(1, -1).reshape(-1, 16).detach().double().numpy()
    assert moments == pytest.approx(values.T @ values / len(values), rel=1e-4)


def test_a_copy_is_made_up_from_its_original() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3))
    x = np.column_stack([x, 0.5 * x[:, 1]])
    mix = merging(x.T @ x / len(x), np.arange(3), np.array([3]))
    assert mix == pytest.approx(np.array([[0, 0.5, 0]]), abs=2e-3)


def test_the_error_of_a_constant_is_one() -> None:
    y = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert relative_error([y.mean(0, keepdim=True).expand(2, 2)], [y]) == pytest.approx(1.0)
    assert relative_error([y, y], [y, y]) == 0.0


def test_copies_cost_nothing_and_weights_are_put_back() -> None:
    net = copies()
    before = copy.deepcopy(net.state_dict())
    (group,) = find_groups(net, BATCHES[0][:1]).cuttable
    moments = channel_moments(net, [group], BATCHES)
    expected = outputs(net, BATCHES)
    copied_first = np.roll(np.arange(16), 8)
    curve = sensitivity(net, group, copied_first, moments, BATCHES, expected)
    assert list(curve.channels) == [8, 16]
    assert curve.at(8) < 1e-3
    assert curve.at(16) == 0
    assert sensitivity(net, group, np.arange(16), moments, BATCHES, expected).at(8) < 1e-3
    assert (
        sensitivity(
            net, group, np.repeat(np.arange(8), 2) + np.tile([0, 8], 8), moments, BATCHES, expected
        ).at(8)
        > 0.05
    )
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def chain(widths: list[int]) -> Groups:
    """Layers one after the other; layer i costs 100 × (channels read) × (channels written)."""
    names = [f"l{i}" for i in range(len(widths) + 1)]
    edges = [3, *widths, 10]
    costs = {name: LayerCost(1, 100 * edges[i] * edges[i + 1]) for i, name in enumerate(names)}
    groups = tuple(
        ChannelGroup(
            names[i], width, {names[i]: np.arange(width)}, {names[i + 1]: np.arange(width)[:, None]}, ()
        )
        for i, width in enumerate(widths)
    )
    return Groups(groups, {}, costs)


def line(channels: int, steepness: float) -> Curve:
    return Curve(np.array([STEP, channels]), np.array([steepness, 0.0]))


def test_work_left_goes_with_the_channels_read_and_written() -> None:
    assert macs_left(chain([32, 32]), {"l0": 16, "l1": 24}) == 100 * (3 * 16 + 16 * 24 + 24 * 10)


def test_the_group_that_costs_no_error_goes_first() -> None:
    groups = chain([64, 64])
    kept = allocate(
        groups,
        {"l0": line(64, 1.0), "l1": line(64, 0.0)},
        round(0.7 * macs_left(groups, {"l0": 64, "l1": 64})),
    )
    assert kept["l0"] == 64
    assert kept["l1"] == 40


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(16, 200), min_size=1, max_size=4),
    ratio=st.floats(0.0, 0.6),
    seed=st.integers(0, 100),
)
def test_targets_are_met_in_multiples_of_eight(widths: list[int], ratio: float, seed: int) -> None:
    groups = chain(widths)
    whole = {group.root: group.channels for group in groups.cuttable}
    target = round(macs_left(groups, whole) * (1 - ratio))
    steepness = np.random.default_rng(seed).uniform(0, 1, len(widths))
    curves = {root: line(width, slope) for (root, width), slope in zip(whole.items(), steepness)}
    kept = allocate(groups, curves, target)
    assert all(count == whole[root] or (count % STEP == 0 and count >= STEP) for root, count in kept.items())
    assert macs_left(groups, kept) <= max(target, macs_left(groups, fewest(groups)))
    for root in kept:
        if kept[root] < whole[root]:  # nothing was cut in vain
            more = min(kept[root] + STEP, whole[root])
            assert macs_left(groups, kept | {root: more}) > target


def test_work_left_is_what_the_pruned_network_costs() -> None:
    net = trained_statistics(Residual())
    image = BATCHES[0][:1]
    groups = find_groups(net, image)
    kept = {group.root: group.channels - 8 for group in groups.cuttable}
    remove_channels(net, image, {root: np.arange(8) for root in kept})
    assert macs_left(groups, kept) == sum(cost.macs for cost in layer_costs(net, image).values())
