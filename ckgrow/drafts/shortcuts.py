"""Volumes on a residual stream, and layers on the identity shortcuts between them.

The *volume* of a layer is what the layer makes, through its BatchNorm, the residual sum it takes
part in and the activation behind that sum, up to the next layers that read it. An identity
shortcut leads from one volume to the next: it enters the volume's own sum with something that the
layer is computed from, and it leaves the volume for a sum whose other term is computed from the
layer. A sum of which neither is true (parallel branches, a shortcut with a convolution of its own)
is the volume's own through and through.

The volumes of a stream have the same channels only because identity shortcuts join them. A linear
layer on each shortcut of a volume, the identity at first, sets the volume free: ``couple`` then
finds that its channels are a group of their own. It stands right in front of the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ckgrow.drafts.draft import Draft, Origin
from ckgrow.errors import SpecError
from ckgrow.graph import Attribute, Node
from ckgrow.header import TensorSpec
from ckgrow.maps import ZERO, ChannelMap, fresh
from ckgrow.naming import free_name, is_grown, ungrown
from ckgrow.recipes import UnitKernel

_FOLD = "fold"


def is_fold(layer: str) -> bool:
    """Whether a layer is one that :func:`freed` put on an identity shortcut."""
    return is_grown(layer) and ungrown(layer).rpartition(".")[2] == _FOLD


@dataclass(frozen=True)
class Edge:
    """What comes in at ``position`` of the residual sum called ``total``."""

    total: str
    position: int
    value: str


@dataclass(frozen=True)
class Volume:
    """The identity shortcuts that enter or leave the volume of a layer.

    ``on_stream`` says whether it is on a residual connection at all: it has a sum of its own, or
    a shortcut leaves it, be it one that carries a layer of :func:`freed` already.
    """

    shortcuts: tuple[Edge, ...]
    on_stream: bool


def volumes_of(draft: Draft, layers: Iterable[str]) -> Mapping[str, Volume]:
    """The volumes that layers make."""
    makers = frozenset(  # all layers but depthwise ones
        use.node
        for use in draft.grouping.coupled.uses
        if any(dim is not None and dim.role == "rows" for dim in use.dims)
    )
    return {layer: _volume(_Stream(draft, layer, makers)) for layer in layers}


def freed(draft: Draft, volumes: Mapping[str, Volume], where: str) -> Draft:
    """The draft with an identity layer on every identity shortcut of these volumes.

    ``volumes`` are those that the layers of their keys make in ``draft``. A shortcut that leads
    from one of them to another gets one layer. SpecError where no such layer can stand.
    """
    shortcuts: dict[Edge, str] = {}
    for layer, volume in volumes.items():
        for edge in volume.shortcuts:
            if edge not in shortcuts and not _reads_channels_at_1(draft, layer, edge.value):
                raise SpecError(
                    f"{where}: fold of {layer}: the shortcut into {edge.total} does not hold its "
                    "channels right behind the batch, where a layer on it would read them; widen "
                    "the whole stream by another method"
                )
            shortcuts.setdefault(edge, layer)
    return _with_identities(draft, shortcuts) if shortcuts else draft


def _volume(stream: _Stream) -> Volume:
    graph = stream.draft.graph
    start = graph.node(stream.layer).output
    later = graph.descendants(start)
    inside: set[str] = set()
    own_sums: dict[str, Node] = {}
    leaving: list[Edge] = []
    folded = False
    waiting = [start]
    while waiting:
        value = waiting.pop()
        if value in inside:
            continue
        inside.add(value)
        for reader in graph.consumers().get(value, []):
            if reader.name in stream.makers:
                folded = folded or is_fold(reader.name)
            elif stream.is_sum(reader) and later.intersection(_others(reader, value)):
                leaving.extend(edge for edge in _edges(reader) if edge.value == value)
            else:
                waiting.extend(filter(stream.holds, reader.outputs))
                if stream.is_sum(reader):
                    own_sums[reader.name] = reader
    earlier = graph.ancestors(start) - {start}
    entering = [
        shortcut
        for total in own_sums.values()
        for edge in _edges(total)
        if edge.value not in inside
        for shortcut in stream.shortcuts_to(edge, edge.value, earlier)
    ]
    every = tuple(dict.fromkeys((*entering, *leaving)))
    return Volume(every, bool(own_sums or leaving or folded))


@dataclass(frozen=True)
class _Stream:
    """The stream of one layer; ``makers`` are the layers that make channels of their own."""

    draft: Draft
    layer: str
    makers: frozenset[str]

    def holds(self, value: str) -> bool:
        """Whether some of the layer's channels, or of those joined to them, are in a value."""
        grouping = self.draft.grouping
        names = grouping.layers[self.layer].groups
        return any(grouping.holds(value, grouping.groups[name]) for name in names)

    def is_sum(self, node: Node) -> bool:
        """Whether two computed values with channels are added."""
        return node.op in ("Add", "Sub") and all(map(self.holds, node.inputs))

    def shortcuts_to(self, edge: Edge, value: str, earlier: set[str]) -> Iterator[Edge]:
        """The identity shortcuts among what ``value``, on its way to ``edge``, is made of."""
        if value in earlier:
            yield edge
            return
        producer = self.draft.graph.producers().get(value)
        if producer is None or producer.name in self.makers:
            return
        for inner in _edges(producer):
            if self.holds(inner.value):
                nearest = inner if self.is_sum(producer) else edge
                yield from self.shortcuts_to(nearest, inner.value, earlier)


