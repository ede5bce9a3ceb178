"""The coupling as people read it: groups of channels, their tensors' axes, what can grow.

A *group* is a set of atoms that grow together: one atom for most layers, one per convolution group
behind a grouped convolution. Layers are the nodes with weights; a layer's output axis is a list of
segments, each of one group (a residual stream with zero-padded shortcuts has several).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ckgrow.axes import Axis
from ckgrow.coupling import Coupled, Use
from ckgrow.graph import Graph
from ckgrow.ops import rule


@dataclass(frozen=True)
class Group:
    """Channels that grow together.

    ``runs`` is the number of equal parts that must stay equal (convolution groups), ``width`` the
    channels of all of them as the first of ``layers`` makes them, in units of ``unit`` channels
    that are copied together. ``layers`` are the layers that make them, ``axes`` every tensor
    dimension that follows, as ``tensor[dim]``. ``reason`` says what holds a group that cannot grow.
    """

    name: str
    width: int
    runs: int
    unit: int
    layers: tuple[str, ...]
    axes: tuple[str, ...]
    growable: bool
    reason: str | None
    atoms: tuple[int, ...]

    def in_run(self, width: int) -> int:
        """The units of one run, where the group is ``width`` channels wide."""
        return width // (self.runs * self.unit)


@dataclass(frozen=True)
class Layer:
    """A node with weights; ``groups`` are those of its output axis, each once, in order.

    ``blocks`` is the number of convolution groups, 1 for everything else.
    """

    name: str
    op: str
    width: int
    axis: Axis
    groups: tuple[str, ...]
    blocks: int


@dataclass(frozen=True)
class Grouping:
    """Groups and layers of one graph, by name, in the graph's order."""

    groups: Mapping[str, Group]
    layers: Mapping[str, Layer]
    coupled: Coupled

    @cached_property
    def group_of_atom(self) -> Mapping[int, str]:
        """The group each atom belongs to."""
        return {atom: group.name for group in self.groups.values() for atom in group.atoms}

    def own_groups(self, layer: Layer) -> tuple[str, ...]:
        """The groups that widening ``layer`` is about.

        A layer that adds channels around an earlier layer's (a zero-padded shortcut) owns only the
        added ones; where nothing is added, all of them.
        """
        mine = set(layer.groups)
        if len(mine) == 1:
            return layer.groups
        inherited = {name for other in self._group_sets if other < mine for name in other}
        own = tuple(name for name in layer.groups if name not in inherited)
        return own or layer.groups

    @cached_property
    def _group_sets(self) -> frozenset[frozenset[str]]:
        return frozenset(frozenset(layer.groups) for layer in self.layers.values())

    def follows(self, use: Use, group: Group) -> bool:
        """Whether a tensor has one entry per channel of ``group``."""
        return any(
            dim is not None
            and dim.role == "channel"
            and any(self.group_of_atom[segment.atom] == group.name for segment in dim.axis)
            for dim in use.dims
        )

    def readers(self, graph: Graph, group: Group) -> tuple[str, ...]:
        """Nodes that pass the channels of ``group`` on, rather than make them or sum over them."""
        return tuple(
            node.name
            for node in graph.nodes
            if any(self.holds(name, group) for name in node.inputs)
            if any(self.holds(name, group) for name in node.outputs)
            if node.name not in group.layers or not rule(node.op).makes_channels
        )

    def holds(self, value: str, group: Group) -> bool:
        """Whether channels of ``group`` are among those of a value."""
        return group.name in self._groups_of_value.get(value, ())

    @cached_property
    def _groups_of_value(self) -> Mapping[str, frozenset[str]]:
        of_atom = self.group_of_atom
        return {
            value: frozenset(of_atom.get(part.atom, "") for axis in axes if axis for part in axis)
            for value, axes in self.coupled.values.items()
        }


def group_channels(graph: Graph, coupled: Coupled) -> Grouping:
    """Puts the coupling's atoms into named groups."""
    nodes = {node.name: node for node in graph.nodes}
    position = {name: index for index, name in enumerate(nodes)}
    made_by: dict[str, Use] = {}
    for use in coupled.uses:
        if use.node in made_by or _made(use) is None:
            continue
        if rule(nodes[use.node].op).makes_channels:
            made_by[use.node] = use
    members: dict[int, list[int]] = {}
    for atom, leader in coupled.ties.items():
        members.setdefault(leader, []).append(atom)
    makers: dict[int, list[str]] = {}
    for name, use in made_by.items():
        for leader in _leaders(coupled, _made(use) or ()):
            makers.setdefault(leader, []).append(name)
    followers: dict[int, dict[str, None]] = {}  # in order, each once
    for use in coupled.uses:
        for dim, follows in enumerate(use.dims):
            if follows is not None:
                for leader in _leaders(coupled, follows.axis):
                    followers.setdefault(leader, {})[f"{use.tensor}[{dim}]"] = None
    named: dict[int, Group] = {}
    taken: set[str] = set()
    for leader in sorted(
        followers, key=lambda key: position[makers[key][0]] if key in makers else -1
    ):
        layers = tuple(makers.get(leader, ()))
        first = layers[0] if layers else _value_holding(coupled, leader)
        numbered = (f"{first}#{number}" for number in itertools.count(2))
        name = first
        while name in taken:  # a layer may make several groups
            name = next(numbered)
        taken.add(name)
        shown = _made(made_by[first]) or () if layers else ()
        unit = next((part.inner for part in shown if coupled.ties[part.atom] == leader), 1)
        axes = tuple(followers[leader])
        named[leader] = _group(coupled, name, members[leader], unit, layers, axes)
    made = {
        name: Layer(
            name,
            nodes[name].op,
            coupled.length(_made(use) or ()),
            _made(use) or (),
            tuple(named[leader].name for leader in _leaders(coupled, _made(use) or ())),
            nodes[name].get("group", 1),
        )
        for name, use in made_by.items()
    }
    return Grouping({group.name: group for group in named.values()}, made, coupled)


def _made(use: Use) -> Axis | None:
    """The axis that a layer's weight makes; None for a bias."""
    if len(use.dims) < 2:
        return None
    for dim in use.dims:
        if dim is not None and dim.role in ("rows", "channel"):
            return dim.axis
    return None


def _value_holding(coupled: Coupled, leader: int) -> str:
    """The first value with a channel of this group, for channels that no layer makes."""
    for value, axes in coupled.values.items():
        if any(axis and leader in _leaders(coupled, axis) for axis in axes):
            return value
    return ""


def _leaders(coupled: Coupled, axis: Axis) -> list[int]:
    return list(dict.fromkeys(coupled.ties[segment.atom] for segment in axis))


def _group(
    coupled: Coupled,
    name: str,
    atoms: list[int],
    unit: int,
    layers: tuple[str, ...],
    axes: tuple[str, ...],
) -> Group:
    reasons = [coupled.fixed[atom] for atom in atoms if atom in coupled.fixed]
    return Group(
        name=name,
        width=sum(coupled.counts[atom] for atom in atoms) * unit,
        runs=len(atoms),
        unit=unit,
        layers=layers,
        axes=axes,
        growable=not reasons,
        reason=reasons[0] if reasons else None,
        atoms=tuple(atoms),
    )
