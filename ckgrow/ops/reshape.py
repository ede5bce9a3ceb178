"""Flatten and Reshape: channels become several entries each, or several channels one.

Entries are numbered through all dimensions behind the batch, so what a reshape does to dimension 1
is told by its sizes C before and n behind:

- n = m C: every channel becomes m entries (flattening a map gives m = H * W).
- C = m n: m neighbouring channels become one entry, with what else they hold behind it
  (the pieces of a maxout unit, the heads of attention).

Anything else mixes channels in ways that no growth follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckgrow.axes import Axis
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Growth, Layout, Site

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckgrow.ops.tracing import Tracing


class Flatten(Layout):
    """Flatten at ``axis`` 1: channel c becomes H * W entries in a row."""

    op = "Flatten"

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        if site.node.get("axis", 1) != 1:
            raise site.fail("only axis 1 is supported")
        return ((site.shape()[0], math.prod(site.sizes(0, 1))),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        regroup(site, coupling, self.shapes(site)[0])

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        after = self.shapes(site)[0]
        return (tracing.table.reshaped(tracing.labels(0), site.shape(), after),)

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(1),)


class Reshape(Layout):
    """Reshape to a constant shape; the batch stays what it is."""

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
        regroup(site, coupling, self._target(site))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        after = self._target(site)
        return (tracing.table.reshaped(tracing.labels(0), site.shape(), after),)

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


def regroup(site: Site, coupling: Coupling, target: Shape) -> None:
    """Channels in dimension 1 go on in dimension 1; other dimensions hold none afterwards."""
    value, where = site.node.inputs[0], f"{site.node.op} {site.node.name!r}"
    axes = coupling.axes(value)
    channel = axes[1] if len(axes) > 1 else None
    made: Axis | None = None
    if any(axis is not None for axis in axes[2:]):
        coupling.fix_all(value, f"{where} mixes several channel axes")
    elif channel is not None:
        before, after = site.channels(), target[1] if len(target) > 1 else 0
        if isinstance(after, int) and after and after % before == 0:
            made = coupling.atoms.repeat(channel, after // before)
        elif isinstance(after, int) and after and before % after == 0:
            made = coupling.atoms.units(channel, before // after, where)
        else:
            coupling.fix_all(value, f"{where} rearranges it")
    coupling.set(site.node.output, (None, made, *(None for _ in target[2:]))[: len(target)])


RULES = (Flatten(), Reshape())
