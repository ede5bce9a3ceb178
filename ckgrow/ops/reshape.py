"""Flatten, and Reshape to two dimensions: each channel becomes one entry per position."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Growth, Layout, Site

if TYPE_CHECKING:
    import torch


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


RULES = (Flatten(), Reshape())
