"""Conv: plain, grouped and depthwise, any number of spatial dimensions.

Weight: "out in/group *kernel". Row r of convolution group b sums over the channels of run b of the
input axis, and channels can be added inside every run, equally many in each.

A convolution that is looked at *by groups* grows by whole groups: the run of ``in/group`` channels
that a group reads is one unit, the ``out/group`` rows that it makes are the same unit on the output
axis, and a new unit is one more group with a kernel of its own. Depthwise convolutions (one input
channel per group) always are; others where the coupling is asked to.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ckgrow.axes import Axis, Dim
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Entry, Growth, Rule, Site, elements
from ckgrow.ops.tracing import Linear

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckgrow.ops.tracing import Tracing


class Conv(Rule):
    """Conv(x, weight, bias?)."""

    op = "Conv"
    makes_channels = True
    entries: ClassVar[Mapping[int, Entry]] = {2: 0.0}

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        x, weight = site.shape(0), site.sizes(1, 0)
        group = site.node.get("group", 1)
        if len(x) != len(weight):
            raise site.fail(f"weight of shape {list(weight)} does not fit an input {list(x)}")
        if site.channels() != weight[1] * group or weight[0] % group:
            raise site.fail(
                f"weight of shape {list(weight)} in {group} groups does not fit "
                f"{site.channels()} input channels"
            )
        if len(site.node.inputs) > 2 and site.node.inputs[2] and site.sizes(2, 0) != weight[:1]:
            raise site.fail(f"bias of shape {list(site.sizes(2, 0))} for {weight[0]} channels")
        spatial = [
            (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
            for size, kernel, stride, dilation, before, after in zip(
                site.sizes(), weight[2:], *window(site.node, len(x) - 2), strict=True
            )
        ]
        if min(spatial) < 1:
            raise site.fail(f"nothing is left of an input of {list(x)}")
        return ((x[0], weight[0], *spatial),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        node, atoms = site.node, coupling.atoms
        value, weight = node.inputs[:2]
        rows, columns, *kernel = site.sizes(1, 0)
        group = node.get("group", 1)
        source = coupling.axis(value, 1)
        rest = (None,) * len(kernel)
        if _by_groups(site, coupling.by_groups):
            groups = atoms.units(source, columns, f"Conv {node.name!r}")
            made = atoms.repeat(groups, rows // group)
            coupling.use(node, weight, (Dim("channel", made), None, *rest))
            coupling.use(node, node.input(2), (Dim("channel", made),))
        else:
            made = atoms.new(rows)
            tie_runs(coupling, source, group)
            tie_runs(coupling, made, group)
            coupling.use(node, weight, (Dim("rows", made), Dim("columns", source, group), *rest))
            coupling.use(node, node.input(2), (Dim("channel", made),))
        coupling.set(node.output, (None, made, *rest))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        node, x = site.node, tracing.labels(0)
        spatial = len(site.shape()) - 2
        known = all(tracing.is_parameter(index) for index in (1, 2) if node.input(index))
        if not known or x.size != x.shape[1]:
            return tracing.opaque(site)
        width, _, *kernel = site.sizes(1, 0)
        steps, dilations, before, _ = window(node, spatial)
        linear = Linear(
            node,
            node.inputs[1],
            node.input(2),
            tracing.table.at(x, 1, site.channels()).ravel(),
            0,
            width,
            node.get("group", 1),
            tuple(
                tuple(tap * dilation - pad for tap in range(size))
                for size, dilation, pad in zip(kernel, dilations, before, strict=True)
            ),
            steps,
            (site.shape()[2:], self.shapes(site)[0][2:]),
        )
        return (tracing.layer(linear).reshape(1, width, *(1,) * spatial),)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def resize(self, site: Site, growth: Growth) -> tuple[Node, Mapping[int, Constant]]:
        source = growth.value_axis(site.node.inputs[0], 1)
        if source is None or not _by_groups(site, growth.by_groups):
            return site.node, {}
        return site.node.with_attributes(group=growth.length(source) // site.channels(1, 1)), {}

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        per_element = 2 * math.prod(site.sizes(1, 1)) + (1 if site.node.input(2) else 0)
        return elements(outputs[0]) * per_element

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        x, weight, *bias = inputs
        spatial = x.dim() - 2
        stride, dilation, before, after = window(node, spatial)
        padding = [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair]
        convolve = getattr(torch.nn.functional, f"conv{spatial}d")
        padded = torch.nn.functional.pad(x, padding)
        result = convolve(
            padded,
            weight,
            bias[0] if bias else None,
            stride=stride,
            dilation=dilation,
            groups=node.get("group", 1),
        )
        return (result,)


def _by_groups(site: Site, asked: Collection[str]) -> bool:
    """Whether a convolution grows by whole groups."""
    several = site.node.get("group", 1) > 1
    return several and (site.channels(1, 1) == 1 or site.node.name in asked)


def window(node: Node, spatial: int) -> tuple[tuple[int, ...], ...]:
    """Strides, dilations, padding before and padding after of a sliding window, per dimension."""
    pads = node.get("pads", (0,) * 2 * spatial)
    ones = (1,) * spatial
    return (
        tuple(node.get("strides", ones)),
        tuple(node.get("dilations", ones)),
        tuple(pads[:spatial]),
        tuple(pads[spatial:]),
    )


def tie_runs(coupling: Coupling, axis: Axis, runs: int) -> None:
    """Cuts an axis into equal runs that stay equally long, as convolution groups must."""
    if runs > 1:
        coupling.atoms.tie(coupling.atoms.runs(axis, runs))


RULES = (Conv(),)
