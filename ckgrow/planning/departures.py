"""Where a network departs from a published one, in words: before growth, and behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckgrow.drafts.draft import Draft
from ckgrow.graph import Node
from ckgrow.names import first_few, shown

Layers = Mapping[str, str]


def obstacles(own: Draft, target: Draft, layers: Layers) -> Iterator[str]:
    """What growth cannot change, or only the other way; ``layers`` leads to the target's."""
    yield from _operations(own, target)
    for name, there in layers.items():
        yield from _between(own, own.graph.node(name), target, target.graph.node(there))


def departures(own: Draft, target: Draft) -> Iterator[str]:
    """All that is not as in the target: names and shapes of tensors, then what is computed."""
    if missing := [name for name in target.header if name not in own.header]:
        yield f"it lacks {_listed(missing)}"
    if spare := [name for name in own.header if name not in target.header]:
        yield f"its {_listed(spare)} has no place there"
    for name, spec in target.header.items():
        if name in own.header and own.header.shape(name) != spec.shape:
            yield f"{name} is {list(own.header.shape(name))}, there {list(spec.shape)}"
    nodes = {node.name: node for node in own.graph.nodes}
    for node in target.graph.nodes:
        mine = nodes.pop(node.name, None)
        if mine is None:
            yield f"it has no {node.op} called {node.name}"
        elif mine.op != node.op:
            yield f"{node.name} is {mine.op}, there {node.op}"
        elif mine.attributes != node.attributes:
            yield f"{node.name} has {_settings(mine, node)}, there {_settings(node, mine)}"
    if own.graph != target.graph:  # in a way for which there are no words here
        yield "its operations are wired otherwise"


def group_count(network: Draft, layer: str) -> int:
    """The number of groups of a convolution, 1 of any other layer."""
    groups: int = network.graph.node(layer).get("group", 1)
    return groups


def _operations(own: Draft, target: Draft) -> Iterator[str]:
    ours = {node.op for node in own.graph.nodes}
    theirs = {node.op for node in target.graph.nodes}
    if ours - theirs:
        yield f"it has {_listed(sorted(ours - theirs))}, of which there is none there"
    if theirs - ours:
        yield f"it has no {_listed(sorted(theirs - ours))}"


def _between(own: Draft, mine: Node, target: Draft, theirs: Node) -> Iterator[str]:
    name = shown(mine.name)
    if mine.op != theirs.op:
        yield f"{name} is {mine.op}, there {theirs.op}"
        return
    kernel, other = _weight(own, mine)[2:], _weight(target, theirs)[2:]
    if kernel != other:
        yield f"{name} has a kernel of {_sides(kernel)}, there {_sides(other)}"
    width = own.grouping.layers[mine.name].width
    wanted = target.grouping.layers[theirs.name].width
    groups, parts = group_count(own, mine.name), group_count(target, theirs.name)
    if groups != parts:
        if width // groups > wanted // parts:
            yield (
                f"{name} has {_grouped(groups, width)}, there {_grouped(parts, wanted)}: each "
                "group would get narrower"
            )
        elif parts % groups:
            yield f"{name} has {_grouped(groups, width)}, there {_grouped(parts, wanted)}"
    elif width > wanted:
        yield f"{name} has {width} channels, there {wanted}"


def _weight(network: Draft, layer: Node) -> tuple[int, ...]:
    return network.header.shape(layer.inputs[1])


def _sides(kernel: tuple[int, ...]) -> str:
    return " x ".join(map(str, kernel))


def _grouped(groups: int, width: int) -> str:
    return f"{groups} group{'s' * (groups > 1)} of {width // groups} channels"


def _settings(node: Node, other: Node) -> str:
    differing = {
        name: node.get(name, "its default")
        for name in sorted({*node.attributes, *other.attributes})
        if node.attributes.get(name) != other.attributes.get(name)
    }
    return ", ".join(f"{name} {value}" for name, value in differing.items())


def _listed(names: list[str]) -> str:
    return first_few([shown(name) for name in names], 3)
