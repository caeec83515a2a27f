"""What makes a torch module unfit for conversion, found and named before an exporter stumbles on it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = [
    "BATCH_CURE",
    "check_eval",
    "check_first_dimension",
    "check_graph",
    "check_images",
    "check_runs",
    "named_outputs",
    "node_layer",
    "run_eager",
    "user_line",
]

BATCH_CURE = "flatten with x.flatten(1) or view(x.shape[0], -1), or convert for one batch size (batch=1)"
SIZE_CURE = "use a larger size_hw or less downsampling"


def check_eval(module: nn.Module) -> None:
    """Put a module into eval mode and refuse what still behaves as in training.

    Raises:
        ModelError: Names the layer that stays in training mode or has no running statistics.
    """
    import torch

    if isinstance(module, torch.fx.GraphModule) and not _has_eval(module):
        return  # an exported program: what it does in training is found in its graph
    module.eval()
    for name, layer in module.named_modules():
        if layer.training:
            raise ModelError(
                f"{_layer(name, layer)} stays in training mode after .eval(); let it follow .train()"
            )
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise ModelError(
                f"{_layer(name, layer)}: track_running_stats=False normalises by the batch itself, so an "
                "image's result depends on its neighbours; train with running statistics"
            )


def _has_eval(module: nn.Module) -> bool:
    try:
        module.eval()
    except NotImplementedError:
        return False
    return True


def run_eager(module: nn.Module, batch_nchw: Tensor) -> Any:
    """Run a module as it is, watching its layers.

    Raises:
        ModelError: Names the deepest layer that failed or gave nothing, its input and the reason.
    """
    import torch

    running: list[tuple[str, nn.Module, Sequence[Any]]] = []
    with _watched(module, running), _one_thread(), torch.inference_mode():
        try:
            return module(batch_nchw)
        except ModelError:
            raise
        except Exception as error:  # forward is the user's code and may raise anything
            raise ModelError(_explain(running, error)) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: a few images gain nothing from more, and on a busy machine they lose 50×."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _watched(module: nn.Module, running: list[tuple[str, nn.Module, Sequence[Any]]]) -> Iterator[None]:
    import torch

    def enter(name: str) -> Any:
        return lambda layer, inputs: running.append((name, layer, inputs))

    def leave(layer: nn.Module, inputs: Any, output: Any) -> None:
        name, _, _ = running.pop()
        if torch.is_tensor(output) and output.numel() == 0:
            raise ModelError(
                f"{_layer(name, layer)}: input {_shapes(inputs)} shrinks to nothing "
                f"({shape_text(output)}); {SIZE_CURE}"
            )

    handles = []
    for name, layer in module.named_modules(remove_duplicate=True):
        handles.append(layer.register_forward_pre_hook(enter(name)))
        handles.append(layer.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _explain(running: list[tuple[str, nn.Module, Sequence[Any]]], error: Exception) -> str:
    if not running:
        return f"forward: {first_line(error)}"
    name, layer, inputs = running[-1]
    where, shapes = _layer(name, layer), _shapes(inputs)
    kernel = getattr(layer, "kernel_size", None)
    text = first_line(error)
    if kernel is not None and ("Kernel size can't be greater" in text or "too small" in text):
        taps = "×".join(map(str, kernel)) if isinstance(kernel, tuple) else f"{kernel}×{kernel}"
        return f"{where}: input {shapes} is smaller than its kernel {taps}; {SIZE_CURE}"
    if "Guard failed" in text:
        return (
            f"it was exported for another input than {shapes}: {text.removeprefix('Guard failed: ')}; "
            "change size_hw or batch, or export it with an open batch"
        )
    line = user_line(error)
    return f"{where}: fails on input {shapes}{f' at {line}' if line else ''}: {text}"


def named_outputs(outputs: Any) -> dict[str, Tensor]:
    """Tensors of a module's result by name, in order.

    A single tensor is ``output``; dict keys and fields of a namedtuple keep their names, entries of a
    tuple or list are ``output_0``, ``output_1``; nested ones are joined with dots.

    Raises:
        ModelError: Something in it is not a tensor.
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves, _ = pytree.tree_flatten_with_path(outputs)
    named: dict[str, Tensor] = {}
    for path, value in leaves:
        name = ".".join(map(_key_name, path)) or "output"
        name = f"output_{name}" if name[0].isdigit() else name
        if not torch.is_tensor(value):
            raise ModelError(
                f"forward returns a {type(value).__name__} as {name}; return tensors, alone or in a dict, "
                "tuple or list"
            )
        if name in named:
            raise ModelError(f"forward returns two outputs of the name {name}; rename one of the keys")
        named[name] = value
    if not named:
        raise ModelError("forward returns no tensor; return tensors, alone or in a dict, tuple or list")
    return named


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def check_runs(module: nn.Module, batch_nchw: Tensor) -> dict[str, Tensor]:
    """Run a module on one image and on all of a batch.

    Returns:
        The outputs of the whole batch by name.

    Raises:
        ModelError: Names the layer that fails, or the output whose first dimension is not the batch.
    """
    named_outputs(run_eager(module, batch_nchw[:1]))
    try:
        outputs = named_outputs(run_eager(module, batch_nchw))
    except ModelError as error:
        raise ModelError(
            f"works with one image but not with {len(batch_nchw)}: {error}; {BATCH_CURE}"
        ) from error
    check_first_dimension(outputs, len(batch_nchw))
    return outputs


