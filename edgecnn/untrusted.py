"""ONNX files are strangers': each is parsed, converted and run in a child process before it is let in here.

What onnx's checker passes can still take an engine down, time without end, or all memory.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from edgecnn.converters.base import Step
from edgecnn.converters.load import LoadedModel
from edgecnn.converters.onnx_canonical import Canonical, canonical
from edgecnn.errors import EngineError, ModelError
from edgecnn.isolation import NO_HURRY, Limits, run_isolated
from edgecnn.manifest import Network, TensorInfo
from edgecnn.reference import reference_for
from edgecnn.runtimes import Artifact, backend
from edgecnn.spec import ModelSpec

__all__ = ["canonical_of"]


class _Made(msgspec.Struct):
    """A `Canonical` on its way between two processes."""

    model: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    network: Network
    opset: int
    steps: tuple[tuple[str, float], ...]


def canonical_of(
    loaded: LoadedModel,
    spec: ModelSpec,
    *,
    batch: int | None = None,
    opset: int | None = None,
    limits: Limits = NO_HURRY,
) -> Canonical:
    """As `canonical`; of an ONNX file in a child process, which also runs the file and what was made of it.

    Raises:
        ModelError: The model cannot be converted or run, or the child died of it.
        SpecError: The spec does not fit the model.
    """
    if loaded.kind != "onnx":
        return canonical(loaded, spec, batch=batch, opset=opset)
    name = loaded.provenance.get("model", loaded.name)
    answer = run_isolated(
        "edgecnn.untrusted:convert_and_run",
        {
            "model": loaded.onnx,
            "name": name,
            "spec": spec.to_dict(),
            "batch": batch,
            "opset": opset,
        },
        what=f"{name}: its conversion and first run",
        cure="export the model again",
        limits=limits,
    )
    made = msgspec.convert(answer, _Made)
    return Canonical(
        model=made.model,
        inputs=made.inputs,
        outputs=made.outputs,
        network=made.network,
        reference=loaded.onnx,
        opset=made.opset,
        steps=tuple(Step(step, seconds) for step, seconds in made.steps),
    )


def convert_and_run(
    model: bytes, name: str, spec: dict[str, Any], batch: int | None, opset: int | None
) -> dict[str, Any]:
    """What runs in the child: the fields of a `Canonical`, once it and the file itself gave answers."""
    loaded = LoadedModel(kind="onnx", name=name, onnx=model, provenance={"model": name})
    checked = ModelSpec.from_dict(spec)
    made = canonical(loaded, checked, batch=batch, opset=opset)
    count = made.inputs[0].shape[0]
    images = np.zeros((count if isinstance(count, int) else 1, *checked.input_shape), np.uint8)
    try:
        with backend("ort")(Artifact(format="onnx", content=made.model, name=name)) as runtime:
            runtime.run({runtime.inputs[0].name: images})
        reference_for(loaded, made, checked)(images)
    except EngineError as error:
        raise ModelError(str(error)) from error
    passed: dict[str, Any] = msgspec.to_builtins(
        _Made(
            made.model,
            made.inputs,
            made.outputs,
            made.network,
            made.opset,
            tuple((step.name, step.seconds) for step in made.steps),
        ),
        builtin_types=(bytes,),
    )
    return passed
