"""Every error edgecnn raises on purpose, and the exit code the CLI ends with.

::

    EdgeCnnError                      1
    ├── InputError (ValueError)       2   a file, argument or value that cannot be used
    │   ├── SpecError                     a model spec that contradicts itself
    │   ├── BundleError                   a bundle that is missing, altered or unsafe
    │   ├── MediaError                    an image, folder or video that cannot be read
    │   └── ModelError                    a model that cannot be loaded or converted
    ├── GateMissed                    1   parity, accuracy or latency is below what was asked for
    └── Unavailable (RuntimeError)    3   something this machine does not have
        ├── MissingDependency (ImportError)
        ├── DeviceUnavailable             a camera, screen or accelerator
        └── EngineError                   an inference engine failed on a model that was accepted

Messages are one line: what was wrong, in which file or argument, what to do.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import ClassVar

__all__ = [
    "BundleError",
    "CompilerFailed",
    "DeviceUnavailable",
    "EdgeCnnError",
    "EngineError",
    "EngineMismatch",
    "GateMissed",
    "InputError",
    "MediaError",
    "MissingDependency",
    "ModelError",
    "SpecError",
    "Unavailable",
    "first_line",
    "require",
]


class EdgeCnnError(Exception):
    """Base of all errors of this package."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """The message on one line: names in it are other people's, and may hold line breaks and escapes."""
        return "".join(c if c.isprintable() else " " for c in super().__str__())


class InputError(EdgeCnnError, ValueError):
    """A file, argument or value that cannot be used as it is."""

    exit_code = 2


class SpecError(InputError):
    """A model spec that is incomplete or contradicts itself or the model."""


class BundleError(InputError):
    """A bundle that is missing, altered, unsafe or of an unknown version."""


class MediaError(InputError):
    """An image, folder or video that holds nothing that can be read."""


class ModelError(InputError):
    """A model that cannot be loaded or converted; names the layer where it can."""


class CompilerFailed(ModelError):
    """An engine's compiler that died, hung or needed more memory than it was given over a model."""


class EngineMismatch(InputError):
    """A compiled engine that was built for another device or another version of its library."""


class GateMissed(EdgeCnnError):
    """A result that was measured and is worse than the limit that was set.

    Attributes:
        figures: What was measured, ready for JSON.
    """

    def __init__(self, message: str, figures: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.figures = figures or {}


class Unavailable(EdgeCnnError, RuntimeError):
    """Something that is needed and that this machine does not have."""

    exit_code = 3


class MissingDependency(Unavailable, ImportError):
    """An optional package that is not installed; the message holds the pip command."""


class DeviceUnavailable(Unavailable):
    """A camera, screen or accelerator that is absent or does not answer."""


class EngineError(Unavailable):
    """An inference engine failed while it ran a model that it had accepted."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package by name.

    Args:
        module: Dotted name of the module.
        extra: The extra of edgecnn that brings it, for the message.

    Raises:
        MissingDependency: It cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"{module} could not be imported ({error}); try: pip install 'edgecnn[{extra}]'"
        ) from error


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error that says something, for messages that must stay on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
