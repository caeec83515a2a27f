"""The contract of a conversion: what it requires, what it makes, what it ensures.

An arrow takes a model from one form to the next. It checks its source before it starts and its
target when it is done, so that an error names the first step that could know of it. What libraries
raise on the way is reported by `model_errors`.
"""

from __future__ import annotations

import difflib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from edgecnn.errors import EdgeCnnError, ModelError, first_line

__all__ = ["Arrow", "Step", "check_file", "model_errors", "run_chain", "suggest"]

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


@contextmanager
def model_errors(what: str) -> Iterator[None]:
    """Report what a library raises over a user's model as `ModelError`: ``what`` and the first line of it.

    For single calls into torch and onnx, whose errors on damaged input have no class in common.
    """
    try:
        yield
    except EdgeCnnError:
        raise
    except Exception as error:
        raise ModelError(f"{what} ({first_line(error)})") from error


def check_file(path: Path, what: str = "file") -> None:
    """Refuse a path that nothing can be read from.

    Raises:
        ModelError: Not a file, or the system does not let us read it.
    """
    with model_errors(f"{path}: cannot be read"):
        if not path.is_file():
            raise ModelError(f"{path}: no such {what}")
        with path.open("rb") as file:
            file.read(1)
