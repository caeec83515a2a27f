"""Ranges, scales and zero points on arrays whose answers are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.calibration import RECIPES, Observation, Observer, quant_params, value_range, weight_scales
from edgecnn.calibration.ranges import Entropy, Mse, Percentile, QuantParams
from edgecnn.errors import InputError


def observed(*batches: npt.ArrayLike) -> Observation:
    observer = Observer()
    for batch in batches:
        observer.update(np.asarray(batch, np.float32))
    return observer.result()


def quantised(values: npt.NDArray[np.float32], params: QuantParams) -> npt.NDArray[np.float64]:
    """What eight bits make of values, as QuantizeLinear and DequantizeLinear do it."""
    q = np.clip(np.rint(values / params.scale) + params.zero_point, params.qmin, params.qmax)
    return np.asarray(params.scale * (q - params.zero_point))


def error(values: npt.NDArray[np.float32], bounds: tuple[float, float], *, symmetric: bool) -> float:
    return float(np.mean((quantised(values, quant_params(*bounds, symmetric=symmetric)) - values) ** 2))


NORMAL = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
SKEWED = np.random.default_rng(1).gamma(0.5, 1.0, 200_000).astype(np.float32) - np.float32(0.25)
RELU = np.maximum(NORMAL, 0)


@pytest.mark.parametrize(
    ("method", "symmetric", "expected"),
    [
        ("minmax", False, (-2.0, 6.0)),
        ("minmax", True, (-6.0, 6.0)),
        ("moving_average", False, (0.9 * -2 + 0.1 * -1, 0.9 * 1 + 0.1 * 6)),
        ("moving_average", True, (-1.9, 1.9)),
    ],
)
def test_extremes(method: str, symmetric: bool, expected: tuple[float, float]) -> None:
    seen = observed([-2, 1], [-1, 6])
    assert value_range(seen, RECIPES[method], symmetric=symmetric) == pytest.approx(expected)


def test_percentile_cuts_both_ends_alike() -> None:
    seen = observed(np.arange(-500, 500))
    low, high = value_range(seen, Percentile(percent=90), symmetric=False)
    assert (low, high) == (pytest.approx(-450, abs=1), pytest.approx(450, abs=1))


def test_percentile_of_what_is_never_negative_cuts_the_upper_end() -> None:
    seen = observed(np.arange(1000))
    assert value_range(seen, Percentile(percent=90), symmetric=False) == (0, pytest.approx(900, abs=1))


def test_symmetric_percentile_is_that_of_magnitudes() -> None:
    seen = observed([*np.arange(-1000, 0), *np.zeros(1000)])
    low, high = value_range(seen, Percentile(percent=75), symmetric=True)
    assert (low, high) == (pytest.approx(-500, abs=1), pytest.approx(500, abs=1))


def test_percentile_of_all_is_the_extremes() -> None:
    seen = observed([-1.7, 0.1, 3.3])
    assert value_range(seen, Percentile(percent=100), symmetric=False) == (seen.low, seen.high)


@pytest.mark.parametrize("percent", [50, 100.1, float("nan")])
def test_percentile_that_makes_no_sense(percent: float) -> None:
    with pytest.raises(InputError, match="percent must be"):
        Percentile(percent=percent)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "values", [NORMAL, SKEWED, RELU, -RELU], ids=["normal", "skewed", "relu", "negative"]
)
def test_mse_is_as_good_as_trying_every_range_on_the_values(
    values: npt.NDArray[np.float32], symmetric: bool
) -> None:
    found = error(values, value_range(observed(values), Mse(), symmetric=symmetric), symmetric=symmetric)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    shares = np.linspace(0.2, 1, 17)
    best = min(
        error(values, (float(low * a), float(high * b)), symmetric=symmetric)
        for a in (shares if low < 0 else [1.0])
        for b in (shares if high > 0 else [1.0])
    )
    assert found <= 1.02 * best


def test_mse_gives_up_an_outlier_for_finer_steps() -> None:
    low, high = value_range(observed([*NORMAL, 12.0]), Mse(), symmetric=False)
    assert low < -3
    assert 3 < high < 11


def test_mse_keeps_all_of_a_uniform_distribution() -> None:
    low, high = value_range(observed(np.linspace(-1, 1, 100_000)), Mse(), symmetric=False)
    assert (low, high) == (pytest.approx(-1, abs=0.011), pytest.approx(1, abs=0.011))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("values", [NORMAL, RELU], ids=["normal", "relu"])
def test_entropy_prefers_clipping_an_outlier(values: npt.NDArray[np.float32], symmetric: bool) -> None:
    high = value_range(observed([*values, 40.0]), Entropy(), symmetric=symmetric)[1]
    assert 3 < high < 20


def test_entropy_keeps_all_of_a_uniform_distribution() -> None:
    high = value_range(observed(np.linspace(0, 8, 200_000)), Entropy(), symmetric=False)[1]
    assert high > 7.8


def test_exact_zeros_do_not_move_the_entropy() -> None:
    few, many = (observed([*RELU[RELU > 0], *np.zeros(n)]) for n in (1, 500_000))
    assert value_range(few, Entropy(), symmetric=False) == value_range(many, Entropy(), symmetric=False)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize(
    "values", [[0.0], [3.0], [-3.0], [1e-42], [1.0, 2.0], [-1e30, 1e30], list(range(300))], ids=str
)
def test_every_recipe_gives_a_usable_range(method: str, values: list[float], symmetric: bool) -> None:
    seen = observed(values)
    low, high = value_range(seen, RECIPES[method], symmetric=symmetric)
    assert min(seen.low, -seen.high if symmetric else 0) <= low <= 0 <= high
    assert not symmetric or low == -high
    params = quant_params(low, high, symmetric=symmetric)
    assert 0 < params.scale < np.inf
    assert params.qmin <= params.zero_point <= params.qmax


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, 0),
        (-128.0, 127.0, 1.0, 128),
        (-1.0, 1.0, 2 / 255, 128),  # 127.5, halves to even
        (0.5, 2.55, 0.01, 0),  # widened to hold zero
        (-2.55, -1.0, 0.01, 255),
        (0.0, 0.0, 1 / 255, 0),
        (-1e-45, 1e-45, 1 / 255, 0),
    ],
)
def test_asymmetric_parameters(low: float, high: float, scale: float, zero_point: int) -> None:
    params = quant_params(low, high, symmetric=False)
    assert params == QuantParams(float(np.float32(scale)), zero_point, signed=False)
    assert (params.qmin, params.qmax) == (0, 255)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(-1.27, 1.27, 0.01), (-254.0, 3.0, 2.0), (0.0, 127.0, 1.0), (0.0, 0.0, 1 / 127)],
)
def test_symmetric_parameters(low: float, high: float, scale: float) -> None:
    params = quant_params(low, high, symmetric=True)
    assert params == QuantParams(float(np.float32(scale)), 0, signed=True)
    assert (params.qmin, params.qmax) == (-128, 127)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.booleans())
def test_quantised_values_are_half_a_step_away_at_most_and_zero_is_exact(
    a: float, b: float, symmetric: bool
) -> None:
    low, high = min(a, b), max(a, b)
    params = quant_params(low, high, symmetric=symmetric)
    values = np.linspace(min(low, 0), max(high, 0), 101)
    # the zero point is rounded too, which moves an end of an asymmetric range by up to half a step
    steps = 0.5 if symmetric else 1.0
    distance = np.abs(quantised(values, params) - values).max()
    assert distance <= steps * params.scale * (1 + 1e-5) or params.scale == float(np.float32(1 / 255))
    assert quantised(np.zeros(1, np.float32), params)[0] == 0


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_ranges_that_are_none(bounds: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="cannot be quantised"):
        quant_params(*bounds, symmetric=False)


@pytest.mark.parametrize("axis", [0, 1])
def test_weight_scales_are_those_of_each_channel(axis: int) -> None:
    weight = np.zeros((3, 2, 2, 1), np.float32)
    weight[1, 1, 0] = -127
    weight[2, 0, 1] = 254
    expected = [[1 / 127, 1, 2], [2, 1]][axis]
    np.testing.assert_array_equal(weight_scales(weight, axis), np.float32(expected))


def test_mse_scales_have_the_least_error_of_each_channel() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_t(3, (4, 300)).astype(np.float32)
    weight[3] = 0

    def errors(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        wide = scales[:, None].astype(np.float64)
        return np.asarray(((weight - wide * np.clip(np.rint(weight / wide), -128, 127)) ** 2).sum(axis=1))

    full, chosen = weight_scales(weight, 0), weight_scales(weight, 0, mse=True)
    assert chosen.dtype == np.float32
    assert (errors(chosen) < errors(full)).any()
    for share in np.linspace(0.7, 1, 31):
        assert (errors(chosen) <= errors(np.float32(full * share)) * (1 + 1e-4)).all()
    assert chosen[3] == np.float32(1 / 127)
