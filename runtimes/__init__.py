"""Inference engines, one file each; the file's name is the runtime's name.

A runtime file defines ``class Backend(Runtime)``. It is imported when its runtime is asked for,
so an engine that is not installed costs nothing until then.
"""

from __future__ import annotations

import importlib
from pkgutil import iter_modules

from edgecnn.errors import InputError
from edgecnn.runtimes.base import Artifact, Feeds, Outputs, Runtime, RuntimeOptions

__all__ = ["Artifact", "Feeds", "Outputs", "Runtime", "RuntimeOptions", "backend", "known"]


def known() -> list[str]:
    """Names of the runtimes in this folder, installed or not."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "base")


def backend(name: str) -> type[Runtime]:
    """The runtime class of a name; imports its file, not yet its engine.

    Raises:
        InputError: No such runtime.
    """
    if name not in known():
        raise InputError(f"no runtime {name!r}; there are {', '.join(known())}")
    found: type[Runtime] = importlib.import_module(f"{__name__}.{name}").Backend
    return found
