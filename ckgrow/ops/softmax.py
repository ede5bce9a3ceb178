"""Softmax and LogSoftmax: every entry depends on all others, so the axis cannot grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckgrow.graph import Node, Shape
from ckgrow.ops.rule import Coupling, Rule, Site, elements

if TYPE_CHECKING:
    import torch


class Softmax(Rule):
    """Softmax over ``axis``, which is a barrier; other axes pass through."""

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        return (site.shape(),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        axes = coupling.axes(site.node.inputs[0])
        summed = axes[site.node.get("axis", -1) % len(axes)]
        if summed is not None:
            coupling.atoms.fix(summed, f"{site.node.op} {site.node.name!r} runs over it")
        coupling.set(site.node.output, axes)

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 3 * elements(outputs[0])

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        axis = node.get("axis", -1)
        made = inputs[0].softmax(axis) if node.op == "Softmax" else inputs[0].log_softmax(axis)
        return (made,)


RULES = (Softmax("Softmax"), Softmax("LogSoftmax"))
