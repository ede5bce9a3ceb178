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

    ``activation`` are the nodes of the activation: one, the two of a gate x * f(x), or the Reshape
    and the ReduceMax of maxout, which takes the largest of ``pieces`` neighbouring channels.
    ``value`` is what the last of them makes, ``channels`` its channels.
    """

    layer: Node
    batch_norm: Node | None
    activation: tuple[Node, ...]
    value: str
    channels: int
    pieces: int = 1

    @property
    def activation_name(self) -> str:
        """The activation in words."""
        if self.pieces > 1:
            return "maxout"
        return " * ".join(node.op for node in self.activation) or "no activation"

    @property
    def idempotent(self) -> bool:
        """Whether act(act(x)) = act(x) on what stands here."""
        if not self.activation:
            return True
        return len(self.activation) == 1 and rule(self.activation[0].op).idempotent

    @property
    def channelwise(self) -> bool:
        """Whether the activation is a function of single channels, so that it fits any number."""
        gate = len(self.activation) == 2  # x * f(x)
        return all(
            rule(node.op).channelwise or (gate and node.op == "Mul") for node in self.activation
        )

    @property
    def repeatable(self) -> bool:
        """Whether a layer with the same activation can be the identity on what stands here."""
        return self.idempotent or self.pieces > 1


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
    pieces, activation = _maxout(draft, value)
    activation = activation or _activation(graph, value)
    if activation:
        value = activation[-1].output
    channels = draft.shapes[value][rule(node.op).channel_dim]
    assert isinstance(channels, int)
    return Place(node, batch_norm, activation, value, channels, pieces)


def bare_place(draft: Draft, layer: str, where: str) -> Place:
    """The place right behind the layer itself; SpecError when it is none."""
    node = place_behind(draft, layer, where).layer
    channels = draft.shapes[node.output][rule(node.op).channel_dim]
    assert isinstance(channels, int)
    return Place(node, None, (), node.output, channels)


def _only_reader(graph: Graph, value: str) -> Node | None:
    readers = graph.consumers().get(value, [])
    return readers[0] if len(readers) == 1 and value not in graph.outputs else None


def _maxout(draft: Draft, value: str) -> tuple[int, tuple[Node, ...]]:
    """How many neighbouring channels of ``value`` a maxout takes the largest of, and its nodes."""
    graph, shapes = draft.graph, draft.shapes
    apart = _only_reader(graph, value)
    if apart is None or apart.op != "Reshape":
        return 1, ()
    largest = _only_reader(graph, apart.output)
    if largest is None or largest.op != "ReduceMax":
        return 1, ()
    axes, shape = graph.constants.get(largest.input(1)), shapes[apart.output]
    pieces = shape[2] if len(shape) == len(shapes[value]) + 1 else 1
    over_pieces = axes is not None and [int(axis) % len(shape) for axis in axes.values] == [2]
    if not over_pieces or shapes[largest.output] != (*shape[:2], *shapes[value][2:]):
        return 1, ()
    assert isinstance(pieces, int)
    return pieces, (apart, largest)


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
