"""Where a model leaves the range of float16."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.converters.onnx_fp16 import HALF
from edgecnn.errors import require
from edgecnn.runtimes import Artifact, RuntimeOptions, backend

__all__ = ["Overflow", "first_overflow"]


@dataclass(frozen=True)
class Overflow:
    """A layer whose result is infinite or NaN in float16 though it is finite in float32.

    Attributes:
        layer: Name of the node.
        op: Its operation.
        tensor: Name of the result.
        value: Its largest magnitude in float32; above 65504 the result itself does not fit.
    """

    layer: str
    op: str
    tensor: str
    value: float


def first_overflow(
    model: bytes, half: bytes, batches: Iterable[npt.NDArray[np.uint8]], *, threads: int | None = None
) -> Overflow | None:
    """Run a model in both precisions and find the first layer that float16 breaks.

    Every tensor inside is made an output: a clamp or a sigmoid may hide what came before it, and where
    there is no float16 arithmetic, as on most CPUs, ONNX Runtime keeps float32 from layer to layer, so
    that the outputs show nothing of what would happen on a GPU. There each result is rounded by itself:
    all that is too large is found, not what comes of small values that turn to 0 on the way.

    Args:
        model: Canonical ONNX in float32.
        half: What `edgecnn.converters.onnx_fp16` made of it.
        batches: uint8 (n, h, w, c) each, of a size that the model takes; all tensors of a batch are in
            memory together, in both precisions.
        threads: Threads of the engine; None is all processors.

    Returns:
        The first in the order of the graph that any batch showed, or None.
    """
    onnx = require("onnx", "convert")
    exact, rounded = (onnx.shape_inference.infer_shapes(onnx.load_from_string(m)) for m in (model, half))
    suspects = _suspects(exact, rounded)
    found = None
    options = RuntimeOptions(threads=threads)
    with (
        backend("ort")(_exposed(exact, [s.tensor for s in suspects]), options) as in_float,
        backend("ort")(_exposed(rounded, [s.twin for s in suspects]), options) as in_half,
    ):
        image = in_float.inputs[0].name
        for images in batches:
            wanted, given = in_float.run({image: images}), in_half.run({image: images})
            for position, suspect in enumerate(suspects):
                values = wanted[suspect.tensor]
                if (np.isfinite(values) & ~np.isfinite(given[suspect.twin])).any():
                    found = Overflow(suspect.layer, suspect.op, suspect.tensor, float(np.abs(values).max()))
                    # batches to come can only name an earlier one
                    del suspects[position:]
                    break
    return found


@dataclass(frozen=True)
class _Suspect:
    """A tensor, its name in the float16 model, and what makes it."""

    layer: str
    op: str
    tensor: str
    twin: str


def _suspects(exact: Any, rounded: Any) -> list[_Suspect]:
    """All float tensors that both models have, in the order of the graph."""
    floats, halves = _float_tensors(exact), _float_tensors(rounded)
    return [
        _Suspect(node.name or node.op_type, node.op_type, name, twin)
        for node in exact.graph.node
        for name in node.output
        for twin in [name + HALF if name + HALF in halves else name]
        if name in floats and twin in halves
    ]


def _float_tensors(model: Any) -> set[str]:
    onnx = require("onnx", "convert")
    return {
        value.name
        for value in (*model.graph.value_info, *model.graph.output)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }


def _exposed(model: Any, tensors: list[str]) -> Artifact:
    onnx = require("onnx", "convert")
    given = {value.name for value in model.graph.output}
    # without a type: the engine infers it
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in given)
    return Artifact(format="onnx", content=model.SerializeToString())