def _edges(node: Node) -> list[Edge]:
    return [Edge(node.name, position, value) for position, value in enumerate(node.inputs)]


def _others(node: Node, value: str) -> list[str]:
    """The other inputs of a sum; the value itself where it is added to itself."""
    position = node.inputs.index(value)
    return [*node.inputs[:position], *node.inputs[position + 1 :]]


def _reads_channels_at_1(draft: Draft, layer: str, value: str) -> bool:
    """Whether a layer's channels are dimension 1 of a value."""
    grouping = draft.grouping
    axes = grouping.coupled.values[value]
    names = grouping.layers[layer].groups
    at_1 = axes[1] if len(axes) > 1 else None
    return any(grouping.group_of_atom[part.atom] in names for part in at_1 or ())


def _with_identities(draft: Draft, shortcuts: Mapping[Edge, str]) -> Draft:
    """The draft with a layer on each edge that passes its input on, named beside the sum.

    Its weight is of the dtype that the layer the edge leads to has.
    """
    taken = set(draft.taken)
    recipes, origins = dict(draft.recipes), dict(draft.origins)
    terms: dict[str, dict[int, Node]] = {}
    for edge, model in shortcuts.items():
        path = edge.total.rpartition("/")[0]
        name = free_name(f"{path}.{_FOLD}" if path else _FOLD, taken)
        taken.add(name)
        shape = draft.shapes[edge.value]
        width = shape[1]
        assert isinstance(width, int)  # an axis of channels has a size
        taps = (1,) * (len(shape) - 2)
        inputs, op = (edge.value, f"{name}.weight"), "Conv" if taps else "Gemm"
        layer = Node(op, name, inputs, (name,), _attributes(taps))
        terms.setdefault(edge.total, {})[edge.position] = layer
        dtype = draft.recipes[draft.graph.node(model).inputs[1]].spec.dtype
        recipes[f"{name}.weight"] = UnitKernel(TensorSpec(dtype, (width, width, *taps)))
        origins[name] = _origin(draft, edge.value)
    nodes: list[Node] = []
    for node in draft.graph.nodes:
        layers = terms.get(node.name, {})
        read = (
            layers[position].output if position in layers else value
            for position, value in enumerate(node.inputs)
        )
        nodes += [*layers.values(), replace(node, inputs=tuple(read)) if layers else node]
    graph = replace(draft.graph, nodes=tuple(nodes)).check()
    return draft.with_changes(graph=graph, recipes=recipes, origins=origins)


def _attributes(taps: tuple[int, ...]) -> dict[str, Attribute]:
    """Those of a layer with one tap, or of a matrix "out in"."""
    if not taps:
        return {"transB": 1}
    sides: Attribute = (0,) * 2 * len(taps)
    return {"strides": taps, "pads": sides, "dilations": taps, "group": 1, "kernel_shape": taps}


def _origin(draft: Draft, value: str) -> Origin:
    """The layer whose channels pass through a shortcut, zeros where others stand beside them."""
    coupled, producers = draft.grouping.coupled, draft.graph.producers()
    axis = coupled.values[value][1] or ()
    while value in producers and producers[value].name not in draft.origins:
        value = producers[value].inputs[0]
    if value not in producers:  # an input of the network
        return Origin("", ChannelMap(0, fresh(np.arange(coupled.length(axis)))), "identity")
    layer = producers[value].name
    starts: dict[int, int] = {}
    width = 0
    for part in draft.grouping.layers[layer].axis:
        starts[part.atom] = width
        width += coupled.length((part,))
    sources = [
        np.full(count, ZERO) if start is None else np.arange(start, start + count)
        for start, count in ((starts.get(part.atom), coupled.length((part,))) for part in axis)
    ]
    origin = draft.origins[layer]
    passed = ChannelMap(width, np.concatenate(sources))
    return Origin(origin.of, origin.map.then(passed), "identity")
