"""Reads the weights of a layer a few rows at a time, as sums over the channels they read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ckgrow.header import Header
from ckgrow.ops.tracing import Linear

TILE_BYTES = 1 << 24
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
        """Rows in float64, "rows columns taps", as they take effect."""
        made = self.raw(rows).astype(np.float64)
        return made if self.linear.factors[0] == 1.0 else made * self.linear.factors[0]

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


def summed(weights: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Columns that share a place added up, "rows places taps"; those at place -1 are left out."""
    kept = np.flatnonzero(places >= 0)
    order = kept[np.argsort(places[kept], kind="stable")]
    standing = places[order]
    made = np.zeros((len(weights), count, weights.shape[2]))
    if not len(order):
        return made
    starts = np.flatnonzero(np.r_[True, standing[1:] != standing[:-1]])
    chosen = weights if np.array_equal(order, np.arange(weights.shape[1])) else weights[:, order]
    if len(starts) < len(order):
        chosen = np.add.reduceat(chosen, starts, axis=1)
    made[:, standing[starts]] = chosen
    return made


_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}


def all_finite(array: np.ndarray) -> bool:
    """Whether no entry is NaN or infinite."""
    mask = _EXPONENTS.get(array.dtype.name)
    if mask is not None:  # by their bits, which is faster than by their values
        return not bool(((array.view(np.uint16) & mask) == mask).any())
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
