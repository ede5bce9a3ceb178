"""What a growth method is.

A widening method decides three things: where student channels come from (a map per run of
channels), what becomes of the rows that make them, and of the columns that read them. The algebra
all of them obey: with student weight W', for every output row r of source copy(o),

    sum of W'[r, j] over columns j of source copy(i)  =  W[o, i]   for every i
    sum of W'[r, j] over columns j of source fresh(k) =  0         for every k

and columns of source zero are free; rows of one fresh unit have equal class sums and biases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from ckgrow.graph import Graph, Node
from ckgrow.groups import Group, Grouping
from ckgrow.maps import ChannelMap
from ckgrow.random import Draw, Stream
from ckgrow.recipes import Recipe, Taken

if TYPE_CHECKING:
    from ckgrow.drafts.blocks import Block
    from ckgrow.drafts.draft import Draft
    from ckgrow.drafts.places import Place
    from ckgrow.spec import DeepenStep, WidenStep

Preserves = Literal["exact", "rounded", "eval", "approximate", "no"]
STRENGTH: tuple[Preserves, ...] = ("exact", "rounded", "eval", "approximate", "no")


@dataclass(frozen=True)
class Part:
    """One segment of a grown axis: ``map`` over its channels, each standing ``inner`` times."""

    label: str
    inner: int
    map: ChannelMap


@dataclass(frozen=True)
class GrownAxis:
    """An axis before and after, segment by segment."""

    parts: tuple[Part, ...]

    @cached_property
    def map(self) -> ChannelMap:
        """The map over the entries of the whole axis."""
        return ChannelMap.concat([part.map.repeat(part.inner) for part in self.parts])


class WidenMethod(ABC):
    """A way to make layers wider."""

    name: str
    verb: ClassVar[str] = "widen"

    @abstractmethod
    def preserves(self, step: WidenStep) -> Preserves:
        """How well the function is kept under these options."""

    def rests_on(self, step: WidenStep) -> tuple[str, ...]:
        """The facts that exactness needs besides the wiring, as for :class:`LayerMethod`."""
        return ()

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """What the user should know; raises SpecError where the method cannot apply."""
        return []

    @abstractmethod
    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """Sources of ``target`` channels grown from one run of ``width``."""

    @abstractmethod
    def rows(
        self, source: Recipe, dim: int, axis: GrownAxis, tensor: str, draw: Draw, step: WidenStep
    ) -> Recipe:
        """The weight whose rows make the channels of ``axis``."""

    def bias(
        self, source: Recipe, dim: int, axis: GrownAxis, tensor: str, draw: Draw, step: WidenStep
    ) -> Recipe:
        """The bias that belongs to such rows."""
        return self.channel(source, dim, axis)

    def channel(self, source: Recipe, dim: int, axis: GrownAxis) -> Recipe:
        """A tensor with one entry per channel: it follows the sources."""
        return Taken(source, dim, axis.map.sources)

    @abstractmethod
    def columns(
        self,
        source: Recipe,
        dim: int,
        runs: tuple[GrownAxis, ...],
        tensor: str,
        draw: Draw,
        step: WidenStep,
    ) -> Recipe:
        """The weight whose columns read the channels; one axis per convolution group."""


@dataclass(frozen=True)
class Insertion:
    """What a layer method makes: nodes in order, the first reading the place's value.

    ``recipes`` are the tensors of those nodes; ``defect`` is how far stored values are from
    preserving the function, relative to the values that pass through.
    """

    nodes: tuple[Node, ...]
    recipes: Mapping[str, Recipe]
    preserves: Preserves
    defect: float = 0.0
    warnings: tuple[str, ...] = ()


class LayerMethod(ABC):
    """A way to insert a layer behind a layer.

    ``rests_on`` are the facts (of :class:`ckgrow.architecture.Assumption`) that its exactness
    needs; it is refused while one of them is a mere default.
    """

    name: str
    verb: ClassVar[str] = "deepen a layer"
    rests_on: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def insert(
        self, place: Place, names: Mapping[str, str], draft: Draft, draw: Draw, step: DeepenStep
    ) -> Insertion:
        """New nodes behind ``place``; ``names`` has a new name for each node of the place.

        Raises SpecError where the method cannot apply, saying why and what would.
        """


class BlockMethod(ABC):
    """A way to fill a new residual block that is modelled on an old one."""

    name: str
    verb: ClassVar[str] = "deepen a stage"
    rests_on: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def fill(
        self, block: Block, draft: Draft, draw: Draw, step: DeepenStep
    ) -> tuple[Mapping[str, Recipe], Preserves, tuple[str, ...]]:
        """Recipes of every tensor of the block, what they preserve, and warnings."""
