"""Pooling over space: MaxPool, AveragePool, GlobalAveragePool. Channels pass through."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.conv import window
from ckgrow.ops.rule import Coupling, Rule, Site, elements
from ckgrow.ops.tracing import inside_channels

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckgrow.ops.tracing import Tracing


class Pool(Rule):
    """MaxPool and AveragePool with ``kernel_shape``, strides, pads, dilations and ceil_mode."""

    homogeneous = True

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        sizes = site.sizes()
        if len(site.node.get("kernel_shape", ())) != len(sizes):
            raise site.fail(f"no window of {len(sizes)} dimensions for an input {site.shape()}")
        counts = _counts(site.node, sizes)
        if min(counts) < 1:
            raise site.fail(f"nothing is left of an input of {list(site.shape())}")
        return ((*site.shape()[:2], *counts),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        coupling.set(site.node.output, coupling.axes(site.node.inputs[0]))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        return over_space(site, tracing)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        taps: int = math.prod(site.node.get("kernel_shape", (1,)))
        return elements(outputs[0]) * taps

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        (x,) = inputs
        if node.op == "MaxPool":
            return (_slide(node, x, -math.inf, torch.maximum),)
        inside = torch.ones_like(x[:1, :1])
        counted = float(node.get("count_include_pad", 0))
        return (_slide(node, x, 0.0, torch.add) / _slide(node, inside, counted, torch.add),)


def over_space(site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
    """Labels behind a window that slides over every channel by itself."""
    dims = range(2, len(site.shape()))
    return inside_channels(site, tracing, dims, homogeneous=True, keeps_zero=True)


def _counts(node: Node, sizes: Sequence[int]) -> list[int]:
    """How many windows fit along each spatial dimension."""
    counts = []
    for size, width, stride, dilation, before, after in zip(
        sizes, node.get("kernel_shape", ()), *window(node, len(sizes)), strict=True
    ):
        span = size + before + after - dilation * (width - 1) - 1
        count = span // stride + 1
        if node.get("ceil_mode", 0) and span % stride:
            # a last window that would start in the padding behind the input is left out
            count += count * stride < size + before
        counts.append(count)
    return counts


def _slide(
    node: Node, x: torch.Tensor, padding: float, combine: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Combines every window, one spatial dimension after the other (maximum and sum separate).

    Padded positions count as ``padding``. What a last window of ``ceil_mode`` covers behind them
    holds nothing: minus infinity for a maximum, zero for a sum.
    """
    import torch

    sizes = x.shape[2:]
    counts = _counts(node, sizes)
    strides, dilations, before, after = window(node, len(sizes))
    sides = zip(reversed(before), reversed(after), strict=True)  # torch pads from the last one on
    x = torch.nn.functional.pad(x, [side for pair in sides for side in pair], value=padding)
    nothing = padding if math.isinf(padding) else 0.0
    parts = zip(node.get("kernel_shape", ()), strides, dilations, counts, strict=True)
    for dim, (width, stride, dilation, count) in enumerate(parts, start=2):
        reach = dilation * (width - 1) + 1
        behind = (count - 1) * stride + reach - x.shape[dim]
        later = [0, 0] * (x.dim() - 1 - dim)
        x = torch.nn.functional.pad(x, [*later, 0, behind], value=nothing)
        taps = x.unfold(dim, reach, stride)[..., ::dilation].unbind(-1)
        x = functools.reduce(combine, taps)
    return x


class GlobalAveragePool(Rule):
    """The mean over all of space, kept as dimensions of size 1."""

    op = "GlobalAveragePool"
    homogeneous = True

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        return ((*site.shape()[:2], *(1 for _ in site.shape()[2:])),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        axes = coupling.axes(site.node.inputs[0])
        coupling.set(site.node.output, (*axes[:2], *(None for _ in axes[2:])))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        return over_space(site, tracing)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return elements(site.shape())

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        (x,) = inputs
        return (x.mean(dim=tuple(range(2, x.dim())), keepdim=True),)


RULES = (Pool("MaxPool"), Pool("AveragePool"), GlobalAveragePool())
