"""BatchNorm re-estimation and least-squares reconstruction."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn.pruning.batchnorm import reestimate
from edgecnn.pruning.groups import find_groups, remove_channels
from edgecnn.pruning.network import input_batches, outputs
from edgecnn.pruning.reconstruction import followers, reconstruct
from edgecnn.pruning.sensitivity import relative_error
from tests.models import trained_statistics
from tests.pruning.nets import SPEC, Residual, copies, noise

BATCHES = input_batches(noise(), SPEC)


def test_statistics_are_those_of_all_batches_together() -> None:
    norm = nn.BatchNorm2d(2).eval()
    batches = [
        torch.tensor([1.0, 10.0]).reshape(1, 2, 1, 1).expand(2, 2, 1, 2),
        torch.full((1, 2, 1, 2), 4.0),
    ]
    reestimate(nn.Sequential(norm), ["0"], batches)
    # four values of 1 and two of 4; four of 10 and two of 4
    assert norm.running_mean.tolist() == pytest.approx([2, 8])
    assert norm.running_var.tolist() == pytest.approx([(4 * 1 + 2 * 4) / 5, (4 * 4 + 2 * 16) / 5])
    assert not norm.training


def test_statistics_of_a_norm_behind_another_are_those_it_sees() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    reestimate(net, ["0", "2"], BATCHES)
    seen = net[:2](torch.cat(BATCHES))
    assert net[2].running_mean.tolist() == pytest.approx(seen.mean((0, 2, 3)).tolist(), rel=0.02)
    assert net[2].running_var.tolist() == pytest.approx(seen.var((0, 2, 3)).tolist(), rel=0.02)


def test_only_the_norms_that_are_named_change() -> None:
    net = trained_statistics(Residual())
    before = copy.deepcopy(net.state_dict())
    reestimate(net, ["stem.1"], BATCHES)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed - {"stem.1.num_batches_tracked"} == {"stem.1.running_mean", "stem.1.running_var"}


def test_the_norm_that_reads_a_layer_is_found() -> None:
    net = Residual().eval()
    assert followers(net, ["stem.0", "inner.0.0", "outer.0"], BATCHES[0]) == {
        "stem.0": "stem.1",
        "inner.0.0": "inner.0.1",
    }


def without_copies(net: nn.Module, layers: list[str], removed: np.ndarray) -> tuple[float, float]:
    """Error of the output after channels of the first layer are removed, and after layers are fitted."""
    cut = copy.deepcopy(net)
    remove_channels(cut, BATCHES[0][:1], {"0": removed})
    expected, naive = outputs(net, BATCHES), outputs(cut, BATCHES)
    kept = {"0": np.setdiff1d(np.arange(16), removed)}
    calls: list[int] = []
    reconstruct(cut, net, layers, kept, BATCHES, lambda: calls.append(1))
    assert len(calls) == len(layers)
    return relative_error(naive, expected), relative_error(outputs(cut, BATCHES), expected)


@pytest.mark.parametrize("removed", [np.arange(8, 16), np.array([0, 9, 2, 11, 12])], ids=["small", "mixed"])
def test_copies_are_missed_by_a_cut_and_not_after_reconstruction(removed: np.ndarray) -> None:
    naive, fitted = without_copies(copies(), ["2"], removed)
    assert naive > 0.05
    assert fitted < 1e-3


def with_norm(bias: bool) -> nn.Module:
    net = copies()
    second = nn.Conv2d(16, 4, 3, stride=2, padding=1, bias=bias)
    second.weight = net[2].weight
    return trained_statistics(nn.Sequential(net[0], nn.ReLU(), second, nn.BatchNorm2d(4), *net[3:]))


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_keeps_what_it_was_trained_with(bias: bool) -> None:
    naive, fitted = without_copies(with_norm(bias), ["2"], np.arange(8, 16))
    assert naive > 0.05
    assert fitted < 1e-3


def test_without_bias_and_norm_the_fit_goes_through_zero() -> None:
    net = copies()
    net[2].bias = None
    naive, fitted = without_copies(net, ["2"], np.arange(8, 16))
    assert naive > 0.05
    assert fitted < 1e-3


def test_a_linear_layer_makes_up_for_flattened_channels() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16 * 36, 3)
    with torch.no_grad():
        linear.weight[:, 8 * 36 :] *= 5
    net = nn.Sequential(copies()[0], nn.ReLU(), nn.Flatten(), linear).eval()
    naive, fitted = without_copies(net, ["3"], np.arange(8, 16))
    assert naive > 0.05
    assert fitted < 0.1 * naive


def test_an_error_before_a_layer_is_made_good_by_it() -> None:
    net = copies()
    cut = copy.deepcopy(net)
    with torch.no_grad():
        cut[0].weight *= 2
        cut[0].bias *= 2
    reconstruct(cut, net, ["2"], {}, BATCHES, lambda: None)
    assert relative_error(outputs(cut, BATCHES), outputs(net, BATCHES)) < 1e-3


def test_nothing_changes_where_nothing_was_cut() -> None:
    net = trained_statistics(Residual())
    same = copy.deepcopy(net)
    names = list(find_groups(net, BATCHES[0][:1]).costs)
    reconstruct(same, net, names, {}, BATCHES, lambda: None)
    assert relative_error(outputs(same, BATCHES), outputs(net, BATCHES)) < 1e-9
