"""Residual blocks whose branch ends in zero.

A block computes y = act(x + F(x)). When the last layer of F is zero, F(x) = 0 for every x, and
y = act(x) = x on a stream that has passed the same idempotent activation already. With a
BatchNorm at the end of the branch it is gamma and beta that are zero (Goyal et al., "Accurate,
Large Minibatch SGD", 2017, section 5.1, start residual networks like this); without one, the last
layer's weight and bias. Everything before it is filled as the step's ``fill`` says (``copy``: as in
the block before), so that the block learns from the first step on: gamma first, then what stands
before it.

Behind a single layer the block is y = x + F(x) with F as in ``ckgrow.drafts.residual``; nothing
stands behind the sum, so any activation will do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ckgrow.drafts.blocks import Block
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.endings import ending
from ckgrow.drafts.filling import fresh_block
from ckgrow.maps import ZERO, ChannelMap
from ckgrow.methods.method import BlockMethod, Filling
from ckgrow.random import Draw
from ckgrow.recipes import Filled
from ckgrow.spec import DeepenStep


class ZeroInit(BlockMethod):
    """A block in the stage's own layout that adds nothing yet."""

    name = "zero-init"
    options = frozenset({"fill", "calibrate"})

    def fill(self, block: Block, draft: Draft, draw: Draw, step: DeepenStep) -> Filling:
        """Zeros at the end of the branch; the rest by ``step.fill``."""
        end = ending(block, self.name, step.where)
        recipes = fresh_block(block, draft, draw, step.fill)
        recipes |= {key: Filled(block.specs[key], 0.0) for key in end.silencing}
        maps: Mapping[str, ChannelMap] = {}
        if end.batch_norm is None:
            maps = {end.layer.name: ChannelMap(0, np.full(block.width(end.layer), ZERO))}
        warnings: tuple[str, ...] = ()
        if step.fill == "zeros":
            warnings = (
                f"{block.path}: with fill: zeros the whole branch is zero and cannot learn",
            )
        return Filling(recipes, "exact", warnings, maps)


METHODS = (ZeroInit(),)
