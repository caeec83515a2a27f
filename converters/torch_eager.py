"""Runs a torch module and refuses what no exporter can carry: training modes, shapes, mixed batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from edgecnn.converters.torch_places import module_layer, user_line
from edgecnn.errors import ModelError, first_line
from edgecnn.manifest import sizes_text

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "BATCH_CURE",
    "VALUES_CURE",
    "check_eval",
    "check_first_dimension",
    "check_images",
    "check_runs",
    "named_outputs",
    "run_eager",
]

BATCH_CURE = "flatten with x.flatten(1) or view(x.shape[0], -1), or convert for one batch size (batch=1)"
VALUES_CURE = (
    "the number of its entries depends on the values of the image, which a fixed graph cannot follow; "
    "return one entry for each image and select among them after the model"
)
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
                f"{module_layer(name, layer)} stays in training mode after .eval(); let it follow .train()"
            )
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise ModelError(
                f"{module_layer(name, layer)}: track_running_stats=False normalises by the batch itself, so "
                "an image's result depends on its neighbours; train with running statistics"
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
            return module(batch_nchw.clone())  # forward may change its input in place
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
                f"{module_layer(name, layer)}: input {_shapes(inputs)} shrinks to nothing "
                f"({sizes_text(output.shape)}); {SIZE_CURE}"
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
    where, shapes = module_layer(name, layer), _shapes(inputs)
    kernel = getattr(layer, "kernel_size", None)
    text = first_line(error)
    if kernel is not None and ("Kernel size can't be greater" in text or "too small" in text):
        taps = sizes_text(kernel if isinstance(kernel, tuple) else (kernel, kernel))
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
    check_first_dimension(module, batch_nchw, outputs)
    return outputs


def check_first_dimension(module: nn.Module, batch_nchw: Tensor, outputs: dict[str, Tensor]) -> None:
    """Refuse an output that has not one entry for each image; ``outputs`` are those of the batch.

    Raises:
        ModelError: Names it.
    """
    count = len(batch_nchw)
    for name, value in outputs.items():
        if value.ndim and value.shape[0] == count:
            continue
        if _length_depends_on_values(module, batch_nchw, name, value):
            raise ModelError(f"{name}: {VALUES_CURE}")
        raise ModelError(
            f"{name} is {sizes_text(value.shape)} for {count} images: the batch must be its first "
            f"dimension; {BATCH_CURE}"
        )


def _length_depends_on_values(module: nn.Module, batch_nchw: Tensor, name: str, value: Tensor) -> bool:
    for other in (1 - 2 * batch_nchw, 0 * batch_nchw):
        with suppress(ModelError):  # what fails on these images says nothing of the length
            if named_outputs(run_eager(module, other))[name].shape[:1] != value.shape[:1]:
                return True
    return False


def check_images(module: nn.Module, batch_nchw: Tensor, alone: bool) -> dict[str, Tensor]:
    """Make sure that each image's result is always the same and its own, whatever the others are.

    Args:
        module: In eval mode.
        batch_nchw: Images that differ.
        alone: The module takes any batch: run each image by itself. Otherwise its neighbours are replaced.

    Returns:
        The outputs of the whole batch by name.

    Raises:
        ModelError: Names the output that is random or mixes the images.
    """
    outputs = named_outputs(run_eager(module, batch_nchw))
    count = len(batch_nchw)
    for kept in [[i] for i in range(count)] if alone else _kept_images(count):
        part = batch_nchw[kept] if alone else _with_neighbours_replaced(batch_nchw, kept)
        again = named_outputs(run_eager(module, part))
        for name, value in outputs.items():
            found = again[name] if alone or len(again[name]) != count else again[name][kept]
            if _close(value[kept], found):
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


def _kept_images(count: int) -> list[list[int]]:
    """Sets of images to keep so that of any two images each is once kept while the other is replaced.

    Two numbers differ in a binary digit, so 2 log2(count) sets do where one for each image would be slow.
    The first set is all of them.
    """
    everything = list(range(count))
    sets = [everything]
    for digit in range((count - 1).bit_length()):
        for wanted in (0, 1):
            sets.append([i for i in everything if i >> digit & 1 == wanted])
    return sets


def _with_neighbours_replaced(batch_nchw: Tensor, kept: list[int]) -> Tensor:
    changed = 1 - 2 * batch_nchw
    changed[kept] = batch_nchw[kept]
    return changed


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    tolerance = 1e-3 * max(1e-3, float(first.abs().max())) if first.numel() else 0.0
    return bool(((first - second).abs() <= tolerance).logical_or(first.isnan() & second.isnan()).all())


def _shapes(values: Sequence[Any]) -> str:
    return ", ".join(sizes_text(value.shape) for value in values if hasattr(value, "shape"))
