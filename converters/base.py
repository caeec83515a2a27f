"""The contract of a conversion: what it requires, what it makes, what it ensures.

An arrow takes a model from one form to the next. It checks its source before it starts and its
target when it is done, so that an error names the first step that could know of it.
"""

from __future__ import annotations

import difflib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from edgecnn.errors import EdgeCnnError

__all__ = ["Arrow", "Step", "run_chain", "suggest"]

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """A conversion that ran, and the seconds it took with its checks."""

    name: str
    seconds: float


class Arrow(ABC, Generic[S, T]):
    """One conversion. Its options are given to its constructor; it keeps nothing of a run."""

    name: ClassVar[str]

    @abstractmethod
    def requires(self, source: S) -> None:
        """Refuse a source that cannot be converted.

        Raises:
            ModelError: Says which layer, tensor or argument, and what to do.
        """

    @abstractmethod
    def convert(self, source: S) -> T:
        """Make the target; the source is left as it was."""

    @abstractmethod
    def ensures(self, source: S, target: T) -> None:
        """Check what was made.

        Raises:
            ModelError: The target does not keep the contract.
        """

    def __call__(self, source: S) -> T:
        """Check the source, convert it, check the target."""
        self.requires(source)
        target = self.convert(source)
        self.ensures(source, target)
        return target


def run_chain(source: Any, arrows: Sequence[Arrow[Any, Any]]) -> tuple[list[Any], tuple[Step, ...]]:
    """Run arrows one after the other, each on what the one before it made.

    Returns:
        The target of every arrow, and the steps that ran, both in order.

    Raises:
        EdgeCnnError: As the arrow raised it; its message says in which step, and after which.
    """
    steps: list[Step] = []
    targets: list[Any] = []
    for arrow in arrows:
        start = time.perf_counter()
        try:
            targets.append(arrow(targets[-1] if targets else source))
        except EdgeCnnError as error:
            done = f" after {', '.join(step.name for step in steps)}" if steps else ""
            raise type(error)(f"{error} [{arrow.name}{done}]") from error
        steps.append(Step(arrow.name, time.perf_counter() - start))
    return targets, tuple(steps)


def suggest(name: str, known: Sequence[str]) -> str:
    """``; did you mean a, b?`` for a name that is not known, or nothing."""
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
