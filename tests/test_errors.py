"""Errors: one line, whatever stands in the names that they repeat."""

from __future__ import annotations

import pytest

from edgecnn import errors
from edgecnn.errors import EdgeCnnError, GateMissed


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name[0].isupper()])
def test_every_error_is_one_line_without_escapes(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, EdgeCnnError)
    shown = str(kind("a\nb\x1b[2J\u2028c\udcffd – e.edge: 3×4"))
    assert shown == "a b [2J c d – e.edge: 3×4"
    assert shown.encode()


def test_figures_of_a_missed_gate_stay() -> None:
    assert GateMissed("a\nb", {"drop": 1}).figures == {"drop": 1}
