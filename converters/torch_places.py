"""Places in the user's model, as messages name them: the layer, and the file and line of its code."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["module_layer", "node_layer", "user_line"]


def module_layer(name: str, layer: nn.Module) -> str:
    """``name (Class)`` of a layer; the whole model has no name and is ``forward``."""
    return f"{name or 'forward'} ({type(layer).__name__})"


def node_layer(node: Any) -> str:
    """``name (Class)`` of the layer that a node of an exported graph belongs to, with file and line."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else kind.__name__
    layer = f"{name or 'forward'} ({kind.rpartition('.')[2]})" if kind else "forward"
    frames = [line.strip() for line in node.meta.get("stack_trace", "").splitlines() if "File " in line]
    place = frames[-1].split('"') if frames else []
    if len(place) == 3 and _is_users(place[1]):
        line = place[2].split(",")[1].strip().removeprefix("line ")
        return f"{layer}, {Path(place[1]).name}:{line}"
    return layer


def user_line(error: BaseException) -> str:
    """``file.py:12 (source text)`` of the deepest frame of the user's own code, or nothing."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_users(frame.filename) and frame.line
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""


def _is_users(file: str) -> bool:
    """Tell the user's files from torch's, from these and from code that was made up (``<string>``)."""
    import torch

    path = Path(file)
    ours = path.parent == Path(__file__).parent
    return not (file.startswith("<") or ours or Path(torch.__file__).parent in path.parents)
