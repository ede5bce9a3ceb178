"""How the branch of a residual block ends: what has to be zero, and what has to cancel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ckgrow.drafts.blocks import Block
from ckgrow.errors import SpecError
from ckgrow.graph import Node
from ckgrow.ops import rule


@dataclass(frozen=True)
class Ending:
    """The last layer of a branch and the BatchNorm behind it, if there is one."""

    layer: Node
    batch_norm: Node | None

    @property
    def silencing(self) -> frozenset[str]:
        """The tensors that make the branch zero when they are: gamma and beta, or the layer's."""
        if self.batch_norm is not None:
            return frozenset(self.batch_norm.inputs[1:3])
        return frozenset(name for name in self.layer.inputs[1:3] if name)


@dataclass(frozen=True)
class Crossing:
    """The channels that go from the second-last layer of a branch, ``maker``, to the last one.

    ``between`` are the nodes on the way, each of which treats every channel by itself; ``width``
    channels stand in ``runs`` equal parts, inside which they may change places.
    """

    maker: Node
    between: tuple[Node, ...]
    width: int
    runs: int


def ending(block: Block, method: str, where: str) -> Ending:
    """The ending of a block, seen through what maps zero to zero; SpecError when it has none."""
    made = _makers(block)
    node = block.last
    while not rule(node.op).makes_channels and node.op != "BatchNormalization":
        if not rule(node.op).homogeneous or len(node.inputs) != 1 or node.inputs[0] not in made:
            raise SpecError(
                f"{where}: {method}: the branch of {block.model} ends with {node.name}, a "
                f"{node.op}, behind which zero cannot be made; it needs a layer or a BatchNorm "
                "there: insert behind a layer of the block instead of a whole block"
            )
        node = made[node.inputs[0]]
    if rule(node.op).makes_channels:
        return Ending(node, None)
    before = made.get(node.inputs[0])
    if before is None or not rule(before.op).makes_channels:
        raise SpecError(
            f"{where}: {method}: the branch of {block.model} ends with the BatchNorm {node.name}, "
            "and no layer stands right before it; insert behind a layer of the block instead of "
            "a whole block"
        )
    return Ending(before, node)


def crossing(block: Block, last: Node, method: str, where: str) -> Crossing:
    """What ``last`` reads from the layer before it; SpecError when no layer makes it alone."""
    made = _makers(block)
    found: dict[str, Node] = {}
    makers: dict[str, Node] = {}
    waiting = [last.inputs[0]]
    while waiting:
        value = waiting.pop()
        if value == block.input:
            raise SpecError(
                f"{where}: {method}: in the branch of {block.model} {last.name} reads the "
                "stream itself, so there are no two layers to cancel; use zero-init"
            )
        node = made.get(value)
        if node is None or node.name in found or node.name in makers:
            continue
        if rule(node.op).makes_channels:
            makers[node.name] = node
            continue
        if not (rule(node.op).channelwise or _combines(node, made)):
            raise SpecError(
                f"{where}: {method}: in the branch of {block.model} {node.name}, a {node.op}, "
                f"stands before {last.name} and mixes channels, so equal ones need not stay "
                "equal; use zero-init"
            )
        found[node.name] = node
        waiting.extend(node.inputs if _combines(node, made) else node.inputs[:1])
    if len(makers) != 1:
        raise SpecError(
            f"{where}: {method}: in the branch of {block.model} {last.name} reads what "
            f"{' and '.join(sorted(makers)) or 'no layer'} made, not one layer; use zero-init"
        )
    (maker,) = makers.values()
    runs = math.lcm(maker.get("group", 1), last.get("group", 1))
    return Crossing(maker, tuple(found.values()), block.width(maker), runs)


def _makers(block: Block) -> Mapping[str, Node]:
    return {value: node for node in block.nodes for value in node.outputs}


def _combines(node: Node, made: Mapping[str, Node]) -> bool:
    """Whether a node is a gate's product, or a sum, of values of the same channels."""
    return node.op in ("Mul", "Add") and all(name in made for name in node.inputs)
