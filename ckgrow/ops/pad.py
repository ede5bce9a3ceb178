"""Pad: zero channels beside others, as the shortcuts without parameters of CIFAR ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.graph import Constant, Node, Shape
from ckgrow.labels import ZERO
from ckgrow.ops.rule import Coupling, Growth, Layout, Site

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing


class Pad(Layout):
    """Pad(x, pads, value?, axes?) with zeros over channels, or any constant over space.

    The channels that padding adds are identically zero; they form segments of their own, and the
    two sides of an even padding grow alike.
    """

    op = "Pad"

    def _pads(self, site: Site) -> dict[int, tuple[int, int]]:
        rank = len(site.shape())
        pads = site.ints(1) or ()
        axes = site.ints(3) or tuple(range(rank))
        if site.node.get("mode", "constant") != "constant" or len(pads) != 2 * len(axes):
            raise site.fail("only constant padding is supported")
        return {
            axis % rank: (pads[index], pads[index + len(axes)])
            for index, axis in enumerate(axes)
            if pads[index] or pads[index + len(axes)]
        }

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        made = list(site.shape())
        for dim, (before, after) in self._pads(site).items():
            made[dim] = site.channels(0, dim) + before + after
        return (tuple(made),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        atoms = coupling.atoms
        axes = list(coupling.axes(site.node.inputs[0]))
        value = site.constants[2] if site.node.input(2) else None
        for dim, (before, after) in self._pads(site).items():
            axis = axes[dim]
            if axis is None:
                continue
            sides = [atoms.new(size) if size else () for size in (before, after)]
            if before == after:
                atoms.tie(sides)
            if min(before, after) < 0 or (value is not None and any(value.values)):
                atoms.fix(axis, f"Pad {site.node.name!r} adds channels that are not zero")
            axes[dim] = (*sides[0], *axis, *sides[1])
        coupling.set(site.node.output, tuple(axes))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        labels = tracing.labels(0)
        if site.node.input(2) and site.constants[2] is None:
            return tracing.opaque(site)
        zeros = self.keeps_zero(site.node, site.by_name)
        filling = site.constants[2].values if site.node.input(2) and site.constants[2] else (0.0,)
        for dim, (before, after) in self._pads(site).items():
            alone = dim == 1 and site.shape()[dim] == 1  # the only channel, which may have copies
            if labels.shape[dim] == 1 and not alone:  # so every channel by itself
                what = ("Pad", dim - labels.ndim, before, after, filling)
                labels = tracing.table.applied(what, labels, keeps_zero=zeros, homogeneous=zeros)
            elif min(before, after) < 0 or not zeros:
                return tracing.opaque(site)
            else:
                sides = [(0, 0)] * labels.ndim
                sides[dim] = (before, after)
                labels = np.pad(labels, sides, constant_values=ZERO)
        return (labels,)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        value = constants.get(node.input(2))
        return value is None or not any(value.values)

    def resize(self, site: Site, growth: Growth) -> tuple[Node, Mapping[int, Constant]]:
        pads = list(site.ints(1) or ())
        rank = len(site.shape())
        axes = site.ints(3) or tuple(range(rank))
        for dim, (before, after) in self._pads(site).items():
            axis = growth.value_axis(site.node.output, dim)
            if axis is None:
                continue
            inner = site.channels(0, dim) + before
            index = [axis_ % rank for axis_ in axes].index(dim)
            pads[index] = growth.head(axis, before)
            pads[index + len(axes)] = growth.length(axis) - growth.head(axis, inner)
            assert after >= 0
        return site.node, {1: Constant.of(pads)}

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        x = inputs[0]
        pads = [int(size) for size in inputs[1].tolist()]
        value = float(inputs[2]) if node.input(2) else 0.0
        axes = [int(axis) for axis in inputs[-1].tolist()] if node.input(3) else range(x.dim())
        sides = [[0, 0] for _ in range(x.dim())]
        for index, axis in enumerate(axes):
            sides[axis] = [pads[index], pads[index + len(pads) // 2]]
        flat = [size for pair in reversed(sides) for size in pair]
        return (torch.nn.functional.pad(x, flat, value=value),)


RULES = (Pad(),)
