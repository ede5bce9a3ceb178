"""A network while it grows: the graph, and how each of its tensors is made from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ckgrow.coupling import couple
from ckgrow.errors import CkgrowError
from ckgrow.graph import Graph
from ckgrow.groups import Grouping, group_channels
from ckgrow.header import Header
from ckgrow.maps import ChannelMap
from ckgrow.recipes import Recipe, Stored
from ckgrow.shapes import Shapes, infer_shapes


@dataclass(frozen=True)
class Origin:
    """Where the output channels of a layer come from.

    ``map`` leads from the output of the teacher's layer ``of``. ``certificate`` says why an
    inserted layer changes nothing: ``identity`` (its output is that of the layer ``of``) or
    ``zero`` (it belongs to a branch that adds zero); "" for a layer of the teacher, and for one
    that is not meant to keep the function.
    """

    of: str
    map: ChannelMap
    certificate: str = ""


@dataclass(frozen=True)
class Draft:
    """The network between two steps.

    ``recipes`` has every tensor of the student so far, those that no node reads included;
    ``origins`` every layer with output channels; ``names`` what each of the teacher's keys is
    called now. ``interface`` has the map from the teacher's channels for every graph input and
    output that has others now, ``defects`` for inserted nodes how far their stored values are from
    keeping the function, relative to what passes through them. ``by_groups`` names grouped
    convolutions that :attr:`grouping` takes by groups, ``open_ends`` graph inputs and outputs that
    it lets grow. ``ties`` are keys of the teacher that are one parameter. ``known`` are the shapes
    of all values where an insertion carried them along; any other change forgets them.
    """

    graph: Graph
    recipes: Mapping[str, Recipe]
    origins: Mapping[str, Origin]
    names: Mapping[str, str]
    interface: Mapping[str, ChannelMap] = field(default_factory=dict)
    defects: Mapping[str, float] = field(default_factory=dict)
    by_groups: frozenset[str] = frozenset()
    open_ends: frozenset[str] = frozenset()
    ties: tuple[tuple[str, ...], ...] = ()
    known: Shapes | None = field(default=None, repr=False, compare=False)

    @staticmethod
    def of_teacher(graph: Graph, header: Header, ties: tuple[tuple[str, ...], ...] = ()) -> Draft:
        """The teacher itself, before any step."""
        recipes = {name: Stored(spec, name) for name, spec in header.items()}
        draft = Draft(graph, recipes, {}, {name: name for name in header}, ties=ties)
        origins = {
            layer.name: Origin(layer.name, ChannelMap.identity(layer.width))
            for layer in draft.grouping.layers.values()
        }
        return replace(draft, origins=origins)

    @cached_property
    def header(self) -> Header:
        """Dtypes and shapes of all tensors."""
        return Header({name: recipe.spec for name, recipe in self.recipes.items()})

    @cached_property
    def grouping(self) -> Grouping:
        """What grows together, inferred from the graph as it is now."""
        one = {name: first for first, *others in self.current_ties for name in others}
        coupled = couple(self.graph, self.header, self.by_groups, self.open_ends, one)
        return group_channels(self.graph, coupled)

    @property
    def current_ties(self) -> tuple[tuple[str, ...], ...]:
        """Tensors that are one parameter, as they are called now."""
        return tuple(
            tuple(name for key in tie if (name := self.names[key]) in self.recipes)
            for tie in self.ties
        )

    @property
    def renames(self) -> Mapping[str, str]:
        """The teacher's keys that are called otherwise now."""
        return {key: name for key, name in self.names.items() if key != name}

    @cached_property
    def shapes(self) -> Shapes:
        """The shape of every value, parameter and constant."""
        return infer_shapes(self.graph, self.header) if self.known is None else self.known

    @cached_property
    def taken(self) -> frozenset[str]:
        """Every name that a new module may not have: of tensors, nodes, values and constants."""
        graph = self.graph
        names = (name for node in graph.nodes for name in (node.name, *node.outputs))
        return frozenset((*self.recipes, *graph.inputs, *graph.constants, *names))

    @cached_property
    def spare(self) -> tuple[str, ...]:
        """Tensors that travel with a layer though no node reads them (counters of batches)."""
        read = set(self.graph.parameters())
        return tuple(key for key in self.recipes if key not in read)

    def with_changes(self, **changes: Any) -> Draft:
        """The next draft; CkgrowError when its tensors no longer fit its graph."""
        changed = replace(self, **{"known": None, **changes})
        unmade = [name for name in changed.graph.parameters() if name not in changed.recipes]
        if unmade:
            raise CkgrowError(f"internal error: no recipe makes {', '.join(unmade)}")
        return changed
