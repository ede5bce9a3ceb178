"""Softmax and LogSoftmax: every entry depends on all others, so the axis cannot grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckgrow.graph import Node, Shape
from ckgrow.ops.rule import Coupling, Rule, Site, elements
from ckgrow.ops.tracing import inside_channels

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckgrow.ops.tracing import Tracing


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

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        rank = len(site.shape())
        axis = site.node.get("axis", -1) % rank
        labels = tracing.labels(0)
        if labels.shape[axis] == 1:
            dims = range(axis, axis + 1)
            return inside_channels(site, tracing, dims, homogeneous=False, keeps_zero=False)
        if labels.size != labels.shape[axis]:
            return tracing.opaque(site)
        everyone = tuple(sorted(labels.ravel().tolist()))
        return (tracing.table.applied((self.op, "among", everyone), labels),)

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 3 * elements(outputs[0])

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        axis = node.get("axis", -1)
        made = inputs[0].softmax(axis) if node.op == "Softmax" else inputs[0].log_softmax(axis)
        return (made,)


RULES = (Softmax("Softmax"), Softmax("LogSoftmax"))
