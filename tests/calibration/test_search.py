"""The search for layers that stay in float, against exhaustive search where that can be done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.calibration.search import LayerSensitivity, fewest_float_layers, most_trials

Drop = Callable[[frozenset[str]], float]


def layers(harm: Sequence[float], macs: Sequence[int] | None = None) -> list[LayerSensitivity]:
    """Layers a, b, c, … whose error is their harm."""
    return [
        LayerSensitivity(name, cost, error)
        for name, cost, error in zip("abcdefghijklmnop", macs or [1] * len(harm), harm)
    ]


def added(found: Sequence[LayerSensitivity]) -> Drop:
    """The harm of the layers that are in int8 adds up."""
    return lambda kept: sum(layer.error for layer in found if layer.name not in kept)


def test_nothing_goes_back_where_int8_is_good_enough() -> None:
    found = layers([3, 1, 2])
    choice = fewest_float_layers(found, added(found), 6)
    assert (choice.kept_float, choice.drop, choice.met, choice.evaluations) == ((), 6, True, 1)
    assert choice.trials == (((), 6),)


@pytest.mark.parametrize(
    ("max_drop", "kept"), [(6, "d"), (5, "d"), (4, "bd"), (1, "bd"), (0, "abcd"), (10, "d"), (14, "")]
)
def test_the_most_harmful_go_back_in_the_order_of_the_network(max_drop: float, kept: str) -> None:
    found = layers([0.5, 4, 0.5, 9])
    choice = fewest_float_layers(found, added(found), max_drop)
    assert "".join(choice.kept_float) == kept
    assert choice.drop == added(found)(frozenset(kept)) <= max_drop


@pytest.mark.parametrize(
    ("harm", "macs", "kept"),
    [
        # b alone would do; a and c together do as well, for less than half of its MACs
        ([3, 4, 3], [10, 100, 10], "ac"),
        ([3, 4, 3], [30, 100, 30], "b"),
        # nothing to save
        ([3, 4, 3], [0, 0, 0], "b"),
        # one other is enough
        ([4, 4, 3], [10, 100, 10], "a"),
        # three for one would be two layers more
        ([1.5, 4, 1.5, 1.5], [1, 100, 1, 1], "b"),
    ],
)
def test_a_costly_layer_is_exchanged_for_at_most_two_cheap_ones(
    harm: list[float], macs: list[int], kept: str
) -> None:
    found = layers(harm, macs)
    choice = fewest_float_layers(found, added(found), sum(harm) - 4)
    assert "".join(choice.kept_float) == kept


def test_a_layer_that_the_ranking_put_too_high_is_given_back() -> None:
    found = layers([9, 5, 1], macs=[50, 2, 1])
    choice = fewest_float_layers(found, lambda kept: 0.0 if "b" in kept else 1.0, 0.5)
    assert choice.kept_float == ("b",)


def test_a_budget_that_cannot_be_met_gives_the_least_bad() -> None:
    found = layers([3, 1, 2])
    choice = fewest_float_layers(found, lambda kept: 9.0 - len(kept), 0.5)
    assert (choice.kept_float, choice.drop, choice.met) == (("a", "b", "c"), 6.0, False)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_model_without_layers(drop: float) -> None:
    choice = fewest_float_layers([], lambda kept: drop, 0.5)
    assert (choice.kept_float, choice.met, choice.evaluations) == ((), drop == 0, 1)


@pytest.mark.parametrize(("count", "most"), [(1, 5), (10, 14), (100, 23), (1000, 32)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.01, 0.0])
def test_evaluations_grow_with_the_logarithm(count: int, most: int, share: float) -> None:
    assert most_trials(count) == most
    rng = np.random.default_rng(count)
    found = [LayerSensitivity(str(i), int(m), e) for i, (m, e) in enumerate(rng.random((count, 2)) * 1e6)]
    choice = fewest_float_layers(found, added(found), share * sum(layer.error for layer in found))
    assert choice.met
    assert choice.evaluations <= most


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100)), max_size=12), st.integers(0), st.floats(0, 1)
)
def test_what_is_returned_was_measured(sizes: list[tuple[int, int]], seed: int, max_drop: float) -> None:
    """Also where the drop is nothing but noise: each set once, within the bound, reported in order."""
    rng = np.random.default_rng(seed)
    found = layers([error for error, _ in sizes], [macs for _, macs in sizes])
    measured: list[tuple[frozenset[str], float]] = []
    told: list[tuple[tuple[str, ...], float]] = []

    def drop_of(kept: frozenset[str]) -> float:
        measured.append((kept, float(rng.random())))
        return measured[-1][1]

    choice = fewest_float_layers(found, drop_of, max_drop, on_trial=lambda *trial: told.append(trial))
    assert [(frozenset(kept), drop) for kept, drop in choice.trials] == measured
    assert list(choice.trials) == told
    assert len(dict(measured)) == len(measured) == choice.evaluations <= most_trials(len(found))
    assert (choice.kept_float, choice.drop) in choice.trials
    assert choice.met == (choice.drop <= max_drop)
    if not choice.met:
        assert choice.drop == min(drop for _, drop in measured)


@dataclass(frozen=True)
class Best:
    """What exhaustive search finds: the fewest layers, and the fewest MACs of any number of layers."""

    layers: int
    macs: int


def best(found: Sequence[LayerSensitivity], drop_of: Drop, max_drop: float) -> Best:
    meeting = [
        kept
        for count in range(len(found) + 1)
        for kept in itertools.combinations(found, count)
        if drop_of(frozenset(layer.name for layer in kept)) <= max_drop
    ]
    return Best(min(map(len, meeting)), min(sum(layer.macs for layer in kept) for kept in meeting))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), min_size=1, max_size=7),
    st.floats(0, 1),
    st.sampled_from([1, 2]),
)
def test_at_most_one_layer_more_than_the_fewest(
    sizes: list[tuple[int, int]], share: float, power: int
) -> None:
    """Where harm adds up, or only its sum counts: four times the drop for twice the harm."""
    found = layers([error for error, _ in sizes], [macs for _, macs in sizes])

    def drop_of(kept: frozenset[str]) -> float:
        return added(found)(kept) ** power

    max_drop = share * drop_of(frozenset())
    choice = fewest_float_layers(found, drop_of, max_drop)
    assert choice.met
    assert len(choice.kept_float) <= best(found, drop_of, max_drop).layers + 1


def test_close_to_exhaustive_search_where_layers_interact() -> None:
    """Sixty networks of eight layers; what a layer does to the output depends on all others a little."""
    more_layers, more_macs = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        harm, macs = rng.lognormal(0, 1.5, 8), rng.lognormal(0, 1.2, 8) * 1e6
        pairs = np.triu(rng.uniform(-0.2, 0.2, (8, 8)) * np.sqrt(np.outer(harm, harm)), 1)

        def drop_of(kept: frozenset[str], harm=harm, pairs=pairs) -> float:  # type: ignore[no-untyped-def]
            in_int8 = np.array([name not in kept for name in "abcdefgh"], float)
            return float(in_int8 @ harm + in_int8 @ pairs @ in_int8)

        alone = [drop_of(frozenset("abcdefgh") - {name}) for name in "abcdefgh"]
        found = layers(alone, [int(cost) for cost in macs])
        max_drop = float(rng.uniform(0.05, 0.7)) * drop_of(frozenset())
        choice = fewest_float_layers(found, drop_of, max_drop)
        fewest = best(found, drop_of, max_drop)
        kept_macs = sum(layer.macs for layer in found if layer.name in choice.kept_float)
        more_layers.append(len(choice.kept_float) - fewest.layers)
        more_macs.append((kept_macs - fewest.macs) / max(layer.macs for layer in found))
    assert max(more_layers) <= 1
    assert max(more_macs) < 1
    assert np.mean(more_macs) < 0.1
