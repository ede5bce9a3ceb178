"""Split and Slice: an axis is cut, and grows on either side of the cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Growth, Layout, Site

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing


WHOLE = 2**31 - 1
"""What exporters write, at least, for "to the end" of a dimension whose size they do not know."""


class Split(Layout):
    """Split over ``axis`` into the constant sizes of its second input, or equal parts."""

    op = "Split"

    def _sizes(self, site: Site) -> tuple[int, tuple[int, ...]]:
        axis = site.node.get("axis", 0) % len(site.shape())
        total = site.channels(0, axis)
        parts = len(site.node.outputs)
        sizes = site.ints(1)
        if sizes is None:
            each = -(-total // parts)
            sizes = (*(each,) * (parts - 1), total - each * (parts - 1))
        if sum(sizes) != total or len(sizes) != parts or min(sizes) < 0:
            raise site.fail(f"parts {list(sizes)} of {total} entries")
        return axis, sizes

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        axis, sizes = self._sizes(site)
        shape = site.shape()
        return tuple((*shape[:axis], size, *shape[axis + 1 :]) for size in sizes)

    def couple(self, site: Site, coupling: Coupling) -> None:
        dim, sizes = self._sizes(site)
        axes = coupling.axes(site.node.inputs[0])
        whole = axes[dim]
        start = 0
        for value, size in zip(site.node.outputs, sizes, strict=True):
            part = None if whole is None else coupling.atoms.cut(whole, start, start + size)
            coupling.set(value, (*axes[:dim], part, *axes[dim + 1 :]))
            start += size

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        dim, sizes = self._sizes(site)
        whole = tracing.table.at(tracing.labels(0), dim, sum(sizes))
        return tuple(np.split(whole, np.cumsum(sizes)[:-1], axis=dim))

    def resize(self, site: Site, growth: Growth) -> tuple[Node, Mapping[int, Constant]]:
        dim, sizes = self._sizes(site)
        axes = [growth.value_axis(value, dim) for value in site.node.outputs]
        grown = [
            size if axis is None else growth.length(axis)
            for axis, size in zip(axes, sizes, strict=True)
        ]
        if grown == list(sizes):
            return site.node, {}
        attributes = {k: v for k, v in site.node.attributes.items() if k != "num_outputs"}
        return replace(site.node, attributes=attributes), {1: Constant.of(grown)}

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        dim = node.get("axis", 0)
        if len(inputs) > 1:
            sizes = [int(size) for size in inputs[1].tolist()]
            return tuple(torch.split_with_sizes(inputs[0], sizes, dim=dim))
        return tuple(inputs[0].chunk(len(node.outputs), dim=dim))


class Slice(Layout):
    """Slice(x, starts, ends, axes?, steps?) with constants; channels with step 1 only."""

    op = "Slice"

    def _ranges(self, site: Site) -> dict[int, range]:
        rank = len(site.shape())
        starts, ends = site.ints(1) or (), site.ints(2) or ()
        axes = site.ints(3) or tuple(range(len(starts)))
        steps = site.ints(4) or (1,) * len(starts)
        ranges: dict[int, range] = {}
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            size = site.shape()[axis % rank]
            if not isinstance(size, int):
                if (start, step) != (0, 1) or end < WHOLE:
                    raise site.fail("only the whole batch can be taken")
                continue
            ranges[axis % rank] = range(*slice(start, end, step).indices(size))
        return ranges

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        ranges = self._ranges(site)
        shape = enumerate(site.shape())
        return (tuple(len(ranges[dim]) if dim in ranges else size for dim, size in shape),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        axes = list(coupling.axes(site.node.inputs[0]))
        for dim, kept in self._ranges(site).items():
            axis = axes[dim]
            if axis is None or kept == range(coupling.atoms.length(axis)):
                continue
            if kept.step == 1:
                axes[dim] = coupling.atoms.cut(axis, kept.start, kept.stop)
            else:
                coupling.atoms.fix(axis, f"Slice {site.node.name!r} takes every other channel")
                axes[dim] = None
        coupling.set(site.node.output, tuple(axes))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        labels = tracing.labels(0)
        for dim, kept in self._ranges(site).items():
            if labels.shape[dim] > 1:
                labels = np.take(labels, kept, axis=dim)
            elif kept != range(site.channels(0, dim)):
                what = ("Slice", dim - labels.ndim, kept.start, kept.stop, kept.step)
                labels = tracing.table.applied(what, labels, keeps_zero=True, homogeneous=True)
        return (labels,)

    def resize(self, site: Site, growth: Growth) -> tuple[Node, Mapping[int, Constant]]:
        rank = len(site.shape())
        starts, ends = list(site.ints(1) or ()), list(site.ints(2) or ())
        axes = site.ints(3) or tuple(range(len(starts)))
        ranges = self._ranges(site)
        for index, dim in enumerate(axis % rank for axis in axes):
            axis = growth.value_axis(site.node.inputs[0], dim)
            if axis is not None and ranges[dim].step == 1:
                starts[index] = growth.head(axis, ranges[dim].start)
                ends[index] = growth.head(axis, ranges[dim].stop)
        return site.node, {1: Constant.of(starts), 2: Constant.of(ends)}

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x, starts, ends = inputs[:3]
        axes = inputs[3].tolist() if node.input(3) else range(len(starts))
        steps = inputs[-1].tolist() if node.input(4) else [1] * len(starts)
        for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
            kept = range(*slice(int(start), int(end), int(step)).indices(x.shape[int(axis)]))
            x = x.index_select(int(axis), x.new_tensor(list(kept)).long())
        return (x,)


RULES = (Split(), Slice())
