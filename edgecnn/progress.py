"""How long work tells of itself: the callbacks that functions take, and those that keep silent."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["OnStep", "OnWork", "silent_step", "silent_work"]

# the name of a step that is done, and its seconds
OnStep = Callable[[str, float], None]
# what is under way, how much of it is done, and how much there is
OnWork = Callable[[str, int, int], None]


def silent_step(name: str, seconds: float) -> None:
    """Steps that nobody watches."""


def silent_work(what: str, done: int, total: int) -> None:
    """Work that nobody watches."""
