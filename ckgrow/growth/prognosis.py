"""Whether new units could learn, as far as it can be known before anything is made.

Units that are zero for every input are *dead* where a function behind them has gradient zero at 0,
and *explode* where only a BatchNorm stands there: in train mode it divides by the deviation of
exact zeros, and so multiplies gradients by 1 / sqrt(epsilon). Copies that receive equal gradients
are *locked* together, unless dropout or noise tells them apart.
"""

from __future__ import annotations

import math

from ckgrow.graph import Graph, Node
from ckgrow.groups import Group, Grouping
from ckgrow.ops import rule
from ckgrow.ops.batch_normalization import EPSILON

LARGE = 2.0
"""Deviations of the layer that reads them beyond which weights that cancel make training unsafe."""
NEGLIGIBLE = 1e-6
"""Noise of fewer deviations is lost when weights are rounded to float32."""


def gain_of_zeros(norm: Node) -> float:
    """By how much a BatchNorm multiplies the gradients of exact zeros in train mode."""
    return float(1 / math.sqrt(norm.get("epsilon", EPSILON)))


def of_zero_units(grouping: Grouping, graph: Graph, group: Group, cure: str) -> list[str]:
    """What becomes of units whose incoming weights and biases are zero."""
    readers = [graph.node(name) for name in grouping.readers(graph, group)]
    for node in readers:
        if rule(node.op).flat_at_zero(node, graph.constants):
            return [
                f"{group.name}: new units are zero before the {node.op} {node.name}, whose "
                f"gradient there is zero: they are dead and cannot learn; {cure}"
            ]
    for node in readers:
        if node.op == "BatchNormalization":
            gain = gain_of_zeros(node)
            return [
                f"{group.name}: new units are zero before the BatchNorm {node.name}, which "
                f"multiplies their gradients by {gain:.0f} in train mode: they explode; {cure}"
            ]
    return []


def of_cancelling_pairs(
    grouping: Grouping, graph: Graph, group: Group, scale: float, noise: float
) -> list[str]:
    """What becomes of pairs that are read by opposite weights of ``scale`` deviations."""
    size = math.hypot(scale, noise)
    if size > LARGE:
        return [
            f"{group.name}: weights of {size:.3g} deviations that cancel round badly, and one step "
            "of training can make them explode; use a scale of 1 or less"
        ]
    readers = (graph.node(name) for name in grouping.readers(graph, group))
    if size < 1.0 or any(node.op == "BatchNormalization" for node in readers):
        return []
    return [
        f"{group.name}: no BatchNorm steadies the pairs, whose full-size weights can make training "
        "diverge at the teacher's learning rate; scale: 0.3 begins gently"
    ]


def parted_by_dropout(grouping: Grouping, graph: Graph, group: Group) -> bool:
    """Whether dropout gives copies different gradients."""
    return any(graph.node(name).op == "Dropout" for name in grouping.readers(graph, group))
