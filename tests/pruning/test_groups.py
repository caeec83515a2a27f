from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecnn.errors import InputError
from edgecnn.pruning.groups import find_groups, remove_channels
from edgecnn.pruning.network import layer_costs, outputs
from tests.models import trained_statistics
from tests.pruning.nets import Between, Concatenated, Grouped, Residual, Tied

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_residual_stream_is_one_group() -> None:
    found = find_groups(trained_statistics(Residual()), IMAGE)
    (stream,) = (group for group in found.cuttable if group.channels == 32)
    inner = [group for group in found.cuttable if group is not stream]
    assert set(stream.writers) == {"stem.0", "outer.0", "outer.1"}
    assert set(stream.readers) == {"inner.0.0", "inner.1.0", "head.linear"}
    assert stream.norms == ("stem.1",)
    assert [(group.root, group.channels) for group in inner] == [("inner.0.0", 24), ("inner.1.0", 24)]
    assert found.reasons == {"head.linear": "its channels are the model's output"}


def test_flattened_channels_are_read_at_many_places() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 3)).eval()
    (group,) = find_groups(net, IMAGE).cuttable
    assert np.array_equal(group.readers["3"], np.arange(16 * 64).reshape(16, 64))


@pytest.mark.parametrize(
    ("module", "layer", "reason"),
    [
        (Grouped(), "first", "grouped is a grouped convolution"),
        (Grouped(), "grouped", "grouped is a grouped convolution"),
        (Concatenated(), "left", "its channels are concatenated or split"),
        (Concatenated(), "right", "its channels are concatenated or split"),
        (Tied(), "stem", "twice is tied: it runs 2 times"),
        (Tied(), "one", "one and other are tied: they share their weights"),
        (Tied(), "head.linear", "its channels are the model's output"),
        (nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 3, 1)), "0", "has 12 channels, fewer than 16"),
        (nn.Sequential(nn.Conv2d(3, 16, 1), nn.GroupNorm(4, 16), nn.Conv2d(16, 3, 1)), "0", "are moved, padded"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_named(module: nn.Module, layer: str, reason: str) -> None:
    found = find_groups(module.eval(), IMAGE)
    assert reason in found.reasons[layer]
    assert layer not in {name for group in found.cuttable for name in group.writers}


@pytest.mark.parametrize(
    ("between", "channels"),
    [
        (nn.ChannelShuffle(4), 16),
        (lambda x: nn.functional.pad(x, (0, 0, 0, 0, 8, 8)), 32),
        (lambda x: x.flip(1), 16),
        (lambda x: x.softmax(1), 16),
        (lambda x: x * x.mean(1, keepdim=True), 16),
    ],
    ids=["shuffled", "padded", "turned", "normalised", "weighed by their mean"],
)
def test_channels_that_move_or_mix_are_left_alone(between: Callable[[Tensor], Tensor], channels: int) -> None:
    found = find_groups(Between(between, channels).eval(), IMAGE)
    assert "first" not in {group.root for group in found.cuttable}
    assert "first" in found.reasons
    assert "second" not in found.reasons


def test_what_is_left_beside_them_can_be_cut() -> None:
    assert [group.root for group in find_groups(Grouped().eval(), IMAGE).cuttable] == ["last"]
    assert [group.root for group in find_groups(Concatenated().eval(), IMAGE).cuttable] == ["squeeze"]
    assert [group.root for group in find_groups(Tied().eval(), IMAGE).cuttable] == ["free"]


def test_a_layer_that_does_not_run_is_named() -> None:
    module = Residual().eval()
    module.spare = nn.Conv2d(3, 64, 1)
    assert find_groups(module, IMAGE).reasons["spare"] == "does not run"


def test_removed_channels_are_those_that_were_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(16, 3, 1)).eval()
    whole = net[0].weight.detach().clone()
    remove_channels(net, IMAGE, {"0": np.array([0, 3, 15])})
    assert torch.equal(net[0].weight, whole[[1, 2, *range(4, 15)]])
    assert net[1].weight.shape == (3, 13, 1, 1)


def test_a_depthwise_convolution_goes_with_its_channels() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 3, 1)).eval()
    (group,) = find_groups(net, IMAGE).cuttable
    assert set(group.writers) == {"0", "1"}
    assert set(group.readers) == {"2"}
    remove_channels(net, IMAGE, {group.root: np.arange(8)})
    assert net[1].groups == net[1].weight.shape[0] == 8


def test_a_transposed_convolution_reads_and_writes() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ConvTranspose2d(16, 24, 2, 2), nn.Conv2d(24, 3, 1)).eval()
    first, second = find_groups(net, IMAGE).cuttable
    assert (first.root, second.root) == ("0", "1")
    remove_channels(net, IMAGE, {"0": np.arange(8), "1": np.arange(8)})
    assert net[1].weight.shape == (8, 16, 2, 2)
    assert outputs(net, [IMAGE])[0].shape == (1, 3 * 16 * 16)


def test_costs_are_those_of_the_formula() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.Flatten(),
        nn.Linear(256, 5),
    ).eval()
    costs = layer_costs(net, IMAGE)
    assert {name: cost.macs for name, cost in costs.items()} == {
        "0": 4 * 4 * 8 * 3 * 9,
        "1": 4 * 4 * 8 * 4 * 4,
        "3": 256 * 5,
    }


def test_a_module_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="ReLU: runs no convolution or linear layer"):
        find_groups(nn.ReLU(), IMAGE)
