"""torch.nn.Module → bare ONNX: float32 [N, C, H, W] in, the module's outputs by name out."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import Arrow, model_errors
from edgecnn.converters.onnx_names import free_name
from edgecnn.converters.onnx_shapes import BATCH
from edgecnn.converters.quiet import quiet
from edgecnn.converters.torch_eager import (
    BATCH_CURE,
    VALUES_CURE,
    check_eval,
    check_first_dimension,
    check_images,
    check_runs,
    named_outputs,
    run_eager,
)
from edgecnn.converters.torch_graph import check_graph
from edgecnn.converters.torch_places import node_layer, user_line
from edgecnn.errors import ModelError, first_line, require
from edgecnn.manifest import sizes_text
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["TorchToOnnx", "export"]

INPUT = "input"
OPSET = 20
OLDEST_EXPORT = 18
SMALL = 1e-6  # the optimiser's tolerance is 1e-8
FILE_MAX = 2**31 - 1  # bytes that protobuf holds
IR_VERSION = 9  # the one that came with opset 20: older engines read it too


@dataclass(frozen=True)
class TorchToOnnx(Arrow["nn.Module", "onnx.ModelProto"]):
    """Exports with torch.export and a symbolic batch.

    Attributes:
        spec: Gives the size of the input.
        batch: Convert for this batch size only; None leaves it open.
        opset: The newest that may be used; the exporter itself goes no lower than `OLDEST_EXPORT`.
    """

    spec: ModelSpec
    batch: int | None = None
    opset: int | None = None

    name = "torch_onnx"

    def requires(self, source: nn.Module) -> None:
        """Eval mode that holds, and a forward that runs on the sizes of the spec."""
        require("onnxscript", "convert")
        if self.batch is not None and self.batch < 1:
            raise ModelError(f"batch must be at least 1, not {self.batch}")
        weights = sum(t.numel() * t.element_size() for t in [*source.parameters(), *source.buffers()])
        if weights > FILE_MAX:
            raise ModelError(
                f"its weights are {weights / 1e9:.1f} GB, and the ONNX file that all else is made from holds "
                f"{FILE_MAX / 1e9:.1f} GB at most; use a smaller network"
            )
        check_eval(source)
        with quiet():
            if self.batch is None:
                check_runs(source, self._sample())
            else:
                sample = self._sample()
                check_first_dimension(source, sample, named_outputs(run_eager(source, sample)))

    def convert(self, source: nn.Module) -> onnx.ModelProto:
        """Export; weights inlined, constants folded, BatchNorm merged where it follows a convolution."""
        import torch

        sample, open_batch = self._sample(), self.batch is None
        with quiet(), torch.no_grad():
            program = _trace(source, sample, open_batch)
            check_graph(program)
            names = list(check_images(source, sample, alone=open_batch))
            opset = OPSET if self.opset is None else min(OPSET, max(OLDEST_EXPORT, self.opset))
            return _translate(program, sample, names, open_batch, opset)

    def ensures(self, source: nn.Module, target: onnx.ModelProto) -> None:
        """Check for a valid model whose batch is what was asked for, at its input and at every output."""
        import onnx

        with model_errors("the exported model is not valid"):
            onnx.checker.check_model(target, full_check=True)
        batch = self.batch or BATCH
        for value in [*target.graph.input, *target.graph.output]:
            first = value.type.tensor_type.shape.dim[0]
            if re.fullmatch(r"u\d+", first.dim_param):  # torch's symbol for a size that data decide
                raise ModelError(f"{value.name}: {VALUES_CURE}")
            if (first.dim_param or first.dim_value) != batch:
                raise ModelError(
                    f"the batch of {value.name} became {first.dim_param or first.dim_value}, not {batch}; "
                    + BATCH_CURE
                )

    def _sample(self) -> Tensor:
        """Images of noise around zero, as normalised ones are; the same each time."""
        import torch

        generator = torch.Generator().manual_seed(0)
        shape = (self.batch or 2, self.spec.channels, *self.spec.size_hw)
        return torch.randn(shape, generator=generator)


def export(module: nn.Module, spec: ModelSpec, *, batch: int | None = None) -> onnx.ModelProto:
    """Export a module to ONNX with one input float32 [N, C, H, W], normalised.

    The module is put into eval mode.

    Raises:
        ModelError: It cannot be converted; names the layer and the reason.
    """
    return TorchToOnnx(spec, batch)(module)


def _trace(module: nn.Module, sample: Tensor, open_batch: bool) -> ExportedProgram:
    import torch

    shapes = ({0: torch.export.Dim(BATCH)},) if open_batch else None
    try:
        # torch prints the graph so far when it stops at a value that depends on data
        with contextlib.redirect_stderr(io.StringIO()):
            return torch.export.export(module, (sample,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export lets through whatever forward raises under tracing
        text, line = str(error), user_line(error)
        at = f"forward, {line}" if line else "forward"
        if "data-dependent" in text:
            raise ModelError(
                f"{at}: what forward does depends on the values of the image, which a fixed graph cannot "
                "follow; use torch.where or move it out of the model"
            ) from error
        if "Constraints violated" in text or "specialized" in text:
            check_graph(_trace(module, sample, False))  # what is random is worse than a fixed batch
            raise ModelError(
                f"{at}: works for a batch of {len(sample)} only; len(x) and int(x.shape[0]) fix the batch, "
                f"x.shape[0] does not; {BATCH_CURE}"
            ) from error
        raise ModelError(f"{at}: cannot be exported ({first_line(error)})") from error


def _translate(
    program: ExportedProgram, sample: Tensor, outputs: list[str], open_batch: bool, opset: int
) -> onnx.ModelProto:
    import torch

    try:
        exported = torch.onnx.export(
            program,
            (sample,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[f"edgecnn.output.{i}" for i in range(len(outputs))],
            opset_version=opset,
            dynamic_shapes=({0: BATCH},) if open_batch else None,
            external_data=False,
            optimize=False,
        )
        if exported is not None:
            _keep_small_terms(exported.model)
            exported.optimize()
    except Exception as error:  # the exporter has a class of its own, its optimiser raises anything
        raise ModelError(_unsupported(program, error)) from error
    if exported is None:
        raise ModelError("torch.onnx gave no model")
    graph = exported.model.graph
    for value, name in zip(graph.outputs, outputs):
        free_name(graph, name)  # the exporter calls its own values mean, relu or as the weights
        value.name = name
    made: onnx.ModelProto = exported.model_proto
    made.ir_version = min(made.ir_version, IR_VERSION)
    _name_layers(made)
    del made.metadata_props[:]
    for node in made.graph.node:
        del node.metadata_props[:]
    return made


def _keep_small_terms(model: ir.Model) -> None:
    """Give a number that is nearly 0 an axis where it is added: the exporter's optimiser takes it for 0.

    Without the axis it would leave out what keeps a divisor or a logarithm away from 0.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import IdentityEliminationPass

    IdentityEliminationPass()(model)
    for node in model.graph:
        if node.op_type not in ("Add", "Sub"):
            continue
        for position, (value, other) in enumerate(zip(node.inputs, reversed(node.inputs))):
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if tensor is None or tensor.shape or other is None or not other.shape:
                continue
            if 0 < abs(tensor.numpy()) < SMALL:
                name = f"{node.outputs[0].name}.{position}"
                term = ir.Value(name=name, const_value=ir.tensor(tensor.numpy().reshape(1)))
                model.graph.register_initializer(term)
                node.replace_input_with(position, term)


