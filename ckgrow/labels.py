"""Labels: equal labels are equal tensors, for every input.

A *label* is a whole number that stands for an expression: "row 3 of the teacher's layer conv1",
"the ReLU of that", "position (2, 5) of that". The same expression has the same number in teacher
and student, since both are written down in one table. A value of a graph is described by an array
of labels with as many dimensions: a dimension of channels has its own size there, one that is not
looked into (the batch, space) has size 1. The label at an index then stands for the part of the
value at that index.

Three kinds of labels obey laws of their own: ``ZERO`` is zero everywhere, of ``UNKNOWN`` nothing is
known, and a *multiple* is a positive number times another label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

ZERO = 0
UNKNOWN = 1

Size = int | str


class Labels:
    """The table of all expressions that were ever labelled."""

    def __init__(self) -> None:
        self._heads: list[tuple[Hashable, ...]] = [("zero",), ("unknown",)]
        self._parts: list[tuple[int, ...]] = [(), ()]
        self._numbers = {head: number for number, head in enumerate(self._heads)}

    def __len__(self) -> int:
        return len(self._heads)

    def of(self, *head: Hashable, parts: tuple[int, ...] = ()) -> int:
        """The label of an expression: what it is; ``parts`` are labels that it is made of."""
        number = self._numbers.setdefault((*head, *parts), len(self._heads))
        if number == len(self._heads):
            self._heads.append((*head, *parts))
            self._parts.append(parts)
        return number

    def ancestors(self, label: int) -> set[int]:
        """The label itself, and all that it is made of."""
        found: set[int] = set()
        waiting = [label]
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting.extend(self._parts[each])
        return found

    def head(self, label: int) -> tuple[Hashable, ...]:
        """The expression that a label stands for."""
        return self._heads[label]

    def parts(self, label: int) -> tuple[int, ...]:
        """The labels that a label is made of."""
        return self._parts[label]

    def knows(self, *head: Hashable) -> bool:
        """Whether an expression has a label already."""
        return head in self._numbers

    def times(self, factor: float, label: int) -> int:
        """The label of a positive multiple."""
        if label in (ZERO, UNKNOWN):
            return label
        inner, base = self.parted(label)
        return base if factor * inner == 1.0 else self.of("multiple", factor * inner, parts=(base,))

    def parted(self, label: int) -> tuple[float, int]:
        """(factor, label) of a multiple; any other label is once itself."""
        head = self._heads[label]
        if head[0] != "multiple":
            return 1.0, label
        _, factor, base = head
        assert isinstance(factor, float)
        assert isinstance(base, int)
        return factor, base

    def combined(self, function: Callable[..., int], *arrays: np.ndarray) -> np.ndarray:
        """``function`` of labels, element by element; asked once for equal ones."""
        spread = np.broadcast_arrays(*arrays)
        rows = np.stack([array.ravel() for array in spread], axis=1)
        distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
        made = [UNKNOWN if UNKNOWN in row else function(*row) for row in distinct.tolist()]
        return np.array(made, dtype=np.int64)[inverse.ravel()].reshape(spread[0].shape)

    def applied(
        self,
        what: Hashable,
        array: np.ndarray,
        *,
        keeps_zero: bool = False,
        homogeneous: bool = False,
        idempotent: bool = False,
    ) -> np.ndarray:
        """The function ``what`` of every label, by the laws that it obeys."""

        def apply(label: int) -> int:
            if keeps_zero and label == ZERO:
                return ZERO
            factor, base = self.parted(label) if homogeneous else (1.0, label)
            same = idempotent and self._heads[base][0] == what
            return self.times(factor, base if same else self.of(what, parts=(base,)))

        return self.combined(apply, array)

    def at(self, array: np.ndarray, dim: int, size: int) -> np.ndarray:
        """The array with a label for every entry along ``dim``, which has ``size`` of them."""
        if array.shape[dim] == size:
            return array
        distinct, inverse = np.unique(array, return_inverse=True)
        made = np.array(
            [
                [self._entry(label, ("at", dim - array.ndim, index)) for index in range(size)]
                for label in distinct.tolist()
            ],
            dtype=np.int64,
        )[inverse.reshape(array.shape)]
        return np.moveaxis(made, -1, dim).squeeze(dim + 1)

    def _entry(self, label: int, what: Hashable) -> int:
        if label in (ZERO, UNKNOWN):
            return label
        factor, base = self.parted(label)
        return self.times(factor, self.of(what, parts=(base,)))

    def reshaped(
        self, array: np.ndarray, before: Sequence[Size], after: Sequence[Size]
    ) -> np.ndarray:
        """The labels of a value of shape ``before`` that is reshaped to ``after``.

        The batch comes first and stays. Neighbouring dimensions that only change together do so
        on their own: those that hold channels are numbered through, position by position.
        """
        shape: list[int] = []
        start = 0
        for inner, outer in _blocks(before, after):
            held = array.shape[start : start + len(inner)]
            stop = start + len(inner)
            alone = start == 1 and inner[0] == 1  # the only channel, which may have copies
            if math.prod(held) == 1 and tuple(inner) != tuple(outer) and not alone:
                what = ("reshape", start - array.ndim, tuple(inner), tuple(outer))
                if math.prod(size for size in inner if isinstance(size, int)) > 1:
                    array = self.applied(what, array, keeps_zero=True, homogeneous=True)
                shape += [1] * len(outer)
            elif len(inner) == len(outer) == 1:
                shape += held
            else:
                for dim, size in enumerate(inner, start=start):
                    assert isinstance(size, int)
                    array = self.at(array, dim, size)
                shape += [int(size) for size in outer]
            start = stop
        return array.reshape(shape)


def _blocks(before: Sequence[Size], after: Sequence[Size]) -> list[tuple[list[Size], list[Size]]]:
    """Runs of dimensions of equal products, as short as they can be; the batch by itself."""
    blocks: list[tuple[list[Size], list[Size]]] = [([before[0]], [after[0]])]
    left, right = list(before[1:]), list(after[1:])
    while left or right:
        inner: list[Size] = [left.pop(0)] if left else []
        outer: list[Size] = [right.pop(0)] if right else []
        while (products := (_product(inner), _product(outer)))[0] != products[1]:
            smaller, rest = (inner, left) if products[0] < products[1] else (outer, right)
            smaller.append(rest.pop(0))
        if not inner or not outer:  # ones that stand alone belong to what is before them
            blocks[-1][0].extend(inner)
            blocks[-1][1].extend(outer)
        else:
            blocks.append((inner, outer))
    return blocks


def _product(sizes: Sequence[Size]) -> int:
    return math.prod(size for size in sizes if isinstance(size, int))
