"""Whole residual blocks whose branch ends in zero.

A block computes y = act(x + F(x)). When the last layer of F is zero, F(x) = 0 for every x, and
y = act(x) = x on a stream that has passed the same idempotent activation already. With a
BatchNorm at the end of the branch it is gamma and beta that are zero (Goyal et al., "Accurate,
Large Minibatch SGD", 2017, section 5.1, start residual networks like this); without one, the last
layer's weight and bias. Everything before it is filled as the step's ``fill`` says, so that the
block learns from the first step on: gamma first, then what stands before it.
"""

from __future__ import annotations

from ckgrow.drafts.blocks import Block
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.filling import fresh_tensor
from ckgrow.errors import SpecError
from ckgrow.graph import Node
from ckgrow.methods.method import BlockMethod, Filling
from ckgrow.ops import rule
from ckgrow.random import Draw
from ckgrow.recipes import Filled, Recipe
from ckgrow.spec import DeepenStep


class ZeroInit(BlockMethod):
    """A block in the stage's own layout that adds nothing yet."""

    name = "zero-init"
    options = frozenset({"fill"})
    rests_on = ("activation",)

    def fill(self, block: Block, draft: Draft, draw: Draw, step: DeepenStep) -> Filling:
        """Zeros at the end of the branch; the rest by ``step.fill``."""
        silent = _silencing_tensors(_ending_layer(block, step))
        recipes: dict[str, Recipe] = {}
        for key, spec in block.specs.items():
            if key in silent:
                recipes[key] = Filled(spec, 0.0)
            else:
                model = block.models[key]
                recipes[key] = fresh_tensor(
                    key, spec, draft.recipes[model], model, block.nodes, draw, step.fill
                )
        warnings: tuple[str, ...] = ()
        if step.fill == "zeros":
            warnings = (
                f"{block.path}: with fill: zeros the whole branch is zero and cannot learn",
            )
        return Filling(recipes, "exact", warnings)


def _ending_layer(block: Block, step: DeepenStep) -> Node:
    """The last layer or BatchNorm of the branch, seen through what maps zero to zero."""
    made = {value: node for node in block.nodes for value in node.outputs}
    node = block.last
    while not rule(node.op).makes_channels and node.op != "BatchNormalization":
        if not rule(node.op).homogeneous or len(node.inputs) != 1 or node.inputs[0] not in made:
            raise SpecError(
                f"{step.where}: the branch of {block.model} ends with {node.op}, behind which "
                "zero cannot be made; zero-init needs a layer or a BatchNorm there"
            )
        node = made[node.inputs[0]]
    return node


def _silencing_tensors(node: Node) -> set[str]:
    if node.op == "BatchNormalization":
        return {node.inputs[1], node.inputs[2]}
    return {name for name in node.inputs[1:3] if name}


METHODS = (ZeroInit(),)
