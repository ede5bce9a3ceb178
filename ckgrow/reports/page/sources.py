"""What the channels of a value of the student are, as far as its record tells."""

from __future__ import annotations

from ckgrow.graph import Graph, Node
from ckgrow.maps import ChannelMap
from ckgrow.ops import rule
from ckgrow.provenance import Provenance


def input_map(graph: Graph, record: Provenance, layer: str) -> ChannelMap | None:
    """The map of what a layer reads; None where it cannot be told.

    A flatten repeats the map, which is left to whoever knows the length. This is for pictures: a
    proof propagates maps through every op by its own rule.
    """
    node = graph.node(layer)
    if node.get("group", 1) > 1:  # its columns count inside each group
        return None
    return _of_value(graph, record, node.input(0))


def readers(graph: Graph, layer: str) -> list[str]:
    """The next layers behind a layer, in the graph's order."""
    reached = set(graph.node(layer).outputs)
    found = []
    for node in graph.nodes:
        if reached.isdisjoint(node.inputs):
            continue
        if rule(node.op).makes_channels:
            found.append(node.name)
        else:
            reached.update(node.outputs)
    return found


def _of_value(graph: Graph, record: Provenance, value: str) -> ChannelMap | None:
    producers = graph.producers()
    while value in producers:
        node = producers[value]
        if node.name in record.origins:
            return record.origins[node.name].map
        if node.op == "Concat":
            return _of_concatenation(graph, record, node)
        value = next((name for name in node.inputs if name in producers), node.input(0))
    return record.interface.get(value)


def _of_concatenation(graph: Graph, record: Provenance, node: Node) -> ChannelMap | None:
    maps = [_of_value(graph, record, name) for name in node.inputs]
    known = [each for each in maps if each is not None]
    return ChannelMap.concat(known) if len(known) == len(maps) else None
