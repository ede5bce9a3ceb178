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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ckgrow.drafts.places import Place, place_behind
from ckgrow.graph import Graph, Node
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.fresh import fresh_rows, with_fresh_entries
from ckgrow.growth.placement import Placement
from ckgrow.maps import ChannelMap
from ckgrow.ops import rule
from ckgrow.random import Draw, Stream
from ckgrow.recipes import Placed, Recipe

if TYPE_CHECKING:
    from ckgrow.drafts.blocks import Block
    from ckgrow.drafts.draft import Draft, Origin
    from ckgrow.spec import DeepenStep, WidenStep

Preserves = Literal["exact", "rounded", "eval", "approximate", "no"]
STRENGTH: tuple[Preserves, ...] = ("exact", "rounded", "eval", "approximate", "no")


def weakest(promises: Iterable[Preserves]) -> Preserves:
    """What is kept where each of ``promises`` is; everything where there is none."""
    return max(promises, key=STRENGTH.index, default="exact")


class Method(ABC):
    """What all methods have.

    ``options`` are the keys of a step that it reads, besides those of every step of its verb;
    others are refused, so that no key is without effect.
    """

    name: str
    verb: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Prepared:
    """A draft made ready to be widened, and why some of the layers are to be left alone."""

    draft: Draft
    barred: Mapping[str, str] = field(default_factory=dict)


class WidenMethod(Method):
    """A way to make layers wider.

    Where a method says nothing else, copies are copied, and what is fresh starts from the step's
    ``fill``; ``placement`` is where new channels stand if the step does not say.
    """

    verb = "widen"
    placement: ClassVar[Placement] = "end"

    @abstractmethod
    def preserves(self, step: WidenStep) -> Preserves:
        """How well the function is kept under these options."""

    def rests_on(self, step: WidenStep) -> tuple[str, ...]:
        """The facts that exactness needs besides the wiring, as for :class:`LayerMethod`."""
        return ()

    def prepare(self, draft: Draft, layers: Iterable[str], step: WidenStep) -> Prepared:
        """The draft before ``layers`` are widened; a method may change the graph first.

        Asked again, on the same draft, without the layers that turn out to keep their width.
        """
        return Prepared(draft)

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """What the user should know; raises SpecError where the method cannot apply."""
        return []

    def obstacle(self, width: int, target: int) -> str:
        """Why a run of ``width`` channels cannot become ``target``, "" when it can."""
        return ""

    @abstractmethod
    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """Sources of ``target`` channels grown from one run: its own, then the new ones."""

    def rows(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """The weight whose rows make the channels of ``axis``."""
        return Placed(source, at.dim, (axis.map,), fresh_rows(source, axis, at))

    def bias(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """The bias that belongs to such rows."""
        return self.channel(source, axis, at)

    def channel(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """A tensor with one entry per channel: it follows the sources."""
        if rule(at.node.op).makes_channels and at.position == 1:
            return self.kernels(source, axis, at)
        return with_fresh_entries(source, axis, at)

    def kernels(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """The weight of a convolution that follows its channels, by single ones or whole groups."""
        return self.rows(source, axis, at)

    def constant(self, array: np.ndarray, axis: GrownAxis, dim: int, node: Node) -> np.ndarray:
        """A constant of the graph with one entry per channel: what is new has its model's."""
        return np.take(array, axis.models, axis=dim)

    @abstractmethod
    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """The weight whose columns read the channels; one axis per convolution group."""


@dataclass(frozen=True)
class Insertion:
    """What a layer method makes: nodes in order, the first reading the place's value.

    ``recipes`` are the tensors of those nodes; ``defects`` has for each of
    the nodes whose stored values had to be rounded how far they are from preserving the function,
    relative to the values that pass through. ``certificate`` is that of
    the new layer's origin: "" says that what it makes is new. ``origins`` are those of layers of
    the draft whose own output changes.
    """

    nodes: tuple[Node, ...]
    recipes: Mapping[str, Recipe]
    preserves: Preserves
    defects: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    certificate: str = "identity"
    origins: Mapping[str, Origin] = field(default_factory=dict)


class LayerMethod(Method):
    """A way to insert a layer behind a layer.

    ``rests_on`` are the facts (of :class:`ckgrow.architecture.Assumption`) that its exactness
    needs; it is refused while one of them is a mere default.
    """

    verb = "deepen a layer"
    rests_on: ClassVar[tuple[str, ...]] = ()

    def place(self, draft: Draft, layer: str, where: str) -> Place:
        """Where the new layer stands: behind the layer's BatchNorm and activation."""
        return place_behind(draft, layer, where)

    def modules(self, step: DeepenStep) -> tuple[str, ...]:
        """What else is inserted as modules of their own, in front of the new layer."""
        return ()

    @abstractmethod
    def insert(
        self, place: Place, names: Mapping[str, str], draft: Draft, draw: Draw, step: DeepenStep
    ) -> Insertion:
        """New nodes behind ``place``; ``names`` has a new name for each node of the place, and
        for each of :meth:`modules`.

        Raises SpecError where the method cannot apply, saying why and what would.
        """


@dataclass(frozen=True)
class Filling:
    """What a block method makes: a recipe for every tensor of the block.

    ``maps`` says where the output channels of a layer come from, where they are not all fresh
    units of their own.
    """

    recipes: Mapping[str, Recipe]
    preserves: Preserves
    warnings: tuple[str, ...] = ()
    maps: Mapping[str, ChannelMap] = field(default_factory=dict)


class BlockMethod(Method):
    """A way to fill a new residual block: one modelled on an old one of a stage, or one that is
    inserted behind a single layer.

    ``rests_on`` are the facts that whole blocks need for exactness, which have an activation
    behind the sum; inserted ones have none. These have ``least_layers`` at least, and hidden
    channels in whole multiples of ``multiple`` in every convolution group.
    """

    verb = "deepen a stage"
    rests_on: ClassVar[tuple[str, ...]] = ("activation",)
    least_layers: ClassVar[int] = 1
    multiple: ClassVar[int] = 1

    @abstractmethod
    def fill(self, block: Block, draft: Draft, draw: Draw, step: DeepenStep) -> Filling:
        """Recipes of every tensor of the block.

        Raises SpecError where the method cannot apply, saying why and what would.
        """
