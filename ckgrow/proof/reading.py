"""Reads the weights of a layer a few rows at a time, as sums over the channels they read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ckgrow.header import Header
from ckgrow.ops.tracing import Linear

TILE_BYTES = 1 << 23
"""What the weights of a tile take in float64."""
_CHUNK_BYTES = 1 << 24

Read = Callable[[str, int, int], np.ndarray]
Taps = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LayerWeights:
    """The weight and the bias of one layer, row by row. ``read`` is that of the checkpoint."""

    linear: Linear
    header: Header
    read: Read

    @property
    def dtype(self) -> str:
        """The stored dtype of the weight."""
        return self.header[self.linear.weight].dtype

    @property
    def columns(self) -> int:
        """Columns of each row: the channels of its convolution group."""
        return len(self.linear.columns) // self.linear.groups

    @property
    def rows_per_group(self) -> int:
        """Rows of each convolution group."""
        return self.linear.width // self.linear.groups

    @cached_property
    def taps(self) -> Taps:
        """The offset of every entry of the kernel, in the order in which they are stored."""
        return tuple(itertools.product(*self.linear.taps))

    def group_columns(self, group: int) -> np.ndarray:
        """The labels of what the rows of one group read."""
        return self.linear.columns[group * self.columns : (group + 1) * self.columns]

    def tiles(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Some rows in portions whose weights are small."""
        size = max(1, TILE_BYTES // (8 * max(1, self.columns * len(self.taps))))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they are stored, "rows columns taps"."""
        name = self.linear.weight
        if self.linear.rows == 0:
            runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
            parts = [self.read(name, int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
        else:
            parts = [self._across(name, rows)]
        stored = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return stored.reshape(len(rows), self.columns, len(self.taps))

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they take effect, "rows columns taps"; float64 unless they are stored so."""
        stored = self.raw(rows)
        factor = self.linear.factors[0]
        if factor == 1.0 and stored.dtype == np.float32:  # converted when they are added up
            return stored
        return stored.astype(np.float64) * factor

    @cached_property
    def bias(self) -> np.ndarray:
        """What is added to every row, in float64; zeros where there is no bias."""
        if not self.linear.bias:
            return np.zeros(self.linear.width)
        shape = self.header.shape(self.linear.bias)
        stored = self.read(self.linear.bias, 0, shape[0] if shape else 1).astype(np.float64)
        return np.broadcast_to(stored.ravel(), self.linear.width) * self.linear.factors[1]

    def _across(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Outputs that stand side by side in a row of the file, "in out"."""
        inner, outer = self.header.shape(name)
        step = max(1, _CHUNK_BYTES // (8 * outer))
        parts = [
            self.read(name, start, min(start + step, inner))[:, rows]
            for start in range(0, inner, step)
        ]
        return np.concatenate(parts).T


@dataclass(frozen=True)
class Adding:
    """How columns are added up by the places that they stand for.

    ``first`` is the first column of each place, ``empty`` has the places without one. ``more`` are
    the second columns of places with two, then the third ones, and so on, with their places.
    """

    first: np.ndarray
    empty: np.ndarray
    more: tuple[tuple[np.ndarray, np.ndarray], ...]

    @staticmethod
    def of(places: np.ndarray, count: int) -> Adding:
        """Columns at place -1 are left out."""
        order = np.argsort(places, kind="stable")
        order = order[places[order] >= 0]
        standing = places[order]
        starts = np.flatnonzero(np.r_[True, standing[1:] != standing[:-1]][: len(order)])
        counts = np.diff(np.r_[starts, len(order)])
        first = np.zeros(count, dtype=np.int64)
        first[standing[starts]] = order[starts]
        more = []
        for rank in range(1, int(counts.max(initial=0))):
            several = starts[counts > rank] + rank
            more.append((order[several], standing[several]))
        return Adding(first, np.setdiff1d(np.arange(count), standing), tuple(more))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """ "rows columns taps" of any dtype as "rows places taps" in float64."""
        if not weights.shape[1]:
            return np.zeros((len(weights), len(self.first), weights.shape[2]))
        made = np.take(weights, self.first, axis=1).astype(np.float64)
        made[:, self.empty] = 0.0
        for columns, places in self.more:
            both = np.take(made, places, axis=1)
            both += np.take(weights, columns, axis=1)
            made[:, places] = both
        return made


_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}


def all_finite(array: np.ndarray) -> bool:
    """Whether no entry is NaN or infinite."""
    mask = _EXPONENTS.get(array.dtype.name)
    if mask is not None:  # by their bits, which is faster than by their values
        return not bool(((array.view(np.uint16) & mask) == mask).any())
    return bool(np.isfinite(array).all())
