"""Bare ONNX → canonical ONNX: uint8 [N, H, W, C] in, scores first, arithmetic inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import Arrow, Step, model_errors, run_chain
from edgecnn.converters.network import network
from edgecnn.converters.onnx_contract import (
    check_activation,
    check_input,
    check_outputs,
    check_scores,
    input_shape,
)
from edgecnn.converters.onnx_file import OnnxFile
from edgecnn.converters.onnx_names import free_name
from edgecnn.converters.onnx_opset import OnnxToOlderOpset
from edgecnn.converters.onnx_rewrites import rewrite
from edgecnn.converters.onnx_shapes import infer, real_inputs, tensor_info
from edgecnn.converters.reference import reference_module
from edgecnn.converters.torch_eager import BATCH_CURE
from edgecnn.converters.torch_onnx import TorchToOnnx
from edgecnn.errors import ModelError, SpecError, require
from edgecnn.manifest import Network, TensorInfo, sizes_text
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgecnn.converters.load import LoadedModel

__all__ = ["IMAGE", "SCORES", "Canonical", "OnnxToCanonical", "canonical"]

IMAGE = "image"
SCORES = "scores"


@dataclass(frozen=True)
class Canonical:
    """The model that all artifacts are derived from.

    Attributes:
        model: ONNX bytes. Input ``image`` uint8 [N, H, W, C], channels in the order of spec.color. The
            first output is the one that spec.output names: ``scores`` after the activation, or as the
            model calls it where there is none. The others keep their names and order.
        inputs, outputs: As in the graph; ``batch`` stands for an open batch.
        network: Layers of the model as it was given, without preprocessing and activation; ``params`` is
            the module's own count where there is one.
        reference: What to compare with: for torch a module from uint8 [N, H, W, C] to the outputs as a
            tuple in their order, for an ONNX file its bytes as they were.
        opset: Version of the ONNX operators that the model uses.
        steps: The conversions that ran.
    """

    model: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    network: Network
    reference: Any
    opset: int
    steps: tuple[Step, ...]


def canonical(
    loaded: LoadedModel, spec: ModelSpec, *, batch: int | None = None, opset: int | None = None
) -> Canonical:
    """Convert a loaded model to the canonical ONNX model.

    Args:
        loaded: From `load_model`.
        spec: What it wants and gives.
        batch: Convert for this batch size only; None leaves it open, or as an ONNX file has it.
        opset: The newest that all who read it know; None is what the exporter or the file uses.

    Raises:
        ModelError: The model cannot be converted; names the layer and the reason.
        SpecError: The spec does not fit the model.
    """
    first: Arrow[Any, Any]
    source: Any
    if loaded.module is not None:
        first, source = TorchToOnnx(spec, batch, opset), loaded.module
        params = sum(p.numel() for p in loaded.module.parameters())
    else:
        first, source, params = OnnxFile(loaded.provenance.get("model", loaded.name)), loaded.onnx, None
    older = [OnnxToOlderOpset(opset)] if opset is not None else []
    (bare, *_, made), steps = run_chain(source, [first, OnnxToCanonical(spec, batch), *older])
    if loaded.module is not None:
        reference: Any = reference_module(loaded.module, spec, spec.output)
    else:
        reference = loaded.onnx
    return Canonical(
        model=made.SerializeToString(),
        inputs=tuple(tensor_info(value) for value in made.graph.input),
        outputs=tuple(tensor_info(value) for value in made.graph.output),
        network=network(bare, _fixed(input_shape(bare, spec), 1), params),
        reference=reference,
        opset=next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx")),
        steps=steps,
    )


@dataclass(frozen=True)
class OnnxToCanonical(Arrow["onnx.ModelProto", "onnx.ModelProto"]):
    """Puts preprocessing before a model and the activation behind it.

    Attributes:
        spec: What the model wants and gives.
        batch: Fix the batch; None leaves it as it is.
    """

    spec: ModelSpec
    batch: int | None = None

    name = "onnx_canonical"

    def requires(self, source: onnx.ModelProto) -> None:
        """One input that the spec fits, and an output that the task, labels and activation fit."""
        require("onnx_ir", "convert")
        check_input(source, self.spec, self.batch)
        check_outputs(source)
        names = [value.name for value in source.graph.output]
        chosen = self._chosen(source)
        kept = names if self.spec.activation == "none" else [name for name in names if name != chosen]
        taken = {IMAGE} if self.spec.activation == "none" else {IMAGE, SCORES}
        if taken & set(kept):
            name = (taken & set(kept)).pop()
            raise ModelError(f"the model has an output of the name {name!r}, which edgecnn needs; rename it")
        shapes = infer(source, _fixed(input_shape(source, self.spec), self.batch))
        check_scores(shapes[chosen], self.spec)
        check_activation(source, chosen, self.spec)

    def convert(self, source: onnx.ModelProto) -> onnx.ModelProto:
        """Insert Cast, Transpose, Mul, Add in front and Softmax or Sigmoid behind."""
        with model_errors("preprocessing and activation cannot be put into it"):
            return self._rewritten(source)

    def _rewritten(self, source: onnx.ModelProto) -> onnx.ModelProto:
        import onnx_ir as ir

        shape = _fixed(input_shape(source, self.spec), self.batch)
        shapes = infer(source, shape)
        model = ir.from_proto(source)
        rewrite(model, shapes)
        graph = model.graph
        pixels = next(v for v in graph.inputs if v.name == real_inputs(source)[0].name)
        chosen = next(v for v in graph.outputs if v.name == self._chosen(source))
        outputs = [chosen, *(v for v in graph.outputs if v is not chosen)]
        infos = [shapes[str(v.name)] for v in outputs]
        names = [str(v.name) for v in outputs]
        if self.spec.activation != "none":
            free_name(graph, SCORES)
            names[0] = SCORES
        free_name(graph, IMAGE)
        image = pixels
        if pixels.dtype == ir.DataType.FLOAT:
            image = ir.Value(type=ir.TensorType(ir.DataType.UINT8))
            _preprocess(graph, image, pixels, self.spec)
            shape = (shape[0], *shape[2:], shape[1])
        image.name, image.shape = IMAGE, ir.Shape(shape)
        graph.inputs[:] = [image]
        if self.spec.activation != "none":
            outputs[0] = _activate(graph, chosen, self.spec.activation)
        graph.outputs[:] = outputs
        proto: onnx.ModelProto = ir.to_proto(model)
        del proto.graph.value_info[:], proto.graph.output[:]
        proto.graph.output.extend(_output(n, info, shape[0]) for n, info in zip(names, infos))
        return proto

    def ensures(self, source: onnx.ModelProto, target: onnx.ModelProto) -> None:
        """Check validity, and names, dtype, order and batch of the input and the outputs."""
        import onnx

        with model_errors("the canonical model is not valid"):
            onnx.checker.check_model(target, full_check=True)
        graph = target.graph
        image = tensor_info(graph.input[0])
        if len(graph.input) != 1 or (image.name, image.dtype) != (IMAGE, "uint8"):
            raise ModelError(
                f"the canonical model takes {[v.name for v in graph.input]}, not one uint8 {IMAGE}"
            )
        chosen = self._chosen(source)
        first = SCORES if self.spec.activation != "none" else chosen
        wanted = [first, *(v.name for v in source.graph.output if v.name != chosen)]
        found = [v.name for v in graph.output]
        if found != wanted:
            raise ModelError(f"the canonical model gives {', '.join(found)}, not {', '.join(wanted)}")
        for value in graph.output:
            sizes = tensor_info(value).shape
            if not sizes or sizes[0] != image.shape[0]:
                raise ModelError(
                    f"output {value.name} is {sizes_text(sizes)} for an input of {sizes_text(image.shape)}: "
                    f"the batch must be its first dimension; {BATCH_CURE}"
                )

    def _chosen(self, source: onnx.ModelProto) -> str:
        names: list[str] = [value.name for value in source.graph.output]
        if self.spec.output is None:
            return names[0]
        if self.spec.output not in names:
            raise SpecError(
                f"output: the model has no output {self.spec.output!r}, it gives {', '.join(names)}"
            )
        return self.spec.output


def _fixed(shape: Sequence[int | str], batch: int | None) -> tuple[int | str, ...]:
    return tuple(shape) if batch is None else (batch, *shape[1:])


def _preprocess(graph: ir.Graph, image: ir.Value, pixels: ir.Value, spec: ModelSpec) -> None:
    """``(p * scale - mean) / std`` as ``p * a + b`` with a = scale / std and b = -mean / std, per channel.

    The cast comes first: TensorRT can do nothing else with bytes, and ONNX Runtime takes no longer.
    """
    import numpy as np
    import onnx_ir as ir

    std = np.asarray(spec.std, np.float64)
    factor, offset = spec.scale / std, -np.asarray(spec.mean, np.float64) / std
    steps: list[tuple[str, list[ir.Value], dict[str, Any]]] = [
        ("Cast", [], {"to": ir.DataType.FLOAT}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ]
    for op, values, neutral in (("Mul", factor, 1.0), ("Add", offset, 0.0)):
        if (values != neutral).any():
            name = f"edgecnn.preprocess.{op.lower()}"
            tensor = ir.tensor(values.astype(np.float32).reshape(1, -1, 1, 1), name=name)
            constant = ir.Value(name=name, const_value=tensor)
            graph.register_initializer(constant)
            steps.append((op, [constant], {}))
    value = image
    first = graph[0] if len(graph) else None
    for position, (op, constants, attributes) in enumerate(steps):
        name = f"edgecnn.preprocess.{position}"
        out = pixels if position == len(steps) - 1 else ir.Value(name=name)
        if out is pixels:
            graph.inputs.clear()  # a node may not give what is still an input
        node = ir.node(op, [value, *constants], attributes, outputs=[out], name=f"edgecnn/{op}")
        if first is None:
            graph.append(node)
        else:
            graph.insert_before(first, node)
        value = out


def _activate(graph: ir.Graph, chosen: ir.Value, activation: str | None) -> ir.Value:
    import onnx_ir as ir

    op, attributes = ("Softmax", {"axis": -1}) if activation == "softmax" else ("Sigmoid", {})
    scores = ir.Value(name=SCORES)
    graph.append(ir.node(op, [chosen], attributes, outputs=[scores], name=f"edgecnn/{op}"))
    return scores


def _output(name: str, info: TensorInfo, batch: int | str) -> onnx.ValueInfoProto:
    import numpy as np
    import onnx

    sizes = list(info.shape)
    if sizes and not isinstance(sizes[0], int) and isinstance(batch, str):
        sizes[0] = batch
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(info.dtype))
    return onnx.helper.make_tensor_value_info(name, elem_type, sizes)
