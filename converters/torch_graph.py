"""Reads the graph of an exported program and refuses operations that do not give the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgecnn.converters.torch_places import node_layer
from edgecnn.errors import ModelError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["check_graph"]


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
