"""Models that come from the user's own code: ``package.module:factory`` and ``path/file.py:factory``."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import check_file, model_errors, suggest
from edgecnn.errors import ModelError, first_line, require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["copied", "make_module"]

PREFIX = "edgecnn_model_"


def make_module(source: str, factory_name: str) -> nn.Module:
    """Import a file or module and call its factory without arguments.

    What lies beside a file is imported for this one load only: the next file may have a ``helper.py`` of
    its own. A module of a dotted name is imported as Python does, for all.

    Args:
        source: ``path/file.py`` or the dotted name of a module; the current directory is searched too.
        factory_name: A function or class that gives an nn.Module, or a module itself.

    Returns:
        What the factory made, to be changed at will; of a module, a copy.

    Raises:
        ModelError: It cannot be imported, has no such factory, or that gives no nn.Module; an error in
            the user's code is reported with file and line.
    """
    require("torch", "convert")
    from torch import nn

    where = f"{source}:{factory_name}"
    with _search_path(source):
        code = _import(source)
        if not hasattr(code, factory_name):
            public = [name for name, value in vars(code).items() if callable(value) and name[0] != "_"]
            raise ModelError(f"{source}: has no {factory_name!r}{suggest(factory_name, public)}")
        factory = getattr(code, factory_name)
        if isinstance(factory, nn.Module):
            return copied(factory, where)
        if not callable(factory):
            raise ModelError(f"{where}: a {type(factory).__name__}, not a function that makes the model")
        _check_no_arguments(factory, where)
        made = _guarded(factory, where)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{where}: gave {_describe(made)}, a factory returns a torch.nn.Module")
    return made


def copied(module: nn.Module, where: str) -> nn.Module:
    """Copy a module that somebody else holds.

    Raises:
        ModelError: It cannot be copied: deepcopy runs code of every class it meets.
    """
    with model_errors(f"{where}: cannot be copied"):
        return copy.deepcopy(module)


def _check_no_arguments(factory: Any, where: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if needed:
        raise ModelError(
            f"{where}: needs {', '.join(needed)}, but a factory is called without arguments; "
            "name a function that fills them in"
        )


def _describe(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _import(source: str) -> ModuleType:
    if not source.endswith(".py"):
        found: ModuleType = _guarded(lambda: importlib.import_module(source), source)
        return found
    path = Path(source)
    check_file(path)
    # the folder tells apart two files of one name
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path}: cannot be imported")
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # dataclasses and torch.export look their module up there
    loader = spec.loader
    _guarded(lambda: loader.exec_module(code), source)
    return code


@contextlib.contextmanager
def _search_path(source: str) -> Iterator[None]:
    """Let imports work as if the file were run, or the module from the current directory."""
    file = source.endswith(".py")
    folder = Path(source).resolve().parent if file else Path.cwd()
    # where the program itself finds its modules, what is imported belongs to the program
    alone = file and folder not in (Path(entry or ".").resolve() for entry in sys.path)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have cleaned up itself
            sys.path.remove(str(folder))
        if alone:
            _forget(folder, set(sys.modules) - before)


def _forget(folder: Path, names: set[str]) -> None:
    """Drop modules that were found in a folder, and what they hold; those installed deeper in it stay."""
    tops = {name for name in names if "." not in name and _home(sys.modules[name]) == folder}
    for name in names:
        if name.partition(".")[0] in tops and not name.startswith(PREFIX):
            sys.modules.pop(name, None)


def _home(module: ModuleType) -> Path | None:
    """The folder of a module's file, or the one that a package's folder lies in."""
    known = getattr(module, "__dict__", {})  # not by getattr: a lazy module would start to load
    places = [*(known.get("__path__") or ()), known.get("__file__")]
    return Path(places[0]).resolve().parent if places[0] else None


def _guarded(call: Any, where: str) -> Any:
    """Run the user's code; what it raises becomes one line that names file and line."""
    try:
        return call()
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{_place(error) or where}: {type(error).__name__}: {first_line(error)}") from error


def _place(error: BaseException) -> str:
    """``file:line`` of the last frame that is neither Python's own nor an installed package's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith((sys.base_prefix, "<"))
        and Path(frame.filename) != Path(__file__)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
