"""Concat: segment lists are appended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ckgrow.axes import Axis
from ckgrow.graph import Node, Shape
from ckgrow.ops.rule import Coupling, Layout, Site

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing


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
        where = f"Concat {site.node.name!r}"
        axis = site.node.get("axis", 1) % len(site.shape())
        made = list(coupling.axes(inputs[0]))
        if any(coupling.axes(name)[axis] is not None for name in inputs):
            joined: Axis = ()
            for name in inputs:
                joined += coupling.axis(name, axis)
            made[axis] = joined
        for dim in (dim for dim in range(len(made)) if dim != axis):
            if any(coupling.axes(name)[dim] is not None for name in inputs):
                made[dim] = coupling.axis(inputs[0], dim)
                for name in inputs[1:]:
                    other = coupling.axis(name, dim)
                    coupling.atoms.unify(coupling.axis(inputs[0], dim), other, where)
        coupling.set(site.node.output, tuple(made))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        axis = site.node.get("axis", 1) % len(site.shape())
        arrays = []
        for index in range(len(site.node.inputs)):
            size = site.shape(index)[axis]
            if not isinstance(size, int):
                return tracing.opaque(site)
            arrays.append(tracing.table.at(tracing.labels(index), axis, size))
        for dim in (dim for dim in range(len(site.shape())) if dim != axis):
            if any(array.shape[dim] != 1 for array in arrays):
                size = site.shape()[dim]
                assert isinstance(size, int)
                arrays = [tracing.table.at(array, dim, size) for array in arrays]
        return (np.concatenate(arrays, axis=axis),)

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        return (torch.cat(inputs, dim=node.get("axis", 1)),)


RULES = (Concat(),)
