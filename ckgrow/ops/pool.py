"""Pooling over space: MaxPool, AveragePool, GlobalAveragePool, ReduceMean. Channels pass through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckgrow.graph import Node, Shape
from ckgrow.ops.conv import window
from ckgrow.ops.rule import Rule, Site, elements

if TYPE_CHECKING:
    import torch

    from ckgrow.coupling import Coupling


class Pool(Rule):
    """MaxPool and AveragePool with ``kernel_shape``, strides, pads, dilations and ceil_mode."""

    homogeneous = True

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        kernel = site.node.get("kernel_shape", ())
        sizes = site.sizes()
        if len(kernel) != len(sizes):
            raise site.fail(f"a {len(kernel)}-dimensional window on an input {site.shape()}")
        made = []
        for size, width, stride, dilation, before, after in zip(
            sizes, kernel, *window(site.node, len(sizes)), strict=True
        ):
            span = size + before + after - dilation * (width - 1) - 1
            count = span // stride + 1
            if site.node.get("ceil_mode", 0) and span % stride:
                # a last window that would start in the padding behind the input is left out
                count += count * stride < size + before
            if count < 1:
                raise site.fail(f"nothing is left of an input of {list(site.shape())}")
            made.append(count)
        return ((*site.shape()[:2], *made),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        coupling.set(site.node.output, coupling.axes(site.node.inputs[0]))

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        taps: int = math.prod(site.node.get("kernel_shape", (1,)))
        return elements(outputs[0]) * taps

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        (x,) = inputs
        spatial = x.dim() - 2
        kernel = tuple(node.attributes["kernel_shape"])  # type: ignore[arg-type]  # ints by ONNX
        stride, dilation, before, after = window(node, spatial)
        ceil = bool(node.get("ceil_mode", 0))
        name = f"{'max' if node.op == 'MaxPool' else 'avg'}_pool{spatial}d"
        pool = getattr(torch.nn.functional, name)
        if before != after:
            raise ValueError(f"{node.name}: uneven padding has no float64 pooling")
        if node.op == "MaxPool":
            return (pool(x, kernel, stride, before, dilation, ceil_mode=ceil),)
        counted = bool(node.get("count_include_pad", 0))
        return (pool(x, kernel, stride, before, ceil_mode=ceil, count_include_pad=counted),)


class GlobalAveragePool(Rule):
    """The mean over all of space, kept as dimensions of size 1."""

    op = "GlobalAveragePool"
    homogeneous = True

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        return ((*site.shape()[:2], *(1 for _ in site.shape()[2:])),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        axes = coupling.axes(site.node.inputs[0])
        coupling.set(site.node.output, (*axes[:2], *(None for _ in axes[2:])))

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return elements(site.shape())

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        (x,) = inputs
        return (x.mean(dim=tuple(range(2, x.dim())), keepdim=True),)


class ReduceMean(Rule):
    """The mean over the constant ``axes`` (an input, as since opset 18)."""

    op = "ReduceMean"
    homogeneous = True

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
                coupling.atoms.fix(summed, f"{site.node.name!r} takes the mean over channels")
        made = tuple(
            None if dim in dims else axis
            for dim, axis in enumerate(axes)
            if keep or dim not in dims
        )
        coupling.set(site.node.output, made)

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return elements(site.shape())

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x = inputs[0]
        dims = inputs[1].long().tolist() if len(inputs) > 1 else list(range(x.dim()))
        return (x.mean(dim=dims, keepdim=bool(node.get("keepdims", 1))),)


RULES = (Pool("MaxPool"), Pool("AveragePool"), GlobalAveragePool(), ReduceMean())
