"""Reading weight files without running code that they hold, and putting them into a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import check_file, model_errors
from edgecnn.converters.quiet import quiet
from edgecnn.errors import ModelError, first_line, require
from edgecnn.manifest import sizes_text

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["check_finite", "load_weights", "read_weights"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin")
# names under which training scripts put the state_dict, and prefixes that wrappers add to its keys
NESTS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU; a state_dict inside a checkpoint is found.

    Raises:
        ModelError: Missing, of an unknown kind, damaged, or a pickle that would have to run code.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path}: weights are a file of the kind {', '.join(SUFFIXES)}")
    check_file(path, "weights file")
    _check_content(path)
    data = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    return _state_dict(data, path)


def _check_content(path: Path) -> None:
    """Refuse what downloads and clones leave in the place of a file."""
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise ModelError(f"{path}: not a weights file: it is a web page; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path}: not a weights file: it is a Git LFS pointer; fetch the real file with git lfs pull"
        )


def _read_safetensors(path: Path) -> Any:
    load_file = require("safetensors.torch", "convert").load_file
    with model_errors(f"{path}: not a safetensors file"):
        return load_file(path, device="cpu")


def _read_pickle(path: Path) -> Any:
    torch = require("torch", "convert")
    try:
        with quiet():  # torch warns of TorchScript archives before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on a damaged file
        text = str(error)
        if "GLOBAL" in text or "Unsupported" in text or "TorchScript" in text or "persistent id" in text:
            raise ModelError(
                f"{path}: holds more than tensors and would run code when loaded; where the model was "
                f'trained, write the weights alone: torch.save(model.state_dict(), "weights.pth")'
            ) from error
        raise ModelError(f"{path}: not a weights file of torch ({first_line(error, 160)})") from error


def _state_dict(data: Any, path: Path) -> dict[str, Tensor]:
    import torch

    for _ in range(2):
        nested = [k for k in NESTS if isinstance(data, Mapping) and isinstance(data.get(k), Mapping)]
        if not nested:
            break
        data = data[nested[0]]
    entries = data if isinstance(data, Mapping) else {}
    tensors = {k: v for k, v in entries.items() if isinstance(k, str) and torch.is_tensor(v)}
    if not tensors:
        holds = f"the keys {_some([str(k) for k in entries])}" if entries else f"a {type(data).__name__}"
        raise ModelError(
            f"{path}: holds no weights by name but {holds}; "
            f'save them with torch.save(model.state_dict(), "weights.pth")'
        )
    return tensors


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a module; all must fit, and wrappers' prefixes of the names are dropped.

    Raises:
        ModelError: Names the keys that are missing, unexpected, of another shape or quantised.
    """
    wanted = module.state_dict()
    found = dict(weights)
    for prefix in PREFIXES:
        if all(k.startswith(prefix) for k in found) and not any(k.startswith(prefix) for k in wanted):
            found = {k[len(prefix) :]: v for k, v in found.items()}
    # BatchNorm's counter is used in training only; files of old torch versions lack it
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in found if k not in wanted]
    other = [
        f"{k} is {sizes_text(found[k].shape)}, the model has {sizes_text(wanted[k].shape)}"
        for k in wanted
        if k in found and found[k].shape != wanted[k].shape
    ]
    if missing or unexpected or other:
        parts = [
            f"{len(keys)} {what} ({_some(keys)})"
            for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
            if keys
        ]
        raise ModelError(f"{where}: weights of another architecture: {'; '.join(parts)}")
    whole = [
        f"{k} is {str(found[k].dtype).removeprefix('torch.')}"
        for k in wanted
        if k in found and wanted[k].is_floating_point() and not found[k].is_floating_point()
    ]
    if whole:
        raise ModelError(
            f"{where}: {len(whole)} weights are not floating point, as in a quantised model "
            f"({_some(whole)}); give those of the model in float32"
        )
    with model_errors(f"{where}: the weights cannot be copied into the model"):
        module.load_state_dict(found, strict=False)


def check_finite(module: nn.Module, where: str) -> None:
    """Refuse weights that are NaN or infinite; an infinite buffer may be a mask and is left alone.

    Raises:
        ModelError: Names the tensors.
    """
    import torch

    statistics = ("running_mean", "running_var")
    bad = [name for name, value in module.named_parameters() if not torch.isfinite(value).all()]
    for name, value in module.named_buffers():
        broken = ~torch.isfinite(value) if name.endswith(statistics) else torch.isnan(value)
        if broken.any():
            bad.append(name)
    if bad:
        raise ModelError(f"{where}: {len(bad)} weights hold NaN or infinity ({_some(bad)}); train again")


def _some(keys: Sequence[str]) -> str:
    shown = [key if key.isprintable() else repr(key) for key in keys[:SHOWN]]
    return ", ".join(shown) + (", …" if len(keys) > SHOWN else "")
