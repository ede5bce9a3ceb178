"""Places behind a layer where new layers can stand: what follows it, and whether it can repeat."""

from __future__ import annotations

from dataclasses import dataclass

from ckgrow.drafts.draft import Draft
from ckgrow.errors import SpecError
from ckgrow.graph import Graph, Node
from ckgrow.ops import rule
from ckgrow.ops.elementwise import Passing


@dataclass(frozen=True)
class Place:
    """Behind a layer, its BatchNorm and its activation, each if there.

    ``activation`` are the nodes of the activation: one, or the two of a gate x * f(x).
    ``value`` is what the last of them makes, ``channels`` its channels.
    """

    layer: Node
    batch_norm: Node | None
    activation: tuple[Node, ...]
    value: str
    channels: int

    @property
    def activation_name(self) -> str:
        """The activation in words."""
        return " * ".join(node.op for node in self.activation) or "no activation"

    @property
    def idempotent(self) -> bool:
        """Whether act(act(x)) = act(x) on what stands here."""
        if not self.activation:
            return True
        return len(self.activation) == 1 and rule(self.activation[0].op).idempotent


def place_behind(draft: Draft, layer: str, where: str) -> Place:
    """The place behind the layer called ``layer``; SpecError when it is none."""
    graph = draft.graph
    node = graph.node(layer)
    if not rule(node.op).makes_channels:
        raise SpecError(f"{where}: {layer} is a {node.op}, behind which no layer can be inserted")
    value = node.output
    batch_norm = _only_reader(graph, value)
    if batch_norm is not None and batch_norm.op == "BatchNormalization":
        value = batch_norm.output
    else:
        batch_norm = None
    activation = _activation(graph, value)
    if activation:
        value = activation[-1].output
    channels = draft.shapes[value][rule(node.op).channel_dim]
    assert isinstance(channels, int)
    return Place(node, batch_norm, activation, value, channels)


def bare_place(draft: Draft, layer: str, where: str) -> Place:
    """The place right behind the layer itself; SpecError when it is none."""
    place = place_behind(draft, layer, where)
    return Place(place.layer, None, (), place.layer.output, place.channels)


def _only_reader(graph: Graph, value: str) -> Node | None:
    readers = graph.consumers().get(value, [])
    return readers[0] if len(readers) == 1 and value not in graph.outputs else None


def _activation(graph: Graph, value: str) -> tuple[Node, ...]:
    reader = _only_reader(graph, value)
    if reader is not None:
        known = rule(reader.op)
        active = known.elementwise and not isinstance(known, Passing)
        return (reader,) if active or reader.op == "PRelu" else ()
    readers = graph.consumers().get(value, [])
    if len(readers) == 2 and value not in graph.outputs:
        gates = [node for node in readers if rule(node.op).elementwise]
        products = [node for node in readers if node.op == "Mul"]
        if gates and products and gates[0].output in products[0].inputs:
            return (gates[0], products[0])
    return ()
