r"""R2DeeperR (Painter: Towards a More Complete Theory of Function Preserving Transforms, 4.3, 4.4).

A residual block whose last two layers cancel. The second-last one makes its channels in pairs,
and the last one weighs the two of a pair by opposite numbers:

    h = act([U; U] x)      any U, equal entries of BatchNorm and biases in both of a pair
    F(x) = [V, -V] h       any V, no bias

so F(x) = V act(U x) - V act(U x) = 0 whatever x, U, V and act are, and y = x + F(x) = x. Nothing
is zero but the sum: U and V are full-scale and random, the two of a pair receive opposite
gradients, and part at once. Where convolutions are grouped, the pairs stand inside each group.

Behind a layer the block is that of ``ckgrow.drafts.residual``, with no activation and no BatchNorm
behind V. As a whole block of a stage (4.4) it has both: a BatchNorm keeps F(x) = 0 with beta = 0
and mean = 0, and the activation must keep the stream. But in train mode that BatchNorm divides by
the deviation of exact zeros, and multiplies the gradients of V by 1 / sqrt(eps).

``scale`` is the size of V in deviations of the layer it is modelled on; ``fill`` is about the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckgrow.drafts.blocks import Block, rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.endings import Crossing, Ending, crossing, ending
from ckgrow.drafts.filling import fresh_block, modelled_weight
from ckgrow.errors import SpecError
from ckgrow.growth.prognosis import gain_of_zeros
from ckgrow.maps import ZERO, ChannelMap, fresh
from ckgrow.methods.method import BlockMethod, Filling
from ckgrow.random import Draw
from ckgrow.recipes import Filled, Placed, Recipe
from ckgrow.spec import DeepenStep


class R2Deeper(BlockMethod):
    """A block whose last two layers cancel."""

    name = "r2deeper"
    options = frozenset({"fill", "scale", "calibrate"})
    least_layers = 2
    multiple = 2

    def fill(self, block: Block, draft: Draft, draw: Draw, step: DeepenStep) -> Filling:
        """Pairs at the end of the branch; the rest by ``step.fill``."""
        end = ending(block, self.name, step.where)
        cross = crossing(block, end.layer, self.name, step.where)
        if cross.width % (2 * cross.runs):
            groups = f" in {cross.runs} groups" if cross.runs > 1 else ""
            raise SpecError(
                f"{step.where}: r2deeper: {cross.maker.name} would have {cross.width} "
                f"channels{groups}, which are no pairs; widen {block.model} to an even number "
                f"{'per group ' if groups else ''}first, or use zero-init"
            )
        cancelling = _Cancelling(block, draft, draw, step, end, cross)
        recipes = fresh_block(block, draft, draw, step.fill)
        recipes |= cancelling.pairs(recipes) | cancelling.columns() | cancelling.zeros()
        return Filling(recipes, "exact", cancelling.warnings(), cancelling.maps())


@dataclass(frozen=True)
class _Cancelling:
    """The end of one block: U and what follows its channels, V, and what has to be zero."""

    block: Block
    draft: Draft
    draw: Draw
    step: DeepenStep
    end: Ending
    cross: Crossing

    def pairs(self, recipes: dict[str, Recipe]) -> dict[str, Recipe]:
        """[U; U], and the entries of biases, BatchNorms and slopes that go with it."""
        maker, width = self.cross.maker, self.cross.width
        weight = maker.inputs[1]
        dims = {weight: rows_of(maker)}
        for node in (maker, *self.cross.between):
            for key in node.inputs[1:]:
                sizes = self.block.specs[key].shape if key in self.block.specs else ()
                if key != weight and width in sizes:
                    dims[key] = sizes.index(width)
        return {
            key: recipes[key]
            if isinstance(recipes[key], Filled)  # with one value everywhere
            else Placed(recipes[key], dim, (self.firsts(self.cross.runs),))
            for key, dim in dims.items()
        }

    def columns(self) -> dict[str, Recipe]:
        """[V, -V], in every convolution group."""
        last = self.end.layer
        key, rows = last.inputs[1], rows_of(last)
        model = self.block.models[key]
        drawn = modelled_weight(
            self.block.specs[key],
            self.draw.stream("fresh", key),
            self.draft.recipes[model],
            model,
            "match-std",
            rows,
            self.step.scale,
        )
        runs = self.cross.runs // int(last.get("group", 1))
        return {key: Placed(drawn, 1 - rows, (self.firsts(runs),), alternating=True)}

    def firsts(self, runs: int) -> ChannelMap:
        """Each channel from the first of its pair: the first half of every run, twice."""
        width = self.cross.width * runs // self.cross.runs
        halves = np.arange(width).reshape(runs, 2, -1)[:, :1]
        return ChannelMap(width, np.repeat(halves, 2, axis=1).ravel())

    def zeros(self) -> dict[str, Recipe]:
        """The last bias, and beta and mean of the BatchNorm behind it."""
        keys = list(self.end.layer.inputs[2:3])
        if self.end.batch_norm is not None:
            keys += self.end.batch_norm.inputs[2:4]
        return {key: Filled(self.block.specs[key], 0.0) for key in keys if key}

    def maps(self) -> dict[str, ChannelMap]:
        """Sources of the last two layers' channels: pairs of fresh units, and zeros."""
        units = np.arange(self.cross.width // 2).reshape(self.cross.runs, 1, -1)
        pairs = fresh(np.repeat(units, 2, axis=1).ravel())
        zeros = np.full(self.block.width(self.end.layer), ZERO)
        return {
            self.cross.maker.name: ChannelMap(0, pairs),
            self.end.layer.name: ChannelMap(0, zeros),
        }

    def warnings(self) -> tuple[str, ...]:
        """What would keep the block from learning, or make it explode."""
        told: list[str] = []
        if self.step.fill == "zeros":
            told.append(
                f"{self.block.path}: with fill: zeros the pairs are zero and receive no gradient "
                "behind a ReLU: they are dead and cannot learn; use fill: match-std"
            )
        norm = self.end.batch_norm
        if norm is not None:
            factor = gain_of_zeros(norm)
            told.append(
                f"{self.block.path}: an exactly-zero convolution stands before the BatchNorm "
                f"{norm.name}, which multiplies gradients by {factor:.0f} in train mode, so the "
                "first steps can destroy what was learned; use zero-init, or begin with a "
                f"learning rate {factor:.0f} times smaller"
            )
        return tuple(told)


METHODS = (R2Deeper(),)
