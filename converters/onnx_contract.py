"""Does a spec fit a bare ONNX model? Its input, the output that holds the scores, the activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgecnn.converters.onnx_shapes import BATCH, real_inputs, tensor_info
from edgecnn.errors import ModelError, SpecError
from edgecnn.manifest import TensorInfo, sizes_text
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

__all__ = ["check_activation", "check_input", "check_outputs", "check_scores", "input_shape"]


class Head(NamedTuple):
    """An output as a decoder reads it: its classes lie on one axis, after some other numbers."""

    shape: str
    rank: int
    axis: int
    others: int


HEADS = {
    "yolo_anchor_free": Head("N×(4+K)×boxes", 3, 1, 4),
    "yolo_anchor_based": Head("N×boxes×(5+K)", 3, 2, 5),
    "fastestdet": Head("N×(5+K)×rows×columns", 4, 1, 5),
    "ssd": Head("N×boxes×K", 3, 2, 0),
}
# nodes that hand a value on as it is, other than in shape
TRANSPARENT = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
# what numpy has under the same name: outputs are handed to the user as numpy arrays
DTYPES = (
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)),
)


def input_shape(model: onnx.ModelProto, spec: ModelSpec) -> tuple[int | str, ...]:
    """Shape of the input with the sizes of the spec: [N, C, H, W] if float, [N, H, W, C] if uint8."""
    info = tensor_info(real_inputs(model)[0])
    batch = info.shape[0] if isinstance(info.shape[0], int) else BATCH
    if info.dtype == "uint8":
        return (batch, *spec.input_shape)
    return (batch, spec.channels, *spec.size_hw)


def check_input(model: onnx.ModelProto, spec: ModelSpec, batch: int | None) -> None:
    """Refuse an input that is neither float32 [N, C, H, W] nor uint8 [N, H, W, C] of the spec's size.

    A uint8 input has its normalisation in the model, so the spec's must be left at its default.

    Raises:
        ModelError: Says what the input is and what it should be.
        SpecError: The spec gives a normalisation that would not be applied.
    """
    info = tensor_info(real_inputs(model)[0])
    found = f"{_titled('input', info.name)} is {info.dtype} {sizes_text(info.shape)}"
    if info.dtype not in ("float32", "uint8") or len(info.shape) != 4:
        raise ModelError(
            f"{found}; edgecnn converts float32 N×C×H×W, or uint8 N×H×W×C with its own preprocessing"
        )
    wanted = input_shape(model, spec)
    if not _fits(info.shape[1:], wanted[1:]):
        if info.dtype == "float32" and _fits(info.shape[1:], spec.input_shape):
            raise ModelError(f"{found}, channels last; export the model with the layout N×C×H×W")
        if info.dtype == "uint8" and _fits(info.shape[1:], (spec.channels, *spec.size_hw)):
            raise ModelError(
                f"{found}, channels first; export the model with uint8 N×H×W×C or float32 N×C×H×W"
            )
        raise ModelError(
            f"{found}, the spec (size_hw {sizes_text(spec.size_hw)}, color {spec.color}) gives "
            f"{sizes_text(wanted)}; change the spec or export the model for that size"
        )
    if info.dtype == "uint8":
        _check_normalisation(found, spec)
    own = info.shape[0]
    if batch is not None and isinstance(own, int) and own != batch:
        raise ModelError(
            f"{found}: its batch is fixed to {own}, it cannot be {batch}; export it with an open batch"
        )


def _check_normalisation(found: str, spec: ModelSpec) -> None:
    plain = ModelSpec(task="tensors", size_hw=spec.size_hw, color=spec.color)
    changed = [name for name in ("scale", "mean", "std") if getattr(spec, name) != getattr(plain, name)]
    if changed:
        raise SpecError(
            f"{', '.join(changed)}: {found}, and what takes uint8 normalises inside; leave them at their "
            "default, or export the model with float32 N×C×H×W"
        )


def _titled(what: str, name: str) -> str:
    return name if name == what else f"{what} {name}"


def _fits(sizes: Sequence[int | str | None], wanted: Sequence[int | str]) -> bool:
    return all(not isinstance(size, int) or size == want for size, want in zip(sizes, wanted))


def check_outputs(model: onnx.ModelProto) -> None:
    """Refuse outputs that are no tensors, or of a dtype that numpy lacks.

    Raises:
        ModelError: Says which output and what it is.
    """
    if not model.graph.output:
        raise ModelError("the model gives no output")
    for value in model.graph.output:
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            raise ModelError(
                f"{_titled('output', value.name)} is a {kind.removesuffix('_type')}; "
                "let the model give tensors"
            )
        dtype = tensor_info(value).dtype
        if dtype not in DTYPES:
            raise ModelError(
                f"{_titled('output', value.name)} is of the dtype {dtype}; let the model cast it to float32"
            )


def check_scores(info: TensorInfo, spec: ModelSpec) -> None:
    """Refuse an output that the task cannot read, or labels and background that do not fit it.

    Args:
        info: The output that holds the scores.
        spec: The task; ``tensors`` reads anything.

    Raises:
        ModelError, SpecError: Says the shape, and which field contradicts it.
    """
    classes = _classes(info, spec)
    # shape inference makes up names such as unk__0 for a batch that it cannot follow
    sizes = [size if i or isinstance(size, int) else BATCH for i, size in enumerate(info.shape)]
    found = f"{_titled('output', info.name)} is {info.dtype} {sizes_text(sizes)}"
    if spec.task != "tensors":
        head = HEADS.get(spec.decoder)
        ranks, shapes = ((1, 2), "N, N×1 or N×K") if head is None else ((head.rank,), head.shape)
        none = isinstance(classes, int) and classes < 1
        if len(info.shape) not in ranks or info.dtype != "float32" or none:
            reader = f"task {spec.task}" if head is None else f"decoder {spec.decoder}"
            raise ModelError(f"{found}; the {reader} reads float32 {shapes}: name it with output=")
        if isinstance(classes, int):
            if spec.labels and len(spec.labels) != classes:
                raise SpecError(f"labels has {len(spec.labels)} names but the model gives {classes} classes")
            if spec.background is not None and spec.background >= classes:
                raise SpecError(
                    f"background is class {spec.background} but the model gives {classes} classes"
                )
    last = info.shape[-1] if len(info.shape) > 1 else 1
    if spec.activation == "softmax" and last == 1:
        raise SpecError(f"activation: {found}, and softmax of one value is always 1.0; use sigmoid")


def _classes(info: TensorInfo, spec: ModelSpec) -> int | str | None:
    """How many classes the output has, where its shape tells."""
    head = HEADS.get(spec.decoder)
    if head is None:
        return info.shape[1] if len(info.shape) == 2 else 1
    size = info.shape[head.axis] if len(info.shape) == head.rank else None
    return size - head.others if isinstance(size, int) else size


def check_activation(model: onnx.ModelProto, chosen: str, spec: ModelSpec) -> None:
    """Refuse to put an activation behind one that the model has itself.

    Raises:
        SpecError: The output already ends in Softmax or Sigmoid.
    """
    if spec.activation == "none":
        return
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(chosen)
    while node is not None and node.op_type in TRANSPARENT:
        node = producers.get(node.input[0])
    if node is not None and node.op_type in ("Softmax", "Sigmoid"):
        raise SpecError(
            f"activation: {_titled('output', chosen)} of the model already ends in {node.op_type} "
            f'({node.name}); set activation = "none"'
        )
