"""ReduceMean and ReduceMax over the constant ``axes`` (an input, as since opset 18).

Channels of other dimensions pass through: the mean over space, the largest piece of a maxout unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Rule, Site, elements

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing


class Reduction(Rule):
    """One number of all entries along some dimensions; ``says`` is what of them, in words."""

    homogeneous = True

    def __init__(self, op: str, says: str) -> None:
        super().__init__(op)
        self._says = says

    def _dims(self, site: Site) -> tuple[int, ...]:
        rank = len(site.shape())
        axes = site.ints(1)
        if axes is None:
            return tuple(range(rank))
        return tuple(axis % rank for axis in axes)

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        dims = self._dims(site)
        keep = site.node.get("keepdims", 1)
        return (
            tuple(
                1 if dim in dims else size
                for dim, size in enumerate(site.shape())
                if keep or dim not in dims
            ),
        )

    def couple(self, site: Site, coupling: Coupling) -> None:
        dims = self._dims(site)
        axes = coupling.axes(site.node.inputs[0])
        keep = site.node.get("keepdims", 1)
        for dim in dims:
            summed = axes[dim]
            if summed is not None:
                coupling.atoms.fix(summed, f"{site.node.name!r} takes {self._says} over channels")
        made = tuple(
            None if dim in dims else axis
            for dim, axis in enumerate(axes)
            if keep or dim not in dims
        )
        coupling.set(site.node.output, made)

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        dims, labels, table = self._dims(site), tracing.labels(0), tracing.table
        what = (self.op, site.node.get("keepdims", 1))  # what is left counts its dimensions anew
        for dim in dims:
            if labels.shape[dim] > 1:  # of channels: the same ones in any order
                parts = np.split(labels, labels.shape[dim], axis=dim)
                labels = table.combined(
                    lambda *each: self._of_channels(what, tracing, each), *parts
                )
            elif site.shape()[dim] != 1:
                labels = table.applied(
                    (*what, dim - labels.ndim), labels, keeps_zero=True, homogeneous=True
                )
        if not site.node.get("keepdims", 1):
            labels = labels.squeeze(dims)
        return (labels,)

    def _of_channels(self, what: tuple[str, int], tracing: Tracing, labels: tuple[int, ...]) -> int:
        """The maximum of equal ones is one of them, the mean of equal ones as well."""
        if len(set(labels)) == 1:
            return labels[0]
        members = sorted(set(labels) if self.op == "ReduceMax" else labels)
        return tracing.table.of((*what, "of channels"), parts=tuple(members))

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return elements(site.shape())

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x = inputs[0]
        dims = inputs[1].long().tolist() if len(inputs) > 1 else list(range(x.dim()))
        keep = bool(node.get("keepdims", 1))
        reduced = x.mean(dims, keep) if self.op == "ReduceMean" else x.amax(dims, keep)
        return (reduced,)


RULES = (Reduction("ReduceMean", "the mean"), Reduction("ReduceMax", "the maximum"))
