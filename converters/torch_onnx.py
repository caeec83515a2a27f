"""torch.nn.Module → bare ONNX: float32 [N, C, H, W] in, the module's outputs by name out."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import Arrow
from edgecnn.converters.torch_checks import (
    BATCH_CURE,
    check_eval,
    check_first_dimension,
    check_graph,
    check_images,
    check_runs,
    named_outputs,
    node_layer,
    run_eager,
    user_line,
)
from edgecnn.errors import ModelError, first_line, require
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["BATCH", "TorchToOnnx", "export"]

BATCH = "batch"
INPUT = "input"
OPSET = 20
IR_VERSION = 9  # the one that came with opset 20: older engines read it too


@dataclass(frozen=True)
class TorchToOnnx(Arrow["nn.Module", "onnx.ModelProto"]):
    """Exports with torch.export and a symbolic batch.

    Attributes:
        spec: Gives the size of the input.
        batch: Convert for this batch size only; None leaves it open.
    """

    spec: ModelSpec
    batch: int | None = None

    name = "torch_onnx"

    def requires(self, source: nn.Module) -> None:
        """Eval mode that holds, and a forward that runs on the sizes of the spec."""
        require("onnxscript", "convert")
        if self.batch is not None and self.batch < 1:
            raise ModelError(f"batch must be at least 1, not {self.batch}")
        check_eval(source)
        with _quiet():
            if self.batch is None:
                check_runs(source, self._sample())
            else:
                check_first_dimension(named_outputs(run_eager(source, self._sample())), self.batch)

    def convert(self, source: nn.Module) -> onnx.ModelProto:
        """Export; weights inlined, constants folded, BatchNorm merged where it follows a convolution."""
        import torch

        sample, open_batch = self._sample(), self.batch is None
        with _quiet(), torch.no_grad():
            program = _trace(source, sample, open_batch)
            check_graph(program)
            names = list(check_images(source, sample, alone=open_batch))
            return _translate(program, sample, names, open_batch)

    def ensures(self, source: nn.Module, target: onnx.ModelProto) -> None:
        """Check for a valid model whose batch is what was asked for, at its input and at every output."""
        import onnx

        onnx.checker.check_model(target, full_check=True)
        batch = self.batch or BATCH
        for value in [*target.graph.input, *target.graph.output]:
            first = value.type.tensor_type.shape.dim[0]
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
    """Export a module to ONNX with input ``input`` float32 [N, C, H, W], normalised.

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
            raise ModelError(f"{at}: works for a batch of {len(sample)} only; {BATCH_CURE}") from error
        raise ModelError(f"{at}: cannot be exported ({first_line(error)})") from error


def _translate(
    program: ExportedProgram, sample: Tensor, outputs: list[str], open_batch: bool
) -> onnx.ModelProto:
    import torch

    try:
        exported = torch.onnx.export(
            program,
            (sample,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=outputs,
            opset_version=OPSET,
            dynamic_shapes=({0: BATCH},) if open_batch else None,
            external_data=False,
            optimize=True,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(_unsupported(program, error)) from error
    if exported is None:
        raise ModelError("torch.onnx gave no model")
    made: onnx.ModelProto = exported.model_proto
    made.ir_version = min(made.ir_version, IR_VERSION)
    _name_layers(made)
    del made.metadata_props[:]
    for node in made.graph.node:
        del node.metadata_props[:]
    return made


def _name_layers(model: onnx.ModelProto) -> None:
    """Name each node after the module it came from, so that reports speak of the user's layers.

    A convolution that BatchNorm was merged into bears the trace of the BatchNorm, but its weight kept its
    name. Several nodes of one module are numbered.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        own = next((name for name in node.input if name in weights and name.endswith(".weight")), None)
        traces = [p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        scopes = ast.literal_eval(traces[0]) if traces else []
        module = own.removesuffix(".weight") if own else scopes[-2] if len(scopes) > 1 else ""
        name = module or node.op_type.lower()
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}#{seen[name]}"


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
    on = f" on an input of N×{'×'.join(map(str, value.shape[1:]))}" if hasattr(value, "shape") else ""
    cure = "use another layer, or sizes that divide evenly"
    return f"{node_layer(node)}: ONNX has no form of {_operation(node)}{on}; {cure}"


def _operation(node: Any) -> str:
    return str(node.target._schema.name.split("::")[-1])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch and onnx warn and log of themselves; what matters is raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