def _name_layers(model: onnx.ModelProto) -> None:
    """Name each node after the module it came from, so that reports speak of the user's layers.

    A convolution that BatchNorm was merged into bears the trace of the BatchNorm, but its weight kept its
    name. Several nodes of one module are numbered.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        own = next((name for name in node.input if name in weights and name.endswith(".weight")), None)
        module = own.removesuffix(".weight") if own else _module_of(node)
        name = module or node.op_type.lower()
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}#{seen[name]}"


def _module_of(node: onnx.NodeProto) -> str:
    """The module that the exporter says a node came from, or nothing.

    It writes the list of the names on the way down, the node's own last, and promises no form of it.
    """
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(prop.value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return ""
            if isinstance(scopes, list) and len(scopes) > 1:
                return str(scopes[-2])
    return ""


def _unsupported(program: ExportedProgram, error: BaseException) -> str:
    """Name the layer whose operation the exporter does not know."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    failed = re.search(r"op='\w+\.(\w+)'", str(causes[-1]))
    # the exporter takes operations apart first: rrelu fails as rrelu_with_noise_functional
    known = [
        node
        for node in program.graph.nodes
        if failed and hasattr(node.target, "_schema") and failed[1].startswith(_operation(node))
    ]
    if not known:
        return f"torch.onnx cannot convert it ({first_line(causes[-1])})"
    node = max(known, key=lambda node: len(_operation(node)))
    value: Any = node.args[0].meta.get("val") if hasattr(node.args[0], "meta") else None
    on = f" on an input of {sizes_text(('N', *value.shape[1:]))}" if hasattr(value, "shape") else ""
    cure = "use another layer, or sizes that divide evenly"
    return f"{node_layer(node)}: ONNX has no form of {_operation(node)}{on}; {cure}"


def _operation(node: Any) -> str:
    return str(node.target._schema.name.split("::")[-1])
