"""Concatenations, and the layer that a new branch of one can be modelled on.

All branches of a concatenation are computed from one value, the last that all of them depend on.
A new branch reads that value through a layer like one of a given branch that makes a map of the
right size of it in one step: one with one tap if there is any, the named layer, or another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ckgrow.drafts.blocks import rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.places import Place, place_behind
from ckgrow.drafts.renaming import is_inside
from ckgrow.errors import GraphError, SpecError
from ckgrow.graph import Graph, Node
from ckgrow.names import by
from ckgrow.ops import Site, rule


@dataclass(frozen=True)
class Junction:
    """A concatenation, the value that its branches read, and the nodes of each of them."""

    concat: Node
    fork: str
    branches: tuple[tuple[Node, ...], ...]


def junction(draft: Draft, name: str, where: str) -> Junction:
    """The concatenation of a block, or the one that a layer or branch flows into."""
    graph = draft.graph
    inside = [node for node in graph.nodes if is_inside(node.name, name)]
    concat = _block_end(graph, inside) or _downstream(graph, inside)
    if concat is None:
        raise SpecError(
            f"{where}: {name} flows into no concatenation, so no branch can be appended there; "
            "say 'at: sum' for a path beside it"
        )
    operands = [graph.ancestors(value) for value in concat.inputs]
    common = set.intersection(*operands)
    values = [*graph.inputs, *(value for node in graph.nodes for value in node.outputs)]
    fork = next((value for value in reversed(values) if value in common), None)
    if fork is None:
        raise SpecError(
            f"{where}: the branches of {concat.name} read no value in common, so a new one has "
            "nothing to read"
        )
    before = graph.ancestors(fork)
    branches = tuple(
        tuple(node for node in graph.nodes if node.output in each - before) for each in operands
    )
    if not any(is_inside(node.name, name) for branch in branches for node in branch):
        layers = (node.name for branch in branches for node in branch if _is_layer(node))
        raise SpecError(
            f"{where}: {name} stands in front of the branches of {concat.name}, not in one of "
            f"them; name a layer of a branch, for instance {next(layers, 'the last one')}"
        )
    return Junction(concat, fork, branches)


def _block_end(graph: Graph, inside: list[Node]) -> Node | None:
    """The concatenation that a block ends with: what it makes is read outside of the block."""
    names = {node.name for node in inside}
    readers = graph.consumers()
    ends = [
        node
        for node in inside
        if node.op == "Concat" and any(r.name not in names for r in readers.get(node.output, ()))
    ]
    return ends[-1] if ends else None


def _downstream(graph: Graph, inside: list[Node]) -> Node | None:
    """The first concatenation that is computed from any of these nodes."""
    later = graph.descendants(*(value for node in inside for value in node.outputs))
    concats = (node for node in graph.nodes if node.op == "Concat")
    return next((node for node in concats if not later.isdisjoint(node.inputs)), None)


def model_of(draft: Draft, found: Junction, name: str, where: str) -> Place:
    """The place of the layer that a new branch is modelled on; SpecError where none will do."""
    inside = [
        branch for branch in found.branches if any(is_inside(node.name, name) for node in branch)
    ]
    for layer in _candidates(draft, [node for branch in inside for node in branch], name):
        if _fits(draft, found, layer):
            place = place_behind(draft, layer.name, where)
            if place.channelwise:
                return place
    sizes = draft.shapes[found.concat.inputs[0]][2:], draft.shapes[found.fork][2:]
    made, read = map(by, sizes)
    if made == read:
        raise SpecError(
            f"{where}: {name} has no layer that a new branch of {found.concat.name} could be "
            "modelled on: one that keeps the size of the map, with floating-point weights and an "
            "activation that is a function of single channels"
        )
    raise SpecError(
        f"{where}: no layer of {name} makes a map of {made} of the one of {read} that the "
        f"branches of {found.concat.name} read; name a branch with a layer that does so in one "
        "step"
    )


def _is_layer(node: Node) -> bool:
    return rule(node.op).makes_channels


def _candidates(draft: Draft, nodes: Iterable[Node], name: str) -> Iterator[Node]:
    """Layers to model a branch on: those with one tap, the named one, then the others."""
    layers = [
        node
        for node in nodes
        if _is_layer(node)
        and node.inputs[1] in draft.recipes
        and draft.recipes[node.inputs[1]].spec.is_float
    ]
    yield from (each for each in layers if all(size == 1 for size in _kernel(draft, each)))
    yield from (each for each in layers if is_inside(each.name, name))
    yield from layers


def _kernel(draft: Draft, layer: Node) -> tuple[int, ...]:
    return draft.recipes[layer.inputs[1]].spec.shape[2:]


def _fits(draft: Draft, found: Junction, layer: Node) -> bool:
    """Whether such a layer makes an operand of the concatenation of what its branches read."""
    wanted = draft.shapes[found.concat.inputs[0]]
    read = draft.shapes[found.fork]
    dim = rule(layer.op).channel_dim % len(wanted)
    if found.concat.get("axis", 1) % len(wanted) != dim or len(read) != len(wanted):
        return False
    channels = read[dim]
    assert isinstance(channels, int)
    shape = weight_shape(draft, layer, channels)
    like = reading(layer, found.fork, layer.inputs[1])
    try:
        (made,) = rule(layer.op).shapes(Site(like, (read, shape), (None, None)))
    except GraphError:
        return False
    return (*made[:dim], *made[dim + 1 :]) == (*wanted[:dim], *wanted[dim + 1 :])


def weight_shape(draft: Draft, layer: Node, channels: int) -> tuple[int, ...]:
    """A weight like the layer's, ungrouped, that makes no channels yet."""
    sides = (0, channels) if rows_of(layer) == 0 else (channels, 0)
    return (*sides, *_kernel(draft, layer))


def reading(layer: Node, value: str, *tensors: str) -> Node:
    """A layer like this one, ungrouped, that reads ``value`` with ``tensors``."""
    attributes = {**layer.attributes, "group": 1} if layer.op == "Conv" else layer.attributes
    return replace(layer, inputs=(value, *tensors), attributes=attributes)
