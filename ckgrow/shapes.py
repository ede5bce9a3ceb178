"""The shape of every value of a graph, from the header's shapes and each op's rule."""

from __future__ import annotations

from collections.abc import Mapping

from ckgrow.errors import GraphError
from ckgrow.graph import Graph, Shape
from ckgrow.header import Header
from ckgrow.ops import Site, rule

Shapes = Mapping[str, Shape]


def infer_shapes(graph: Graph, header: Header) -> Shapes:
    """Shapes of inputs, parameters, constants and values by name.

    Raises GraphError when a tensor is missing or does not fit the node that reads it.
    """
    shapes: dict[str, Shape] = dict(graph.inputs)
    shapes |= {name: constant.shape for name, constant in graph.constants.items()}
    for name in graph.parameters():
        if name not in header:
            raise GraphError(f"the graph needs a tensor {name!r} that the checkpoint lacks")
        shapes[name] = header.shape(name)
    for node in graph.nodes:
        site = Site.of(node, shapes, graph.constants)
        results = rule(node.op).shapes(site)
        shapes.update(zip((name for name in node.outputs), results, strict=True))
    return shapes
