from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn
from edgecnn.errors import GateMissed, InputError
from edgecnn.pruning import Pruned, prune, prune_to_latency
from edgecnn.pruning.network import input_batches, layer_costs
from edgecnn.pruning.sensitivity import relative_error
from tests.models import trained_statistics
from tests.pruning.nets import SPEC, Grouped, Head, Residual, TiedBehind, answers, copies, noise

IMAGES = noise()


def residual() -> nn.Module:
    torch.manual_seed(0)
    return trained_statistics(Residual())


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("criterion", ["l1", "activation", "bn_scale"])
def test_channels_are_left_in_multiples_of_eight(ratio: float, criterion: Any) -> None:
    pruned = prune(residual(), IMAGES, SPEC, ratio=ratio, criterion=criterion)
    assert all(x.channels_after % 8 == 0 for x in pruned.layers if x.channels_after < x.channels_before)
    assert any(x.channels_after < x.channels_before for x in pruned.layers)
    assert pruned.macs_after <= (1 - ratio) * pruned.macs_before
    assert pruned.params_after == sum(p.numel() for p in pruned.module.parameters()) < pruned.params_before
    image = torch.zeros(1, 3, 8, 8)
    assert pruned.macs_after == sum(cost.macs for cost in layer_costs(pruned.module, image).values())


def test_half_of_a_network_of_copies_is_as_good_as_all_of_it() -> None:
    net = copies()
    expected = answers(net, IMAGES)
    naive, whole = (prune(net, IMAGES, SPEC, ratio=0.5, recover=recover) for recover in (False, True))
    assert naive.macs_after == whole.macs_after == whole.macs_before // 2
    assert relative_error([answers(naive.module, IMAGES)], [expected]) > 0.05
    assert relative_error([answers(whole.module, IMAGES)], [expected]) < 1e-3


