"""Samples that are not fit to find ranges on are refused or told of, with numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgecnn import ModelSpec
from edgecnn.calibration import check_samples, draw_samples
from edgecnn.errors import InputError

SPEC = ModelSpec(task="classification", size_hw=(8, 6), mean=(0.5,), std=(0.25,))
GOOD = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), np.uint8)


def flat(*levels: int) -> npt.NDArray[np.uint8]:
    return np.stack([np.full((8, 6, 3), level, np.uint8) for level in levels])


def test_good_samples_raise_no_doubt() -> None:
    assert check_samples(GOOD, SPEC) == ()
    assert check_samples(draw_samples(None, SPEC).images, SPEC) == ()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GOOD[:31], "31 samples are few to find ranges on; pass at least 32"),
        (np.concatenate([GOOD, GOOD[:2], GOOD[:1]]), "3 of 43 samples are exact duplicates of others"),
        (np.concatenate([GOOD, flat(7, 9)]), "2 of 42 samples are of one colour"),
        (GOOD % 2, "pixels go from 0 to 1: normalised already?"),
        (100 + GOOD // 20, "pixels go from 100 to 112 only, of 0..255"),
    ],
    ids=["few", "duplicates", "constant", "normalised", "narrow"],
)
def test_doubtful_samples(images: npt.NDArray[np.uint8], message: str) -> None:
    (warning,) = check_samples(images, SPEC)
    assert warning.startswith(message)


def test_stray_pixels_do_not_hide_a_narrow_range() -> None:
    images = 100 + GOOD // 20
    images[0, 0, 0] = (0, 255, 0)
    (warning,) = check_samples(images, SPEC)
    assert warning.startswith("pixels go from 100 to 112 only")


@pytest.mark.parametrize(
    ("normalisation", "message"),
    [
        ({"scale": 1.0, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, "reaches ±1,136"),
        ({"scale": 1 / 255, "mean": (123.0,), "std": (58.0,)}, "varies by 0.0052 only"),
    ],
)
def test_normalisation_that_contradicts_itself(normalisation: dict[str, object], message: str) -> None:
    (warning,) = check_samples(GOOD, SPEC.replace(**normalisation))
    assert message in warning
    assert "scale 1" in warning or "scale 0.00392" in warning


@pytest.mark.parametrize(
    "normalisation",
    [
        {"scale": 1 / 255, "mean": (0.0,), "std": (1.0,)},
        {"scale": 1.0, "mean": (0.0,), "std": (1.0,)},
        {"scale": 1.0, "mean": (104.0, 117.0, 123.0), "std": (1.0,)},
        {"scale": 1.0, "mean": (127.5,), "std": (127.5,)},
        {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    ],
    ids=["unit", "raw", "mean only", "signed", "imagenet"],
)
def test_usual_normalisations_raise_no_doubt(normalisation: dict[str, object]) -> None:
    assert check_samples(GOOD, SPEC.replace(**normalisation)) == ()


def test_several_doubts_are_told_in_a_fixed_order() -> None:
    images = np.concatenate([GOOD[:3], GOOD[:1], flat(9)])
    warnings = check_samples(images, SPEC)
    assert [w.split()[0] for w in warnings] == ["5", "1", "1"]
    assert all("\n" not in warning for warning in warnings)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (flat(*range(40)), "all of the 40 samples are of one colour"),
        (np.repeat(GOOD[:1], 40, axis=0), "there is 1 distinct image in 40 samples"),
        (GOOD[:1], "there is 1 distinct image in 1 samples"),
    ],
)
def test_samples_that_are_of_no_use_are_refused(images: npt.NDArray[np.uint8], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_samples(images, SPEC)
