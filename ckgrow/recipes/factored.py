r"""A weight factored into two: W = M W', with M a square dense matrix of our own.

M is a reflection through k random directions, the columns of V:

    M = I - 2 V V^T          V "width k", nearly orthonormal, so that M is nearly its own inverse

With k = width / 2 its entries are all of the order 1 / sqrt(width). The entries of V are rounded to
multiples of 2^-11, so those of M are multiples of 2^-21 no larger than about 1: float32 holds them
without rounding, whatever order they are summed in. The inverse of just this M is (Woodbury)

    M^-1 = I + 2 V (I - 2 V^T V)^-1 V^T

and so a row of W' = M^-1 W is that row of W and k rows that sum up all of W, V^T W: two streams
over W, and memory for k rows. k is smaller than width / 2 where those would be too large.

Only W' is rounded when it is stored, to W' + D with |D| <= u |W'| (u the unit roundoff). The weight
that takes effect is then W + M D, and

    |M D| <= |M| |D| <= u |M| |W'| <= u |M| |M^-1| |W|       (Frobenius norms of W, W', D)

relative to the size of W not more than u times the condition of M, which the rounding of V
(uniform, so a matrix of norm 2^-11 / sqrt(12) (sqrt(width) + sqrt(k))) keeps near 1. Float16 and
bfloat16 have too few digits for such an M, which is rounded there as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ckgrow.header import TensorSpec, numpy_dtype
from ckgrow.random import Stream
from ckgrow.recipes.base import Measurement, Reading, Recipe

STEP = 2.0**-11
"""Of the entries of V."""
SUMMARY_BYTES = 1 << 25
"""What V^T W may take in float64."""
MOST_DIRECTIONS = 512
CHUNK_BYTES = 1 << 24
"""Of rows summed up at a time: with few of them, adding to the sum is what takes the time."""
BLOCK_BYTES = 1 << 20
BLOCK_ROWS = 64
"""Of a product that is made at a time: at most as many rows as have so many bytes."""
EXACT_DTYPES = frozenset({"float32", "float64"})
"""Dtypes that hold M as it is."""


@dataclass(frozen=True, eq=False)
class Mixing:
    """The matrix M of ``groups`` diagonal blocks, "width width" each."""

    stream: Stream
    groups: int
    width: int
    directions: int

    @staticmethod
    def of(weight: TensorSpec, rows: int, groups: int, stream: Stream) -> Mixing:
        """For a weight whose dimension ``rows`` makes the outputs, in ``groups`` equal parts."""
        width = weight.shape[rows] // groups
        columns = weight.size // max(weight.shape[rows], 1) * groups
        affordable = SUMMARY_BYTES // (8 * max(columns, 1))
        return Mixing(stream, groups, width, max(1, min(width // 2, affordable, MOST_DIRECTIONS)))

    def defect(self, dtype: str) -> float:
        """How far M (W' + D) may be from W, relative to W: see above.

        Solving in float64 adds its own rounding, which counts where that is the dtype.
        """
        unit = float(np.finfo(dtype).eps) / 2.0
        solving = 4.0 * math.sqrt(self.width) * float(np.finfo(np.float64).eps)
        rounding = STEP / math.sqrt(12.0) * (math.sqrt(self.width) + math.sqrt(self.directions))
        spread = min(4.0 * rounding, 0.5)  # of the eigenvalues of M around -1
        return (unit + solving) * (1.0 + spread) / (1.0 - spread)

    def vectors(self, group: int) -> np.ndarray:
        """V of one block, "width directions"."""
        rows = np.arange(group * self.width, (group + 1) * self.width)
        orthonormal, _ = np.linalg.qr(self.stream.normal_rows(rows, self.directions))
        return np.rint(orthonormal / STEP) * STEP


@dataclass(frozen=True, eq=False)
class Mixed(Recipe):
    """M itself, as the weight "outputs width *ones" of a layer; it is symmetric."""

    spec: TensorSpec
    mixing: Mixing

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Rows of I - 2 V V^T, inside their own block."""
        width = self.mixing.width
        made = np.empty((len(index), width))
        for group in np.unique(index // width):
            chosen = np.flatnonzero(index // width == group)
            vectors = reading.once(Directions(self.mixing, int(group)))
            made[chosen] = -2.0 * (vectors[index[chosen] % width] @ vectors.T)
        made[np.arange(len(index)), index % width] += 1.0
        return made.reshape(len(index), *self.spec.shape[1:]).astype(numpy_dtype(self.spec.dtype))

    def describe(self) -> str:
        """The factor and its kind."""
        return f"new, dense: a reflection through {self.mixing.directions} random directions"


@dataclass(frozen=True, eq=False)
class Unmixed(Recipe):
    """W' = M^-1 W, or a bias M^-1 b; ``axis`` is the dimension of the outputs, 0 or 1."""

    source: Recipe
    axis: int
    mixing: Mixing
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.source.spec)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Solved in float64."""
        own = self.source.rows(index, reading).astype(np.float64)
        solved = (
            self._along(index, own, reading) if self.axis else self._across(index, own, reading)
        )
        return solved.astype(numpy_dtype(self.spec.dtype))

    def _along(self, index: np.ndarray, own: np.ndarray, reading: Reading) -> np.ndarray:
        """Outputs stand side by side in a row: w M^-1."""
        vectors = reading.once(Directions(self.mixing, 0))
        summed = _row_by_row(own, vectors, index)
        return own + _row_by_row(summed, _inverse_core(vectors, vectors.T), index)

    def _across(self, index: np.ndarray, own: np.ndarray, reading: Reading) -> np.ndarray:
        """Outputs are rows: each needs what sums up all rows of its block."""
        flat = own.reshape(len(index), -1)
        for group in np.unique(index // self.mixing.width):
            chosen = np.flatnonzero(index // self.mixing.width == group)
            vectors = reading.once(Directions(self.mixing, int(group)))
            summary = reading.once(_Summary(self, int(group)))
            left = vectors[index[chosen] % self.mixing.width]
            flat[chosen] += _row_by_row(left, summary, index[chosen])
        return flat.reshape(own.shape)

    def describe(self) -> str:
        """What was divided out."""
        return "divided by the dense factor behind it"


@dataclass(frozen=True)
class Directions(Measurement[np.ndarray]):
    """V of one block: not measured, but made once for all tiles."""

    mixing: Mixing
    group: int

    def take(self, reading: Reading) -> np.ndarray:
        """ "width directions" in float64."""
        return self.mixing.vectors(self.group)


@dataclass(frozen=True)
class _Summary(Measurement[np.ndarray]):
    """2 (I - 2 V^T V)^-1 V^T W of one block, "directions columns"."""

    of: Unmixed
    group: int

    def take(self, reading: Reading) -> np.ndarray:
        """In one pass over the rows of the block, in a fixed order."""
        mixing, source = self.of.mixing, self.of.source
        vectors = reading.once(Directions(mixing, self.group))
        columns = source.spec.size // source.spec.shape[0]
        step = max(1, CHUNK_BYTES // (8 * columns))
        total = np.zeros((mixing.directions, columns))
        for start in range(0, mixing.width, step):
            part = vectors[start : start + step]
            index = self.group * mixing.width + np.arange(start, start + len(part))
            rows = source.rows(index, reading).reshape(len(part), columns)
            total += part.T @ rows.astype(np.float64)
        return _inverse_core(vectors, total)


def _row_by_row(left: np.ndarray, right: np.ndarray, index: np.ndarray) -> np.ndarray:
    """left @ right, each row the same to the last bit whatever others are asked for with it.

    In which order a row is summed up depends on the shapes and on where the row stands, so rows
    stand in blocks of a fixed size, row ``index`` always at the same place of its block.
    """
    size = min(BLOCK_ROWS, max(1, BLOCK_BYTES // (8 * max(right.shape[1], 1))))
    made = np.empty((len(left), right.shape[1]))
    block = np.zeros((size, left.shape[1]))
    for number in np.unique(index // size):
        chosen = np.flatnonzero(index // size == number)
        block[index[chosen] % size] = left[chosen]
        made[chosen] = (block @ right)[index[chosen] % size]
    return made


def _inverse_core(vectors: np.ndarray, right: np.ndarray) -> np.ndarray:
    """2 (I - 2 V^T V)^-1 right."""
    directions = vectors.shape[1]
    core = np.eye(directions) - 2.0 * (vectors.T @ vectors)
    return 2.0 * np.linalg.solve(core, right)
