"""Add, Sub, Mul and Div of two values, or of a value and a parameter or constant.

Two computed values hold the same channels: their axes are unified, segment by segment. A parameter
that spans the channels follows them; anything of size 1 is broadcast and leaves them alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.axes import Axis, Dim
from ckgrow.graph import Constant, Node, Shape
from ckgrow.labels import ZERO, Labels
from ckgrow.ops.rule import Coupling, Entry, Rule, Site

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing


class Arithmetic(Rule):
    """A binary operation with numpy's broadcasting. ``additive`` ones are homogeneous."""

    def __init__(self, op: str, *, additive: bool = False) -> None:
        super().__init__(op)
        self.homogeneous = additive
        self.neutral = 0.0 if additive else 1.0
        entry: Entry = 0.0 if additive else "mean"
        self.entries = {0: entry, 1: entry}  # type: ignore[misc]  # one rule serves four ops

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        a, b = site.shape(0), site.shape(1)
        rank = max(len(a), len(b))
        pairs = zip(_padded(a, rank), _padded(b, rank), strict=True)
        made: list[int | str] = []
        for left, right in pairs:
            if left != right and 1 not in (left, right):
                raise site.fail(f"shapes {list(a)} and {list(b)} do not fit")
            made.append(right if left == 1 else left)
        return (tuple(made),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        made = self.shapes(site)[0]
        axes: list[Axis | None] = [None] * len(made)
        values = [name for name in site.node.inputs if coupling.is_value(name)]
        for name in values:
            offset = len(made) - len(coupling.axes(name))
            for dim, axis in enumerate(coupling.axes(name), start=offset):
                if axis is None:
                    continue
                if coupling.shapes[name][dim - offset] == 1 != made[dim]:
                    coupling.atoms.fix(axis, f"{site.node.name!r} spreads it over other channels")
                    continue
                known = axes[dim]
                if known is None:
                    axes[dim] = axis
                else:
                    coupling.atoms.unify(known, axis, f"{site.node.op} {site.node.name!r}")
        self._fix_lonely(site, coupling, made, axes, values)
        for index, name in enumerate(site.node.inputs):
            if not coupling.is_value(name):
                self._follow(site, coupling, index, axes)
        coupling.set(site.node.output, tuple(axes))

    def _fix_lonely(
        self,
        site: Site,
        coupling: Coupling,
        made: Shape,
        axes: list[Axis | None],
        values: list[str],
    ) -> None:
        """An axis that meets a value without channels there cannot grow."""
        for name in values:
            offset = len(made) - len(coupling.axes(name))
            for dim, axis in enumerate(coupling.axes(name), start=offset):
                whole = coupling.shapes[name][dim - offset] == made[dim]
                if axes[dim] is not None and axis is None and whole and made[dim] != 1:
                    met = axes[dim]
                    assert met is not None
                    coupling.atoms.fix(met, f"{site.node.name!r} meets what holds no channels")

    def _follow(self, site: Site, coupling: Coupling, index: int, axes: list[Axis | None]) -> None:
        sizes = site.sizes(index, 0)
        dims: list[Dim | None] = []
        for axis, size in zip(axes[len(axes) - len(sizes) :], sizes, strict=True):
            spans = axis is not None and size == coupling.atoms.length(axis) and size > 1
            dims.append(Dim("channel", axis) if spans and axis is not None else None)
        coupling.use(site.node, site.node.inputs[index], tuple(dims))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        owned = [index for index in (0, 1) if tracing.is_parameter(index)]
        if owned:
            return self._with_parameter(site, tracing, owned)
        first, second = self._aligned(site, tracing)
        if self.op == "Add":
            return (tracing.added(site, first, second),)
        table = tracing.table

        def combine(a: int, b: int) -> int:
            if b == ZERO and self.op == "Sub":
                return a
            if ZERO in (a, b) and self.op == "Mul":
                return ZERO
            if a == ZERO and self.op == "Div" and site.constants[1] is not None:
                return ZERO
            terms = (min(a, b), max(a, b)) if self.op == "Mul" else (a, b)
            return table.of(self.op, parts=terms)

        return (table.combined(combine, first, second),)

    def _aligned(self, site: Site, tracing: Tracing) -> list[np.ndarray]:
        """Labels of both operands: where one is looked into, so is the other, unless it is spread.

        A constant is looked into only there: the rest of it is one label.
        """
        rank = len(self.shapes(site)[0])
        sizes = [_padded(site.shape(index), rank) for index in (0, 1)]
        arrays = [tracing.labels(index) for index in (0, 1)]
        arrays = [each.reshape((1,) * (rank - each.ndim) + each.shape) for each in arrays]
        for index in (0, 1):
            other, constant = 1 - index, site.constants[index]
            if constant is not None and site.constants[other] is None:
                spread = (1,) * (rank - len(constant.shape))
                whole = constant.array().reshape(spread + constant.shape)
                inside = [
                    dim for dim in range(rank) if arrays[other].shape[dim] == 1 != sizes[other][dim]
                ]
                arrays[index] = _labelled(tracing.table, whole, inside)
        for index in (0, 1):
            for dim, size in enumerate(sizes[index]):
                if arrays[1 - index].shape[dim] > 1 and isinstance(size, int):
                    arrays[index] = tracing.table.at(arrays[index], dim, size)
        return arrays

    def _with_parameter(
        self, site: Site, tracing: Tracing, owned: list[int]
    ) -> tuple[np.ndarray, ...]:
        """A value and a parameter with an entry, or entries, per channel."""
        value = 1 - owned[0]
        if value == 1 and self.op in ("Sub", "Div"):
            return tracing.opaque(site)
        shape, sizes = site.shape(value), site.sizes(owned[0], 0)
        spans = [dim - len(sizes) for dim, size in enumerate(sizes) if size > 1]
        if len(owned) == 2 or len(sizes) > len(shape) or len(spans) > 1:
            return tracing.opaque(site)
        dim = len(shape) + spans[0] if spans else min(1, len(shape) - 1)
        return (tracing.follow(site, value, dim, (owned[0],)),)

    def affine(
        self, node: Node, tensors: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        (entries,) = tensors
        ones, zeros = np.ones_like(entries), np.zeros_like(entries)
        with np.errstate(all="ignore"):  # entries from a file may be anything
            return {
                "Add": (ones, entries),
                "Sub": (ones, -entries),
                "Mul": (entries, zeros),
                "Div": (1.0 / entries, zeros),
            }[self.op]

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        """x y = 0, and x + y = 0 where y is zero too: as another term of the same channels is,
        and new entries of a parameter, but not the entries of a constant."""
        if node.op == "Mul":
            return True
        if node.op == "Div":
            return node.inputs[1] in constants
        added = [constants[name] for name in node.inputs if name in constants]
        return not any(any(constant.values) for constant in added)

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        functions: dict[str, Callable[..., torch.Tensor]] = {
            "Add": torch.add,
            "Sub": torch.sub,
            "Mul": torch.mul,
            "Div": torch.div,
        }
        return (functions[node.op](inputs[0], inputs[1]),)


def _padded(shape: Shape, rank: int) -> Shape:
    return (*(1,) * (rank - len(shape)), *shape)


def _labelled(table: Labels, whole: np.ndarray, inside: Sequence[int]) -> np.ndarray:
    """Labels of a constant; what it has along the dimensions ``inside`` has one together."""
    outside = [dim for dim in range(whole.ndim) if dim not in inside]
    spans = tuple((dim - whole.ndim, whole.shape[dim]) for dim in inside)
    parts = whole.transpose(*outside, *inside).reshape(-1, math.prod(size for _, size in spans))
    made = [
        table.of("constant", part.item())
        if part.size == 1
        else table.of("constants", spans, tuple(part.tolist()))
        for part in parts
    ]
    shape = [1 if dim in inside else size for dim, size in enumerate(whole.shape)]
    return np.array(made, dtype=np.int64).reshape(shape)


RULES = (
    Arithmetic("Add", additive=True),
    Arithmetic("Sub", additive=True),
    Arithmetic("Mul"),
    Arithmetic("Div"),
)
