"""NVIDIA's Python bindings under whatever name they are installed, and what its engines say."""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, cast

from edgecnn.errors import MissingDependency, first_line

__all__ = [
    "Collector",
    "Flavor",
    "Said",
    "TensorRT",
    "collector",
    "find_tensorrt",
    "monitor",
    "numpy_dtype",
    "parser_error",
    "plain",
]

Flavor = Literal["tensorrt", "tensorrt_rtx"]

log = logging.getLogger(__name__)

# JetPack and the full packages first; the last is the wheel that comes without the metapackage
MODULES: dict[str, Flavor] = {
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
    "tensorrt_rtx_bindings": "tensorrt_rtx",
}

# how many messages wait to be asked for
KEPT = 100
# who speaks and from where in its own source, in TensorRT's messages
ORIGIN = re.compile(
    r"^(?:WARNING )?(?:\[[^]]*::\d+\] )?(?:\w+\.cpp:\d+: )?(?:I\w+::\w+: )?(?:Error Code \d+: )?|"
    r" ?\bIn [\w:~]+ at \S+:\d+ ?"
)

# by NVIDIA's names, since `nptype` of TensorRT 8 asks numpy for a type that numpy has dropped
NUMPY_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class TensorRT:
    """The TensorRT of this machine.

    Attributes:
        module: Its bindings; typed loosely because they differ from version to version.
        flavor: ``tensorrt``, or ``tensorrt_rtx`` for the edition for desktop cards.
        version: Such as ``10.3.0``.
    """

    module: Any
    flavor: Flavor
    version: str


@dataclass(frozen=True)
class Said:
    """What TensorRT reported, each text once, in order and without the place in its source.

    Attributes:
        errors, warnings: By severity.
    """

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The first error that says something: without a driver, those of CUDA stand among all others."""
        own = [text for text in self.errors if "cudaError" not in text]
        return next(iter((*own, *self.errors)), "it does not say why")


class Collector(Protocol):
    """A TensorRT logger that keeps errors and warnings until they are asked for."""

    def take(self) -> Said:
        """What was reported since the last call."""


@cache
def find_tensorrt() -> TensorRT:
    """The bindings that can be imported here: TensorRT itself, else TensorRT for RTX.

    Importing them needs neither a GPU nor a driver.

    Raises:
        MissingDependency: None can, and why.
    """
    broken = []
    for name, flavor in MODULES.items():
        try:
            module = importlib.import_module(name)
            # a folder that happens to be called tensorrt imports too, as a package of nothing
            module.Runtime  # noqa: B018
            return TensorRT(module, flavor, str(module.__version__))
        except Exception as error:  # a broken installation raises whatever it likes
            if not _absent(name, error):
                broken.append(f"{name}: {first_line(error)}")
    reason = "; ".join(broken) or "not installed"
    raise MissingDependency(
        f"TensorRT could not be imported ({reason}); on a Jetson it comes with JetPack, "
        "elsewhere try: pip install 'edgecnn[tensorrt]'"
    )


def _absent(name: str, error: Exception) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name == name


@cache
def collector(tensorrt: TensorRT) -> Collector:
    """The logger for TensorRT's ``Builder``, ``OnnxParser`` and ``Runtime``; it passes all on to `logging`.

    There is one a process: TensorRT keeps to the first logger it was given and ignores others.
    The other way would be an ``IErrorRecorder``: one in Python was seen to crash when it is torn down.
    """
    base = tensorrt.module.ILogger

    class Logger(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[str] = deque(maxlen=KEPT)
            self._warnings: deque[str] = deque(maxlen=KEPT)

        def log(self, severity: Any, message: str) -> None:
            log.debug("%s", message)
            if severity not in (base.INTERNAL_ERROR, base.ERROR, base.WARNING):
                return
            kept = self._warnings if severity == base.WARNING else self._errors
            text = plain(message)
            if text not in kept:
                kept.append(text)

        def take(self) -> Said:
            said = Said(tuple(self._errors), tuple(self._warnings))
            self._errors.clear()
            self._warnings.clear()
            return said

    return cast(Collector, Logger())


def monitor(tensorrt: TensorRT, progress: Callable[[str, int, int], None]) -> Any:
    """A progress monitor for a builder's config: passes on each phase, its steps done and all of them."""

    class Monitor(tensorrt.module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self.steps[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()


def parser_error(error: Any) -> str:
    """The node that the ONNX parser stopped at, and why, of one of its errors."""
    # version 8 gives the number alone
    where = f"{error.node_name()} ({error.node_operator()})" if hasattr(error, "node_name") else ""
    if not where.strip(" ()"):
        where = f"node {error.node()}" if error.node() >= 0 else "the model"
    # a failed check is its expression, with words for it at the end or nothing but `false`
    lines = [line for line in error.desc().splitlines() if not line.startswith("Invalid Node")]
    text = "" if not lines or lines[0] == "false" else plain(lines[0])
    quoted = text.partition('&& "')[2].replace('" "', "").rstrip('"')
    return f"{where}: TensorRT does not take it: {quoted or text or 'an operation it does not know'}"


def plain(message: str) -> str:
    """A message of TensorRT on one line, without the places in its source that it names."""
    return ORIGIN.sub("", " ".join(message.split()))


def numpy_dtype(kind: Any) -> str:
    """Numpy's name of a ``DataType`` of TensorRT; its own name, in small letters, where numpy has none."""
    name: str = kind.name
    return NUMPY_DTYPES.get(name, name.lower())
