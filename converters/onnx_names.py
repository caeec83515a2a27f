"""Names of values in an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["free_name"]


def free_name(graph: ir.Graph, name: str) -> None:
    """Give each value of a graph, and of those inside it, that has this name another one."""
    import onnx_ir as ir

    values = [*graph.inputs, *graph.initializers.values()]
    for node in ir.traversal.RecursiveGraphIterator(graph):
        values.extend(node.outputs)
    taken = {value.name for value in values}
    for value in values:
        if value.name == name:
            fresh = f"{name}_of_model"
            while fresh in taken:
                fresh += "_"
            value.name = fresh
