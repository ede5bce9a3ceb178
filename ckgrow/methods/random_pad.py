r"""Random padding: the baseline that papers on growth compare with. It does not keep the function.

    rows that make the units:    [U_teacher; U]     columns that read them:    [W_teacher, V]

with U and V random. The teacher's weights are all there, but new units disturb what they computed.

A new layer is that of ``net2deeper`` with random weights instead of the identity, a new block that
of ``zero-init`` with nothing zero. What it deviates by is reported; the same student with the
identity, or the zeros, in place must be preserved, so that a mistake elsewhere does not pass for
the deviation that was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckgrow.drafts.endings import ending
from ckgrow.drafts.filling import fresh_block, fresh_tensor
from ckgrow.errors import SpecError
from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.fresh import fresh_columns
from ckgrow.growth.prognosis import of_zero_units
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import (
    BlockMethod,
    Filling,
    Insertion,
    LayerMethod,
    Preserves,
    WidenMethod,
)
from ckgrow.methods.net2deeper import Net2Deeper
from ckgrow.random import Draw, Stream
from ckgrow.recipes import Filled, Loud, Placed, Recipe

if TYPE_CHECKING:
    from ckgrow.drafts.blocks import Block
    from ckgrow.drafts.draft import Draft
    from ckgrow.drafts.places import Place
    from ckgrow.spec import DeepenStep, WidenStep


class RandomPad(WidenMethod):
    """Random new units that are read at random."""

    name = "random-pad"
    options = frozenset({"fill", "calibrate"})

    def preserves(self, step: WidenStep) -> Preserves:
        """It does not."""
        return "no"

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Units that are zero."""
        if step.fill != "zeros":
            return []
        return of_zero_units(grouping, graph, group, "use fill: match-std")

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """0 to n - 1, then a fresh unit each."""
        return ChannelMap.with_fresh(width, target - width)

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[W_teacher, V]."""
        maps = tuple(run.map for run in runs)
        random = Placed(source, at.dim, maps, fresh_columns(source, maps, at))
        return Loud(random, Placed(source, at.dim, maps))


class RandomLayer(LayerMethod):
    """A new layer with random weights."""

    name = "random-pad"
    options = frozenset({"fill", "calibrate"})
    rests_on = Net2Deeper.rests_on

    def insert(
        self, place: Place, names: Mapping[str, str], draft: Draft, draw: Draw, step: DeepenStep
    ) -> Insertion:
        """The layer of net2deeper, BatchNorm and activation included; its tensors by ``fill``."""
        if not place.repeatable:
            raise SpecError(
                f"{step.where}: random-pad behind {place.layer.name}: {place.activation_name} is "
                "not idempotent, so a new layer with it deviates whatever its weights are, and "
                "nothing is left to check the student against; use r2deeper or zero-init there"
            )
        quiet = Net2Deeper().insert(place, names, draft, draw, step)
        recipes: dict[str, Recipe] = dict(quiet.recipes)
        models = {names[node.name]: node for node in draft.graph.nodes if node.name in names}
        for node in quiet.nodes:
            model = models.get(node.name)
            for role, key in enumerate(node.inputs):
                if model is not None and key in recipes:
                    old = model.inputs[role]
                    fresh = fresh_tensor(
                        key,
                        recipes[key].spec,
                        draft.recipes[old],
                        old,
                        quiet.nodes,
                        draw,
                        step.fill,
                    )
                    recipes[key] = Loud(fresh, recipes[key])
        return Insertion(quiet.nodes, recipes, "no", quiet.defects, certificate="")


class RandomBlock(BlockMethod):
    """A block with nothing zero."""

    name = "random-pad"
    options = frozenset({"fill", "calibrate"})

    def fill(self, block: Block, draft: Draft, draw: Draw, step: DeepenStep) -> Filling:
        """Every tensor by ``step.fill``."""
        recipes = fresh_block(block, draft, draw, step.fill)
        for key in ending(block, self.name, step.where).silencing:
            recipes[key] = Loud(recipes[key], Filled(block.specs[key], 0.0))
        return Filling(recipes, "no")


METHODS = (RandomPad(), RandomLayer(), RandomBlock())