def check_first_dimension(outputs: dict[str, Tensor], count: int) -> None:
    """Refuse an output that has not one entry for each image.

    Raises:
        ModelError: Names it.
    """
    for name, value in outputs.items():
        if value.ndim == 0 or value.shape[0] != count:
            raise ModelError(
                f"{name} is {shape_text(value)} for {count} images: the batch must be its first dimension; "
                + BATCH_CURE
            )


def check_images(module: nn.Module, batch_nchw: Tensor, alone: bool) -> dict[str, Tensor]:
    """Make sure that each image's result is always the same and, if ``alone``, its own.

    Returns:
        The outputs of the whole batch by name.

    Raises:
        ModelError: Names the output that is random or mixes the images.
    """
    outputs = named_outputs(run_eager(module, batch_nchw))
    parts = [image[None] for image in batch_nchw] if alone else [batch_nchw]
    repeated = [named_outputs(run_eager(module, part)) for part in parts]
    for name, value in outputs.items():
        pieces = value.chunk(len(parts))
        if all(_close(piece, again[name]) for piece, again in zip(pieces, repeated)):
            continue
        if not _close(value, named_outputs(run_eager(module, batch_nchw))[name]):
            raise ModelError(
                f"{name} differs between two runs on the same input: forward draws random numbers"
            )
        raise ModelError(
            f"{name} of an image depends on the other images of its batch or on their number; "
            "make forward treat each image alone"
        )
    return outputs


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    tolerance = 1e-3 * max(1e-3, float(first.abs().max())) if first.numel() else 0.0
    return bool(((first - second).abs() <= tolerance).logical_or(first.isnan() & second.isnan()).all())


def check_graph(program: ExportedProgram) -> None:
    """Refuse operations that behave as in training or draw random numbers.

    Raises:
        ModelError: Names the layer, the operation and the line of forward.
    """
    import torch

    for graph_module in program.graph_module.modules():
        if not isinstance(graph_module, torch.fx.GraphModule):
            continue
        for node in graph_module.graph.nodes:
            if not isinstance(node.target, torch._ops.OpOverload):
                continue
            op = node.target._schema.name.split("::")[-1]
            training = _argument(node, ("train", "training"))
            if training:
                raise ModelError(
                    f"{node_layer(node)}: {op} with training=True; use a layer that follows .eval() or pass "
                    "training=self.training"
                )
            random = torch.Tag.nondeterministic_seeded in node.target.tags
            if random and training is None and not _argument(node, ("dropout_p",)) == 0.0:
                raise ModelError(
                    f"{node_layer(node)}: {op} draws random numbers, so results cannot be repeated; "
                    "take it out of the eval path"
                )


def _argument(node: Any, names: Sequence[str]) -> Any:
    """Value of the operation's first argument with one of these names, its default, or None."""
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name in names:
            if position < len(node.args):
                return node.args[position]
            return node.kwargs.get(argument.name, argument.default_value)
    return None


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


def _layer(name: str, layer: nn.Module) -> str:
    return f"{name or 'forward'} ({type(layer).__name__})"


def _shapes(values: Sequence[Any]) -> str:
    return ", ".join(shape_text(value) for value in values if hasattr(value, "shape"))


def shape_text(value: Tensor) -> str:
    """``1×3×32×32``."""
    return "×".join(map(str, value.shape)) or "a scalar"
