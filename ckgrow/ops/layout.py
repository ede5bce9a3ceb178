"""Ops that only move channels: Concat, Flatten, Reshape, Split, Slice, Pad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckgrow.axes import Axis
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Growth, Rule, Site

if TYPE_CHECKING:
    import torch

    from ckgrow.coupling import Coupling


WHOLE = 2**31 - 1
"""What exporters write, at least, for "to the end" of a dimension whose size they do not know."""


class Layout(Rule):
    """An op without arithmetic: it costs nothing, and scaling passes through."""

    homogeneous = True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 0


class Concat(Layout):
    """Concat over ``axis``: segment lists are appended, the same value twice included."""

    op = "Concat"

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        shapes = [site.shape(index) for index in range(len(site.node.inputs))]
        axis = site.node.get("axis", 1) % len(shapes[0])
        rest = {(shape[:axis], shape[axis + 1 :]) for shape in shapes}
        if len(rest) != 1:
            raise site.fail(f"shapes {[list(shape) for shape in shapes]} do not fit")
        total = sum(site.sizes(index, axis)[0] for index in range(len(shapes)))
        return ((*shapes[0][:axis], total, *shapes[0][axis + 1 :]),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        inputs = site.node.inputs
        axis = site.node.get("axis", 1) % len(site.shape())
        made = list(coupling.axes(inputs[0]))
        if any(coupling.axes(name)[axis] is not None for name in inputs):
            joined: Axis = ()
            for name in inputs:
                joined += coupling.axis(name, axis)
            made[axis] = joined
        for name in inputs[1:]:
            for dim, other in enumerate(coupling.axes(name)):
                known = made[dim]
                if dim != axis and known is not None and other is not None:
                    coupling.atoms.unify(known, other, f"Concat {site.node.name!r}")
        coupling.set(site.node.output, tuple(made))

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        return (torch.cat(inputs, dim=node.get("axis", 1)),)


class Flatten(Layout):
    """Flatten at ``axis`` 1: channel c becomes H * W entries in a row."""

    op = "Flatten"

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        if site.node.get("axis", 1) != 1:
            raise site.fail("only axis 1 is supported")
        return ((site.shape()[0], math.prod(site.sizes(0, 1))),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        flatten(site, coupling)

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(1),)


class Reshape(Layout):
    """Reshape to two dimensions (as Flatten), or adding and dropping dimensions of size 1."""

    op = "Reshape"

    def _target(self, site: Site) -> Shape:
        wanted = site.ints(1)
        if wanted is None:
            raise site.fail("the shape must be a constant")
        source = site.shape()
        target: list[int | str] = [
            source[index] if size == 0 and index < len(source) else size
            for index, size in enumerate(wanted)
        ]
        if target and target[0] in (-1, 1) and source[0] not in target:
            target[0] = source[0]
        total = math.prod(site.sizes(0, 1))
        known = math.prod(size for size in target[1:] if isinstance(size, int) and size != -1)
        return tuple(total // max(known, 1) if size == -1 else size for size in target)

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        target = self._target(site)
        sizes = [size for size in target[1:] if isinstance(size, int)]
        if target[:1] != site.shape()[:1] or math.prod(sizes) != math.prod(site.sizes(0, 1)):
            raise site.fail(f"{list(site.shape())} cannot become {list(target)}")
        return (target,)

    def couple(self, site: Site, coupling: Coupling) -> None:
        source, target = site.shape(), self._target(site)
        value = site.node.inputs[0]
        if len(target) == 2:
            flatten(site, coupling)
        elif source[:2] == target[:2]:
            axis = coupling.axes(value)[1]
            coupling.set(site.node.output, (None, axis, *(None for _ in target[2:])))
        else:
            coupling.fix_all(value, f"Reshape {site.node.name!r} rearranges it")
            coupling.set(site.node.output, (None,) * len(target))

    def resize(self, site: Site, growth: Growth) -> tuple[Node, Mapping[int, Constant]]:
        axis = growth.value_axis(site.node.output, 1)
        wanted = site.ints(1)
        if axis is None or wanted is None or wanted[1] in (0, -1):
            return site.node, {}
        return site.node, {1: Constant.of((wanted[0], growth.length(axis), *wanted[2:]))}

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x = inputs[0]
        wanted = [int(size) for size in inputs[1].tolist()]
        sizes = [x.shape[index] if size == 0 else size for index, size in enumerate(wanted)]
        if sizes[0] == 1 and -1 not in sizes[1:]:
            sizes[0] = x.shape[0]
        return (x.reshape(sizes),)


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


def flatten(site: Site, coupling: Coupling) -> None:
    """All dimensions after the batch become one; each channel repeats once per position."""
    value = site.node.inputs[0]
    axes = coupling.axes(value)
    channel = axes[1] if len(axes) > 1 else None
    if any(axis is not None for axis in axes[2:]):
        coupling.fix_all(value, f"{site.node.name!r} mixes several channel axes")
        coupling.set(site.node.output, (None, None))
    elif channel is None:
        coupling.set(site.node.output, (None, None))
    else:
        positions = math.prod(site.sizes(0, 2))
        coupling.set(site.node.output, (None, coupling.atoms.repeat(channel, positions)))


RULES = (Concat(), Flatten(), Reshape(), Split(), Slice(), Pad())
