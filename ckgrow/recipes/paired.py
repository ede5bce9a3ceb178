"""Tensors whose channels come in pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.recipes.base import Reading, Recipe


@dataclass(frozen=True, eq=False)
class Paired(Recipe):
    """The entries of ``axis`` in ``runs`` equal parts, each part as A, A (``opposite``: A, -A).

    A are the entries of ``source`` in the first half of the part; a part has an even number.
    """

    source: Recipe
    axis: int
    runs: int
    opposite: bool = False
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.source.spec)

    @cached_property
    def _first(self) -> np.ndarray:
        """For each entry the first of its pair."""
        size = self.spec.shape[self.axis]
        entries = np.arange(size).reshape(self.runs, 2, -1)
        return np.repeat(entries[:, :1], 2, axis=1).reshape(size)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """The first of each pair is looked up, and negated for the second."""
        if self.axis == 0:
            made = self.source.rows(self._first[index], reading)
            seconds = self._first[index] != index
        else:
            made = np.take(self.source.rows(index, reading), self._first, axis=self.axis)
            seconds = self._first != np.arange(len(self._first))
        if not self.opposite:
            return made
        shape = [1] * made.ndim
        shape[self.axis] = len(seconds)
        signs = np.where(seconds, -1, 1).reshape(shape).astype(made.dtype)
        return (made * signs).astype(made.dtype)

    def describe(self) -> str:
        """Names the axis and the signs."""
        name = ("rows", "columns")[self.axis] if self.axis < 2 else f"axis {self.axis}"
        return f"{name} in {'opposite' if self.opposite else 'equal'} pairs"
