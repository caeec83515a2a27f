"""Finding a model: an nn.Module, or one of the forms in which it can be named."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.converters.base import check_file, model_errors
from edgecnn.converters.factories import copied, make_module
from edgecnn.converters.quiet import quiet
from edgecnn.converters.weights import check_finite, load_weights, read_weights
from edgecnn.converters.zoo import torchvision_model
from edgecnn.errors import ModelError, require
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadedModel", "load_model"]

FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_environment = threading.Lock()  # held while FORCE_WEIGHTS_ONLY is set
FORMS = "torchvision:NAME, package.module:factory, path/file.py:factory, model.pt2 or model.onnx"


@dataclass(frozen=True)
class LoadedModel:
    """A model before conversion.

    Attributes:
        kind: ``torch`` (then ``module`` is set) or ``onnx`` (then ``onnx`` is).
        name: Short name, for files and messages.
        module: In eval mode, float32, on the CPU; nobody else's object.
        onnx: The bytes of the file.
        default_spec: What the model was trained with, where that is known.
        provenance: Where model and weights came from; strings only.
    """

    kind: Literal["torch", "onnx"]
    name: str
    module: nn.Module | None = None
    onnx: bytes = b""
    default_spec: ModelSpec | None = None
    provenance: dict[str, str] = field(default_factory=dict)


def load_model(
    model: nn.Module | str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> LoadedModel:
    """Load a model and put weights into it. The caller's module is copied and stays as it is.

    Args:
        model: A module, or a string: ``torchvision:NAME``, ``package.module:factory``,
            ``path/file.py:factory``, ``path.pt2``, ``path.onnx``.
        weights: A ``.safetensors`` file or a state_dict in a ``.pth``; None keeps what the model has.

    Raises:
        ModelError: The model or its weights cannot be used; the message says why and what to do.
        MissingDependency: torch or onnx is not installed.
    """
    weights_path = None if weights is None else Path(weights)
    if not isinstance(model, (str, os.PathLike)):
        return _from_module(model, weights_path)
    text = os.fspath(model)
    suffix = Path(text).suffix.lower()
    if suffix == ".onnx":
        return _from_onnx(Path(text), weights_path)
    if suffix == ".pt2":
        path = Path(text)
        check_file(path)
        origin = {"weights": "those of the file", "model_sha256": _sha256(path)}
        return _finish(_load_pt2(path), text, path.stem, origin, weights_path)
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise ModelError(f"{text}: {_what_is_wrong(text)}; a model is {FORMS}")
    if source == "torchvision":
        module, spec = torchvision_model(name)
        origin = {"weights": "random (no weights file was given)"}
        return _finish(module, text, name, origin, weights_path, spec)
    short = Path(source).stem if source.endswith(".py") else name
    origin = {"weights": "those of the factory"}
    return _finish(make_module(source, name), text, short, origin, weights_path)


def _what_is_wrong(text: str) -> str:
    path = Path(text)
    if path.suffix == ".py":
        return f"which function makes the model? write {text}:FUNCTION"
    if path.suffix in (".pth", ".pt", ".safetensors", ".th", ".bin"):
        return "weights without a model; name the model and give this file as weights"
    return "not the name of a model"


def _from_module(model: Any, weights: Path | None) -> LoadedModel:
    torch = require("torch", "convert")
    if isinstance(model, torch.export.ExportedProgram):
        return _finish(model.module(), "ExportedProgram", "model", {"weights": "as given"}, weights)
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"a model is an nn.Module or a string, not a {type(model).__name__}; {FORMS}")
    model = _unwrapped(model)
    kind = type(model)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return _finish(copied(model, name), name, kind.__name__.lower(), {"weights": "as given"}, weights)


def _from_onnx(path: Path, weights: Path | None) -> LoadedModel:
    if weights is not None:
        raise ModelError(f"{weights}: {path} holds its own weights; leave weights out")
    onnx = require("onnx", "convert")
    check_file(path)
    with model_errors(f"{path}: cannot be read"):
        data = path.read_bytes()
    provenance = {
        "model": str(path),
        "weights": "those of the file",
        "model_sha256": hashlib.sha256(data).hexdigest(),
        "onnx": onnx.__version__,
    }
    return LoadedModel(kind="onnx", name=path.stem, onnx=data, provenance=provenance)


def _finish(
    module: nn.Module,
    model: str,
    name: str,
    origin: dict[str, str],
    weights: Path | None,
    spec: ModelSpec | None = None,
) -> LoadedModel:
    import torch

    module = _unwrapped(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{model}: TorchScript cannot be converted; give the nn.Module it was made from")
    lazy = [n for n, p in module.named_parameters() if torch.nn.parameter.is_lazy(p)]
    if lazy:
        raise ModelError(f"{model}: {lazy[0]} has no shape yet; run the model once before it is converted")
    provenance = {"model": model, **origin}
    if weights is not None:
        load_weights(module, read_weights(weights), str(weights))
        provenance |= {"weights": weights.name, "weights_sha256": _sha256(weights)}
    if any(p.is_meta for p in module.parameters()):
        raise ModelError(f"{model}: its weights are on the meta device, they have no values; give weights")
    check_finite(module, str(weights or model))
    module = module.cpu().float().requires_grad_(False)
    provenance["torch"] = torch.__version__
    if model.startswith("torchvision:"):
        provenance["torchvision"] = require("torchvision", "convert").__version__
    return LoadedModel(kind="torch", name=name, module=module, default_spec=spec, provenance=provenance)


def _unwrapped(module: nn.Module) -> nn.Module:
    """Take a module out of torch.compile, DataParallel and DistributedDataParallel."""
    from torch import nn

    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif "_orig_mod" in module._modules:  # torch.compile's class is private
            module = module.get_submodule("_orig_mod")
        else:
            return module


def _load_pt2(path: Path) -> nn.Module:
    """Load what torch.export saved; parts of such files may be pickles, and these are refused."""
    torch = require("torch", "convert")
    with model_errors(f"{path}: not a program that torch.export.save wrote"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/opaque_obj" in name or "/custom_obj" in name for name in names):
            raise ModelError(f"{path}: holds pickled objects, which are not loaded; export it without them")
        with _weights_only(), quiet():
            program: nn.Module = torch.export.load(path).module()
    return program


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every torch.load refuse pickles, also those that ask for weights_only=False.

    torch.export.load asks for that itself and lets its caller say nothing, so only the environment is
    left. The lock keeps two loads from undoing each other; a torch.load of another thread is as strict for
    that moment.
    """
    with _environment:
        before = os.environ.get(FORCE_WEIGHTS_ONLY)
        os.environ[FORCE_WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[FORCE_WEIGHTS_ONLY]
            else:
                os.environ[FORCE_WEIGHTS_ONLY] = before


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
