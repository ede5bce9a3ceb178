"""Where a network departs from a published one, in words: before growth, and behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckgrow.drafts.draft import Draft
from ckgrow.graph import Node
from ckgrow.names import by, shown
from ckgrow.ops import rule
from ckgrow.ops.elementwise import Passing
from ckgrow.planning.correspondence import listed

Layers = Mapping[str, str]


def obstacles(own: Draft, target: Draft, layers: Layers) -> Iterator[str]:
    """What no step can change, or only the other way; ``layers`` leads to the target's."""
    found: dict[str, list[str]] = {}
    for name, there in layers.items():
        for reason, text in _between(own, own.graph.node(name), target, target.graph.node(there)):
            found.setdefault(reason, []).append(text)
    for reason, (first, *others) in found.items():
        more = f" (and so on, in {len(others)} more layers)" if others else ""
        yield f"{first}{more}: {reason}"
    ours, theirs = _operations(own), _operations(target)
    if ours - theirs:
        yield f"the target has no {listed(sorted(ours - theirs))}, as this network has"
    if theirs - ours:
        yield f"this network has no {listed(sorted(theirs - ours))}, and growth adds none"


def departures(own: Draft, target: Draft) -> Iterator[str]:
    """All that is not as in the target: names and shapes of tensors, then what is computed."""
    if missing := [name for name in target.header if name not in own.header]:
        yield f"this network, grown, lacks {listed(missing)}"
    if spare := [name for name in own.header if name not in target.header]:
        yield f"the target has no place for {listed(spare)}"
    for name, spec in target.header.items():
        if name in own.header and own.header.shape(name) != spec.shape:
            yield f"{name} is {list(own.header.shape(name))}, in the target {list(spec.shape)}"
    nodes = {node.name: node for node in own.graph.nodes}
    for node in target.graph.nodes:
        mine = nodes.pop(node.name, None)
        if mine is None:
            yield f"this network has no {node.op} called {shown(node.name)}"
        elif mine.op != node.op:
            yield f"{shown(node.name)} is {mine.op}, in the target {node.op}"
        elif mine.attributes != node.attributes:
            settings, others = _settings(mine, node), _settings(node, mine)
            yield f"{shown(node.name)} has {settings}, in the target {others}"
    if own.graph != target.graph:  # in a way for which there are no words here
        yield "the target is wired otherwise"


def group_count(network: Draft, layer: str) -> int:
    """The number of groups of a convolution, 1 of any other layer."""
    groups: int = network.graph.node(layer).get("group", 1)
    return groups


def _operations(network: Draft) -> set[str]:
    """What is computed somewhere; Dropout and the like compute nothing."""
    ops = {node.op for node in network.graph.nodes}
    return {op for op in ops if not isinstance(rule(op), Passing)}


def _between(own: Draft, mine: Node, target: Draft, theirs: Node) -> Iterator[tuple[str, str]]:
    """Reasons why one layer cannot become another, each with what differs."""
    name = shown(mine.name)
    if mine.op != theirs.op:
        yield "that is another kind of layer", f"{name} is {mine.op}, in the target {theirs.op}"
        return
    kernel, other = _weight(own, mine)[2:], _weight(target, theirs)[2:]
    if kernel != other:
        sides = tuple(zip(kernel, other, strict=True))
        can = all(old <= new and old % 2 and new % 2 for old, new in sides)
        reason = "a 'kernel' step must come first" if can else "kernels grow from odd to odd sizes"
        yield reason, f"{name} has a kernel of {by(kernel)}, the target {by(other)}"
    width = own.grouping.layers[mine.name].width
    wanted = target.grouping.layers[theirs.name].width
    groups, parts = group_count(own, mine.name), group_count(target, theirs.name)
    if groups == parts:
        if width > wanted:
            yield "ckgrow only grows", f"{name} has {width} channels, the target {wanted}"
        return
    text = f"{name} has {_grouped(groups, width)}, the target {_grouped(parts, wanted)}"
    if width // groups > wanted // parts:
        yield "each group would get narrower", text
    elif parts % groups:
        yield "groups can only be multiplied", text


def _weight(network: Draft, layer: Node) -> tuple[int, ...]:
    return network.header.shape(layer.inputs[1])


def _grouped(groups: int, width: int) -> str:
    return f"{groups} group{'s' * (groups > 1)} of {width // groups} channels"


def _settings(node: Node, other: Node) -> str:
    differing = {
        name: node.get(name, "its default")
        for name in sorted({*node.attributes, *other.attributes})
        if node.attributes.get(name) != other.attributes.get(name)
    }
    return ", ".join(f"{name} {value}" for name, value in differing.items())
