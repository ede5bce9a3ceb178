"""Gemm and MatMul: linear layers, and constant matrices over a spatial axis.

A MatMul whose one operand is a constant acts on a dimension without channels (adaptive average
pooling is two of them); the channels pass through. A product of two computed values couples
nothing that a growth could follow yet: it fixes the channels of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ckgrow.axes import Axis, Dim
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Entry, Rule, Site, elements
from ckgrow.ops.tracing import Linear, inside_channels

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckgrow.ops.tracing import Tracing


class Gemm(Rule):
    """Gemm(x, weight, bias?): alpha * x @ weight + beta * bias; weight "out in" with transB."""

    op = "Gemm"
    makes_channels = True
    entries: ClassVar[Mapping[int, Entry]] = {2: 0.0}

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        x, weight = site.shape(0), site.sizes(1, 0)
        out, inner = weight if self.rows(site.node) == 0 else weight[::-1]
        if site.node.get("transA", 0):
            raise site.fail("a transposed input is not supported")
        if len(x) != 2 or x[1] != inner:
            raise site.fail(f"weight of shape {list(weight)} does not fit an input {list(x)}")
        if site.node.input(2) and site.sizes(2, 0) not in ((out,), (1,), (1, out)):
            raise site.fail(f"bias of shape {list(site.sizes(2, 0))} for {out} outputs")
        return ((x[0], out),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        node = site.node
        value, weight = node.inputs[:2]
        if coupling.is_value(weight):
            _fix_product(site, coupling)
            return
        source = coupling.axis(value, 1)
        rows = self.rows(node)
        made = coupling.atoms.new(site.channels(1, rows))
        dims = (Dim("rows", made), Dim("columns", source))
        coupling.use(node, weight, dims if rows == 0 else dims[::-1])
        if node.input(2):
            sizes = site.sizes(2, 0)
            last = Dim("channel", made) if sizes[-1] == coupling.atoms.length(made) else None
            coupling.use(node, node.input(2), (*[None] * (len(sizes) - 1), last))
            if last is None:
                coupling.atoms.fix(made, f"{node.name!r} has one bias for all outputs")
        coupling.set(node.output, (None, made))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        node, x = site.node, tracing.labels(0)
        known = all(tracing.is_parameter(index) for index in (1, 2) if node.input(index))
        if not known or x.shape[0] != 1:
            return tracing.opaque(site)
        rows = self.rows(node)
        width = site.channels(1, rows)
        columns = tracing.table.at(x, 1, site.channels()).ravel()
        factors = (float(node.get("alpha", 1.0)), float(node.get("beta", 1.0)))
        linear = Linear(node, node.inputs[1], node.input(2), columns, rows, width, factors=factors)
        return (tracing.layer(linear).reshape(1, width),)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def rows(self, node: Node) -> int:
        return 0 if node.get("transB", 0) else 1

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        bias = elements(outputs[0]) if site.node.input(2) else 0
        return 2 * math.prod(site.sizes(1, 0)) + bias

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x, weight, *bias = inputs
        product = node.get("alpha", 1.0) * (x @ (weight.T if node.get("transB", 0) else weight))
        return (product + node.get("beta", 1.0) * bias[0] if bias else product,)


class MatMul(Rule):
    """MatMul(a, b) with one operand computed, the other a parameter or a constant matrix."""

    op = "MatMul"
    makes_channels = True
    channel_dim = -1

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        a, b = site.shape(0), site.shape(1)
        if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
            raise site.fail(f"shapes {list(a)} and {list(b)} do not multiply")
        batch = a[:-2] if len(a) >= len(b) else b[:-2]
        return ((*batch, a[-2], b[-1]),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        a, b = site.node.inputs
        if site.constants[0] is not None and not coupling.is_value(a):
            self._pass(site, coupling, b, -2)
        elif site.constants[1] is not None and not coupling.is_value(b):
            self._pass(site, coupling, a, -1)
        elif coupling.is_value(a) and not coupling.is_value(b) and len(site.shape(1)) == 2:
            source = coupling.axis(a, len(site.shape(0)) - 1)
            made = coupling.atoms.new(site.channels(1, 1))
            coupling.use(site.node, b, (Dim("columns", source), Dim("rows", made)))
            coupling.set(site.node.output, (*coupling.axes(a)[:-1], made))
        else:
            _fix_product(site, coupling)

    def _pass(self, site: Site, coupling: Coupling, value: str, summed: int) -> None:
        """A constant matrix over one dimension of ``value``; the others keep their axes."""
        axes = list(coupling.axes(value))
        summed_axis = axes[summed]
        if summed_axis is not None:
            coupling.atoms.fix(summed_axis, f"{site.node.name!r} multiplies it by a constant")
        axes[summed] = None
        coupling.set(site.node.output, tuple(axes))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        node = site.node
        for index, summed in ((1, -1), (0, -2)):
            if site.constants[index] is not None:
                if math.prod(site.sizes(index, 0)[:-2]) > 1:  # a matrix for every channel
                    return tracing.opaque(site)
                dim = len(site.shape(1 - index)) + summed
                return inside_channels(
                    site, tracing, (dim,), value=1 - index, homogeneous=True, keeps_zero=True
                )
        if tracing.is_parameter(1) and len(site.shape(1)) == 2:
            x = tracing.labels(0)
            width = site.channels(1, 1)
            if any(size != 1 for size in x.shape[:-1]):
                return tracing.opaque(site)
            columns = tracing.table.at(x, x.ndim - 1, site.channels(1, 0)).ravel()
            made = tracing.layer(Linear(node, node.inputs[1], "", columns, 1, width))
            return (made.reshape(*x.shape[:-1], width),)
        return tracing.opaque(site)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def rows(self, node: Node) -> int:
        return 1

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        inner = site.shape(0)[-1]
        return 2 * elements(outputs[0]) * (inner if isinstance(inner, int) else 1)

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (inputs[0] @ inputs[1],)


def _fix_product(site: Site, coupling: Coupling) -> None:
    made: list[Axis | None] = [None] * max(len(site.shape(0)), len(site.shape(1)))
    for name in site.node.inputs:
        if coupling.is_value(name):
            coupling.fix_all(name, f"{site.node.name!r} multiplies two computed values")
        elif name:
            coupling.use(site.node, name, (None,) * len(site.shape(site.node.inputs.index(name))))
    coupling.set(site.node.output, tuple(made))


RULES = (Gemm(), MatMul())
