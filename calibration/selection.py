"""Which range each tensor gets: the one that harms the network's output least, as measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.activations import OnProgress, runs
from edgecnn.calibration.layers import constant, tensor_groups
from edgecnn.calibration.observers import Observation, merged
from edgecnn.calibration.ranges import RECIPES, TINY, QuantParams, quant_params, value_range
from edgecnn.errors import InputError
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["AUTO", "Selected", "select_ranges"]

AUTO = "auto"

# more images rank the ranges hardly better
IMAGES_MAX = 24
# scales that differ by less are not told apart
SAME_SCALE = 0.01

# inputs of a model under trial; no tensor of a converted network is called so
SCALE, ZERO_POINT = "edgecnn.scale", "edgecnn.zero_point"


@dataclass(frozen=True)
class Selected:
    """The range of one tensor.

    Attributes:
        params: Scale and zero point.
        low, high: The range that they were made from.
        method: The recipe that it comes from.
        error: Error of the network's output with nothing in 8 bits but the tensors that share this scale;
            None where there was no choice.
    """

    params: QuantParams
    low: float
    high: float
    method: str
    error: float | None = None


def select_ranges(
    model: ir.Model,
    tensors: Sequence[str],
    observations: Mapping[str, Observation],
    images: npt.NDArray[np.uint8],
    *,
    method: str = AUTO,
    symmetric: bool,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Selected]:
    """Choose a range for each tensor; those of `tensor_groups` share one.

    What the layers behind a tensor cannot tell apart, as below -3 for HardSwish, is left out of its range.

    With ``auto`` the ranges of all recipes are tried, one group at a time in a network that is otherwise
    float: no recipe is best everywhere, as a histogram cannot tell whether rare large values matter. With
    p the outputs then and f those in float, both in front of a Softmax at the end, the one is taken with
    the least error ::

        error = sqrt(mean over the outputs of (sum (p - f)**2 / sum f**2))

    and of equal ones the widest.

    Args:
        model: Canonical network with one input, uint8 (n, h, w, c).
        tensors: Names of float32 tensors in it.
        observations: What was seen of each of them.
        images: uint8 (n, h, w, c); up to 24, evenly spread over them, are run.
        method: Name of a recipe, or ``auto``.
        symmetric: int8 with zero point 0, else uint8.
        threads: Threads of the engine; None is all processors.
        on_progress: Called after each group with the groups done and the number of all.

    Raises:
        InputError: The method is unknown, or there are fewer images than the model runs at once.
    """
    if method not in (AUTO, *RECIPES):
        raise InputError(f"method: {method!r} is none of {', '.join((AUTO, *RECIPES))}")
    trial = _Trial(model, images, symmetric, RuntimeOptions(threads=threads)) if method == AUTO else None
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    groups = tensor_groups(model, tensors)
    found: dict[str, Selected] = {}
    for done, group in enumerate(groups, 1):
        seen = merged(observations[name] for name in group)
        useful = _union(_useful(values[name]) for name in group)
        choices = _choices(seen, useful, list(RECIPES) if method == AUTO else [method], symmetric)
        if trial and len(choices) > 1:
            errors = trial.errors(group, [choice.params for choice in choices])
            choices = [replace(choice, error=error) for choice, error in zip(choices, errors)]
        best = min(choices, key=lambda choice: choice.error or 0.0)
        found.update(dict.fromkeys(group, best))
        if on_progress:
            on_progress(done, len(groups))
    return {name: found[name] for name in tensors}


def _choices(
    seen: Observation, useful: tuple[float, float], methods: Sequence[str], symmetric: bool
) -> list[Selected]:
    """What the recipes suggest, the widest first, without those that are as good as the same."""
    suggested = []
    for method in methods:
        low, high = value_range(seen, RECIPES[method], symmetric=symmetric)
        low, high = max(low, useful[0], min(seen.low, 0.0)), min(high, useful[1], max(seen.high, 0.0))
        if symmetric:
            high = max(-low, high)
            low = -high
        suggested.append(Selected(quant_params(low, high, symmetric=symmetric), low, high, method))
    choices: list[Selected] = []
    for each in sorted(suggested, key=lambda each: -each.params.scale):
        if not any(_alike(each.params, other.params) for other in choices):
            choices.append(each)
    return choices


def _alike(one: QuantParams, other: QuantParams) -> bool:
    return (
        math.isclose(one.scale, other.scale, rel_tol=SAME_SCALE)
        and abs(one.zero_point - other.zero_point) <= 1
    )


def _useful(value: ir.Value) -> tuple[float, float]:
    """The widest range outside which all layers that read a tensor take a value for the bound."""
    if value.is_graph_output():
        return -math.inf, math.inf
    return _union(_bounds(node) for node, _ in value.uses())


def _union(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges)
    return min(0.0, *lows), max(0.0, *highs)


def _bounds(node: ir.Node) -> tuple[float, float]:
    if node.op_type == "HardSwish":
        return -3.0, math.inf
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type == "Clip":
        ends = [constant(value) for value in (*node.inputs[1:], None, None)[:2]]
        low, high = (None if end is None else float(end) for end in ends)
        return (-math.inf if low is None else low), (math.inf if high is None else high)
    return -math.inf, math.inf


class _Trial:
    """Measures what a scale does to the output; what does not depend on it is run once for all scales."""

    def __init__(
        self, model: ir.Model, images: npt.NDArray[np.uint8], symmetric: bool, options: RuntimeOptions
    ) -> None:
        import onnx_ir as ir
        from onnx_ir.passes.common import ShapeInferencePass

        # tensors at which the graph is cut need a type
        self._model = ShapeInferencePass()(model.clone()).model
        self._zero_type = ir.DataType.INT8 if symmetric else ir.DataType.UINT8
        self._options = options
        graph = self._model.graph
        for node in graph:
            # where it is sure of a class, a Softmax hides what happened before it
            logits = node.inputs[0] if node.op_type == "Softmax" else None
            if logits is not None and node.outputs[0].is_graph_output() and not logits.is_graph_output():
                graph.outputs[graph.outputs.index(node.outputs[0])] = logits
        image = graph.inputs[0]
        self._image = str(image.name)
        self._batches = _batches(images, image.shape[0] if image.shape else None)
        with self._open(self._model.graph) as runtime:
            self._wanted = [[*runtime.run({self._image: batch}).values()] for batch in self._batches]

    def errors(self, tensors: Sequence[str], choices: Sequence[QuantParams]) -> list[float]:
        """The error of the output with nothing but the tensors in 8 bits, for each choice."""
        import onnx_ir as ir

        graph = self._quantised(tensors)
        cut, behind = _split(graph)
        reached = [
            (index, value)
            for index, value in enumerate(graph.outputs)
            if value in behind and value.dtype == ir.DataType.FLOAT
        ]
        if not reached:
            return [0.0] * len(choices)
        extract = ir.convenience.extract
        first = extract(self._model.graph, [self._image], cut)
        second = extract(graph, [*cut, SCALE, ZERO_POINT], [value for _, value in reached])
        signal = np.zeros(len(reached))
        noise = np.zeros((len(choices), len(reached)))
        with self._open(first) as before, self._open(second) as after:
            for batch, outputs in zip(self._batches, self._wanted):
                wanted = [outputs[index].astype(np.float64) for index, _ in reached]
                signal += [np.square(each).sum() for each in wanted]
                feeds = before.run({self._image: batch})
                for each, params in zip(noise, choices):
                    feeds[SCALE] = np.array(params.scale, np.float32)
                    feeds[ZERO_POINT] = np.array(params.zero_point, np.int8 if params.signed else np.uint8)
                    each += [np.square(p - f).sum() for p, f in zip(after.run(feeds).values(), wanted)]
        return [float(error) for error in np.sqrt((noise / np.maximum(signal, TINY)).mean(1))]

    def _open(self, graph: ir.Graph) -> Runtime:
        import onnx_ir as ir

        model = ir.to_proto(ir.Model(graph, ir_version=self._model.ir_version))
        return backend("ort")(Artifact(format="onnx", content=model.SerializeToString()), self._options)

    def _quantised(self, tensors: Sequence[str]) -> ir.Graph:
        """The network with tensors rounded to 8 bits; their scale and zero point are inputs."""
        import onnx_ir as ir

        graph = self._model.clone().graph
        params = [ir.val(SCALE, ir.DataType.FLOAT, []), ir.val(ZERO_POINT, self._zero_type, [])]
        graph.inputs.extend(params)
        for value, maker in [(value, node) for node in graph for value in node.outputs]:
            if value.name not in tensors:
                continue
            quantize = ir.node("QuantizeLinear", [None, *params])
            dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *params])
            dequantize.outputs[0].dtype = ir.DataType.FLOAT
            ir.convenience.replace_all_uses_with(value, dequantize.outputs[0], replace_graph_outputs=True)
            quantize.replace_input_with(0, value)
            graph.insert_after(maker, [quantize, dequantize])
        return graph


def _split(graph: ir.Graph) -> tuple[list[str], set[ir.Value]]:
    """Names of what those nodes read that depend on the scale and do not make it, and what they make."""
    behind = {value for value in graph.inputs if value.name in (SCALE, ZERO_POINT)}
    read: dict[ir.Value, None] = {}
    for node in graph:
        if not behind.isdisjoint(node.inputs):
            behind.update(node.outputs)
            read.update(dict.fromkeys(value for value in node.inputs if value is not None))
    return [str(value.name) for value in read if value not in behind and constant(value) is None], behind


def _batches(images: npt.NDArray[np.uint8], size: Any) -> list[npt.NDArray[np.uint8]]:
    most = max(IMAGES_MAX, size) if isinstance(size, int) else IMAGES_MAX
    picked = np.linspace(0, len(images) - 1, min(len(images), most)).round().astype(int)
    return list(runs([images[picked]], size))