def test_recovery_helps_on_images_that_it_has_not_seen() -> None:
    net, unseen = residual(), np.random.default_rng(9).integers(0, 256, (64, 8, 8, 3), np.uint8)
    expected = [answers(net, unseen)]
    errors = [
        relative_error(
            [answers(prune(net, IMAGES, SPEC, ratio=0.4, recover=recover).module, unseen)], expected
        )
        for recover in (False, True)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_the_given_module_stays_as_it_is() -> None:
    net = residual().train()
    net.stem[0].weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    pruned = prune(net, IMAGES, SPEC, ratio=0.4)
    assert net.training
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not pruned.module.training
    trainable = {name: p.requires_grad for name, p in pruned.module.named_parameters()}
    assert trainable == {name: name != "stem.0.weight" for name in trainable}


def test_nothing_is_cut_at_zero() -> None:
    net = residual()
    pruned = prune(net, IMAGES, SPEC, ratio=0.0)
    assert pruned.macs_after == pruned.macs_before
    assert torch.equal(answers(pruned.module, IMAGES), answers(net, IMAGES))


def test_what_was_left_alone_says_why() -> None:
    layers = {x.name: x for x in prune(Grouped(), IMAGES, SPEC, ratio=0.01).layers}
    assert list(layers) == ["first", "grouped", "last", "head.linear"]
    assert layers["grouped"].reason == "grouped is a grouped convolution"
    assert (layers["grouped"].channels_before, layers["grouped"].channels_after) == (32, 32)
    assert (layers["last"].channels_after, layers["last"].reason) == (8, None)


def test_weights_that_are_used_twice_are_not_fitted() -> None:
    net = TiedBehind().eval()
    pruned = prune(net, IMAGES, SPEC, ratio=0.2)
    assert torch.equal(pruned.module.twice.weight, net.twice.weight)
    assert not torch.equal(pruned.module.last.weight, net.last.weight)


def test_the_norm_behind_a_layer_that_cannot_be_fitted_is_reestimated() -> None:
    up = [nn.Conv2d(3, 32, 1), nn.ReLU(), nn.ConvTranspose2d(32, 4, 2, 2), nn.BatchNorm2d(4), Head(4)]
    net = trained_statistics(nn.Sequential(*up))
    pruned = prune(net, IMAGES, SPEC, ratio=0.4).module
    seen = pruned[:3](torch.cat(input_batches(IMAGES, SPEC)))
    assert pruned[3].running_mean.tolist() == pytest.approx(seen.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert torch.equal(pruned[2].weight[0], net[2].weight[pruned_first(net, pruned)])


def pruned_first(net: nn.Sequential, pruned: nn.Sequential) -> int:
    """The number that the first channel that is left had before."""
    return next(i for i, row in enumerate(net[0].weight) if torch.equal(row, pruned[0].weight[0]))


@pytest.mark.parametrize("returns", ["nothing", "another"])
def test_finetune_has_the_last_word(returns: str) -> None:
    seen: list[nn.Module] = []

    def finetune(module: nn.Module) -> nn.Module | None:
        seen.append(module)
        module.train()
        return copy.deepcopy(module) if returns == "another" else None

    pruned = prune(residual(), IMAGES, SPEC, ratio=0.3, finetune=finetune)
    assert (pruned.module is seen[0]) == (returns == "nothing")
    assert not pruned.module.training
    with pytest.raises(InputError, match="finetune returned a int"):
        prune(residual(), IMAGES, SPEC, ratio=0.3, finetune=lambda module: 3)  # type: ignore[arg-type, return-value]


def test_progress_ends_at_the_total() -> None:
    steps: list[tuple[int, int]] = []
    prune(residual(), IMAGES, SPEC, ratio=0.3, on_progress=lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert len({total for _, total in steps}) == 1
    assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 0.95}, r"ratio must be in 0\.\.0\.9, not 0\.95"),
        ({"ratio": -0.1}, r"ratio must be in 0\.\.0\.9"),
        ({"ratio": float("nan")}, r"ratio must be in 0\.\.0\.9"),
        ({"module": copies(), "ratio": 0.6}, "Sequential: 60% of its multiply-accumulates cannot be cut, the most is 50%"),
        ({"criterion": "magic"}, "criterion must be one of l1, activation, bn_scale, not 'magic'"),
        ({"module": copies(), "criterion": "bn_scale"}, "0: criterion bn_scale: no BatchNorm scales"),
        ({"module": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))}, "Sequential: nothing in it can be cut: 1: "),
        ({"module": b"an ONNX file"}, "only an nn.Module can be pruned, not a bytes"),
        ({"images": IMAGES[:, :4]}, "images must be uint8 n×8×8×3, not uint8 64×4×8×3"),
        ({"images": IMAGES.astype(np.float32)}, "images must be uint8 n×8×8×3, not float32"),
        ({"images": IMAGES[:1]}, "images holds 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(changes: dict[str, Any], message: str) -> None:
    arguments = {"module": residual(), "images": IMAGES, "ratio": 0.3, **changes}
    with pytest.raises(InputError, match=message) as caught:
        prune(arguments.pop("module"), arguments.pop("images"), SPEC, **arguments)
    assert "\n" not in str(caught.value)


def test_an_exported_program_is_refused() -> None:
    program = torch.export.export(residual(), (torch.zeros(1, 3, 8, 8),))
    for module in (program, program.module()):
        with pytest.raises(InputError, match="exported program"):
            prune(module, IMAGES, SPEC, ratio=0.3)  # type: ignore[arg-type]


def test_a_pruned_network_converts(tmp_path: Path) -> None:
    pruned = prune(residual(), IMAGES, SPEC, ratio=0.4)
    frames = np.random.default_rng(3).integers(0, 256, (16, 8, 8, 3), np.uint8)
    bundle = edgecnn.convert(pruned.module, spec=SPEC, calibration=frames, out=tmp_path / "pruned.edge")
    (fidelity,) = bundle.manifest.fidelity
    assert fidelity.agreement == 1.0
    network = bundle.manifest.network
    assert network is not None
    assert (network.params, network.macs) == (pruned.params_after, pruned.macs_after)


def cost_ms(module: nn.Module) -> float:
    """A machine on which a million multiply-accumulates take a millisecond."""
    return sum(cost.macs for cost in layer_costs(module, torch.zeros(1, 3, 8, 8)).values()) / 1e6


def to_latency(limit_ms: float, measure: Any = cost_ms) -> Pruned:
    return prune_to_latency(residual(), IMAGES, SPEC, max_latency_ms=limit_ms, measure=measure)


def test_as_little_is_cut_as_is_fast_enough() -> None:
    whole = cost_ms(residual())
    calls: list[float] = []

    def measure(module: nn.Module) -> float:
        calls.append(cost_ms(module))
        return calls[-1]

    pruned = to_latency(0.6 * whole, measure)
    assert 0.5 * whole < cost_ms(pruned.module) <= 0.6 * whole
    assert len(calls) <= 10


def test_a_network_that_is_fast_enough_is_left_whole() -> None:
    pruned = to_latency(1000.0)
    assert pruned.macs_after == pruned.macs_before


def test_one_lucky_measurement_is_not_enough() -> None:
    whole, seen = cost_ms(residual()), set()

    def flattering(module: nn.Module) -> float:
        """The first time that it sees a network it is twice as fast."""
        honest = cost_ms(module)
        first = honest not in seen and honest < whole
        seen.add(honest)
        return honest / 2 if first else honest

    assert cost_ms(to_latency(0.6 * whole, flattering).module) <= 0.6 * whole


def test_what_cannot_be_fast_enough_ends_with_figures() -> None:
    with pytest.raises(GateMissed, match=r"0\.001 ms cannot be met") as caught:
        to_latency(0.001)
    assert caught.value.figures["latency_before_ms"] == pytest.approx(cost_ms(residual()))
    with pytest.raises(InputError, match="max_latency_ms must be above 0"):
        to_latency(0.0)
