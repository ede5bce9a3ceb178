"""Tensors with entries of one axis put in new places, and new ones between them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from ckgrow.header import TensorSpec, numpy_dtype
from ckgrow.maps import ZERO, ChannelMap
from ckgrow.recipes.base import Kept, Reading, Recipe, moved
from ckgrow.recipes.copies import Layout, as_bits, selection, taken


@dataclass(frozen=True, eq=False)
class Placed(Recipe):
    """Entry j of ``axis`` is that of ``source`` that the map names: its copies, zeros, or new ones.

    ``runs`` has one map per convolution group (one for everything else): rows of group b follow
    map b. Entries of source fresh(k) are entry k of ``fresh``, or zero without it. Where they are
    ``alternating``, the second of two with one source is its negative, so that both sum to zero.
    """

    source: Recipe
    axis: int
    runs: tuple[ChannelMap, ...]
    fresh: Recipe | None = None
    alternating: bool = False
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        resized = self.source.spec.resized(self.axis, len(self.runs[0]))
        object.__setattr__(self, "spec", resized)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Rows are looked up before they are read; other axes afterwards, run by run."""
        if self.axis == 0:
            return self._rows(index, reading)
        whole = self.source.rows(index, reading)
        fresh = None if self.fresh is None else self.fresh.rows(index, reading)
        if len(self.runs) == 1:
            return self._columns(0, whole, fresh)
        made = np.empty((len(index), *self.spec.shape[1:]), whole.dtype)
        run_of_row = index * len(self.runs) // self.spec.shape[0]
        for run in np.unique(run_of_row):
            chosen = np.flatnonzero(run_of_row == run)
            new = None if fresh is None else fresh[chosen]
            made[chosen] = self._columns(int(run), whole[chosen], new)
        return made

    def _rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        entries = self.runs[0].sources[index]
        kept = entries >= 0
        if kept.all() and not self.alternating:
            return self.source.rows(entries, reading)
        made = np.zeros((len(index), *self.spec.shape[1:]), numpy_dtype(self.spec.dtype))
        if kept.any():
            made[selection(np.flatnonzero(kept))] = self.source.rows(entries[kept], reading)
        units = self.runs[0].fresh_units[index]
        new = np.flatnonzero(units >= 0)
        if self.fresh is not None and len(new):
            made[selection(new)] = self.fresh.rows(units[new], reading)
        return self._signed(made, 0, index, 0)

    def _columns(self, run: int, whole: np.ndarray, fresh: np.ndarray | None) -> np.ndarray:
        grown = self.runs[run]
        kept = np.flatnonzero(grown.sources >= 0)
        if len(kept) == len(grown):
            made = Layout.of(grown).copied(whole, self.axis)
            return self._signed(made, self.axis, np.arange(len(grown)), run)
        shape = (*whole.shape[: self.axis], len(grown), *whole.shape[self.axis + 1 :])
        made = np.zeros(shape, whole.dtype)
        self._place(made, kept, taken(whole, grown.sources[kept], self.axis))
        units = grown.fresh_units
        new = np.flatnonzero(units >= 0)
        if fresh is not None and len(new):
            self._place(made, new, taken(fresh, units[new], self.axis))
        return self._signed(made, self.axis, np.arange(len(grown)), run)

    def _place(self, made: np.ndarray, places: np.ndarray, entries: np.ndarray) -> None:
        """Puts entries of the axis in their places."""
        at = (slice(None),) * self.axis + (selection(places),)
        as_bits(made)[at] = as_bits(entries)

    def _signed(self, made: np.ndarray, axis: int, places: np.ndarray, run: int) -> np.ndarray:
        """``made``, the places of its entries being ``places``, with the seconds negated in it."""
        if self.alternating:
            grown = self.runs[run]
            is_second = (grown.ranks[places] % 2 == 1) & (grown.sources[places] != ZERO)
            entries = np.moveaxis(made, axis, 0)
            entries[is_second] = -entries[is_second]
        return made

    def kept(self) -> Kept | None:
        """Where copies stand, if they stand alike in every run."""
        return moved(self.source.kept(), self.axis, self.runs)

    def quiet(self) -> Recipe:
        """Both sources without their noise."""
        fresh = None if self.fresh is None else self.fresh.quiet()
        return dataclasses.replace(self, source=self.source.quiet(), fresh=fresh)

    def describe(self) -> str:
        """Names the axis, its two sizes, and what the new entries are."""
        name = ("rows", "columns")[self.axis] if self.axis < 2 else f"axis {self.axis}"
        before, after = (
            len(self.runs) * width for width in (self.runs[0].width, len(self.runs[0]))
        )
        if self.runs[0].fresh_count == 0 and not self.runs[0].has_zeros:
            how = "in pairs of opposite sign" if self.alternating else "copied"
            return f"{name} {before}→{after} {how}"
        if self.fresh is None:
            return f"{name} {before}→{after}, new ones zero"
        how = self.fresh.describe().removeprefix("new, ") or "copies"
        if self.alternating:
            how = f"pairs of opposite sign, {how}"
        return f"{name} {before}→{after}, new ones {how}"
