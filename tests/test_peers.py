"""How answers of two tools are compared; benchmarks/peers.py does it with real ones."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.paths import ROOT

# x1 y1 x2 y2, score, class
BOX = (10.0, 10.0, 30.0, 30.0, 0.9, 1.0)


@pytest.fixture(scope="module")
def turns() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("peer_turns")


@pytest.mark.parametrize(
    ("own", "shared", "apart_px"),
    [
        ([BOX], 1.0, 0.0),
        ([(10.0, 10.0, 30.5, 30.0, 0.9, 1.0)], 1.0, 0.5),
        ([(*BOX[:5], 2.0)], 0.0, 0.0),
        ([BOX, BOX], 2 / 3, 0.0),
        ([BOX, (0.0, 5.0, 40.0, 5.0, 0.8, 1.0)], 1.0, 0.0),
        ([], 0.0, 0.0),
    ],
    ids=["same", "moved", "another class", "one partner each", "nothing in the frame", "none"],
)
def test_partners(turns: ModuleType, own: list[tuple[float, ...]], shared: float, apart_px: float) -> None:
    found = turns.compare_boxes([np.array([BOX])], [np.array(own).reshape(-1, 6)])
    assert found.boxes == 1
    assert found.shared == pytest.approx(shared)
    assert found.apart_px == apart_px


def test_the_ratio_is_that_of_the_rounds(turns: ModuleType) -> None:
    """A round that was slow for both changes nothing."""
    peer, ours = turns.Timed([2.0, 20.0, 3.0], [1.0]), turns.Timed([1.0, 10.0, 1.0], [1.0])
    assert peer.ratio(ours) == 2.0
