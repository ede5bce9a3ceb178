"""Weights divided among copies of the channels they read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.random import Stream
from ckgrow.recipes.base import Kept, Reading, Recipe, Statistic, moved
from ckgrow.shares import split_exactly

DRAWN_BYTES = 1 << 22
"""Of random numbers that are held at a time where inputs come first."""


@dataclass(frozen=True)
class Disturbance:
    """Zero-sum noise on shares: ``scale`` times the measured deviation of the layer."""

    stream: Stream
    deviation: Statistic
    scale: float


@dataclass(frozen=True, eq=False)
class Divided(Recipe):
    """Entries along ``axis`` go to the copies of ``runs``, each copy with a share that sums to one.

    ``runs`` has one map per convolution group (one for everything else): rows of group b follow
    map b. ``split`` is ``unequal``, ``select``, ``uniform``, ``per-channel``, which takes
    positive ``weights`` per student channel and run, or ``diagonal``, by which row r reads copy
    ``copy_of_row[r]`` modulo the number of copies. ``factor`` multiplies what goes to channels
    that were copied; a power of two, so that nothing rounds.

    Axis 0 is allowed for layouts that keep inputs first; there is one run then.
    """

    source: Recipe
    axis: int
    runs: tuple[ChannelMap, ...]
    split: str
    weights: tuple[np.ndarray, ...]
    stream: Stream
    noise: Disturbance | None = None
    factor: float = 1.0
    copy_of_row: np.ndarray | None = None
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        resized = self.source.spec.resized(self.axis, len(self.runs[0]))
        object.__setattr__(self, "spec", resized)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Rows by run, since each run has its own map."""
        if self.axis == 0:
            return self._inputs_first(index, reading)
        whole = self.source.rows(index, reading)
        made = np.empty((len(index), *self.spec.shape[1:]), whole.dtype)
        run_of_row = index * len(self.runs) // self.spec.shape[0]
        for number in np.unique(run_of_row):
            chosen = np.flatnonzero(run_of_row == number)
            copies = _Copies(self.runs[number])
            columns = np.moveaxis(whole[chosen], self.axis, 1)
            result = np.moveaxis(columns[:, copies.map.sources], 1, self.axis)
            if copies.count:
                values = columns[:, copies.sources]
                shares = self._shares(copies, int(number), values, index[chosen], reading)
                np.moveaxis(result, self.axis, 1)[:, copies.places] = shares
            made[chosen] = result
        return made

    def _inputs_first(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Rows are the copied channels: all copies of a wanted one are divided together."""
        copies = _Copies(self.runs[0]).only(self.runs[0].sources[index])
        # a copy, since what is read may be the teacher's own memory
        result = np.array(self.source.rows(self.runs[0].sources[index], reading))
        if not copies.count:
            return result
        whole = self.source.rows(copies.sources, reading)  # "source out *kernel"
        place_of = {int(place): number for number, place in enumerate(copies.places)}
        divided = np.flatnonzero(np.isin(index, copies.places))
        places = [place_of[row] for row in index[divided].tolist()]
        # what is drawn for an output is drawn for all inputs at once, so only for some outputs
        drawn = 8 * self.spec.size // max(self.spec.shape[1], 1)
        step = max(1, DRAWN_BYTES // max(drawn, 1))
        for start in range(0, self.spec.shape[1], step):
            outputs = np.arange(start, min(start + step, self.spec.shape[1]))
            values = np.moveaxis(whole[:, outputs], 0, 1)
            shares = self._shares(copies, 0, values, outputs, reading)  # "out place *kernel"
            result[np.ix_(divided, outputs)] = np.moveaxis(shares[:, places], 0, 1)
        return result

    def _shares(
        self,
        copies: _Copies,
        run: int,
        values: np.ndarray,
        rows: np.ndarray,
        reading: Reading,
    ) -> np.ndarray:
        """What each copied channel gets, "row place *kernel"; values are "row source *kernel"."""
        kernel = values.shape[2:]
        values = values.reshape(len(rows), copies.count, -1)  # "row source tap"
        fractions = self._fractions(copies, run, rows)  # "row source share"
        noise = None
        if self.noise is not None:
            noise = self._noise(self.noise, copies, rows, values.shape[2], reading)
        if self.split == "uniform" and noise is None:
            shares = self._even(copies, values, fractions)
        else:
            shares = split_exactly(values, fractions[:, :, None, :], self.spec.dtype, noise)
        if self.factor != 1.0:
            shares = (shares * np.asarray(self.factor, shares.dtype)).astype(shares.dtype)
        present = np.moveaxis(shares, -1, 2)[:, copies.present]  # "row place tap"
        return present.reshape(len(rows), len(copies.places), *kernel)

    def _even(self, copies: _Copies, values: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Equal shares of every weight where those are exact: halves, quarters and so on.

        Each weight for itself, so that it does not matter with which others it is asked for.
        """
        number = copies.present.sum(axis=-1)[:, None]  # "source 1"
        count = number.astype(values.dtype)
        share = values / count
        # not so where the half is subnormal, or the weight is not a number
        exact = (number & (number - 1) == 0) & (share * count == values)
        equal = np.where(copies.present[:, None], share[..., None], 0).astype(values.dtype)
        if exact.all():
            return equal
        others = split_exactly(values, fractions[:, :, None, :], self.spec.dtype)
        return np.where(exact[..., None], equal, others)

    def _fractions(self, copies: _Copies, run: int, rows: np.ndarray) -> np.ndarray:
        """Fractions "row source share" that sum to one over shares; absent copies have none."""
        if self.split == "uniform":
            drawn = np.ones((1, len(copies.map)))
        elif self.split == "per-channel":
            drawn = self.weights[run][None]
        elif self.split == "diagonal" and self.copy_of_row is not None:
            counts = copies.present.sum(axis=-1)
            wanted = self.copy_of_row[rows][:, None] % counts  # "row source"
            shares = np.arange(copies.table.shape[1]) - (copies.table.shape[1] - counts)[:, None]
            return (shares == wanted[:, :, None]).astype(np.float64)
        else:
            drawn = -np.log(self.stream.uniform_rows(rows, len(copies.map)))
        table = np.where(copies.present, drawn[:, copies.table], 0.0)
        if self.split == "select":
            table = (table == table.max(axis=-1, keepdims=True)).astype(np.float64)
        return table / table.sum(axis=-1, keepdims=True)

    def _noise(
        self,
        noise: Disturbance,
        copies: _Copies,
        rows: np.ndarray,
        taps: int,
        reading: Reading,
    ) -> np.ndarray:
        """Noise "row source tap share" that sums to zero over the copies that are there."""
        drawn = noise.stream.normal_rows(rows, len(copies.map) * taps)
        table = drawn.reshape(len(rows), len(copies.map), taps)[:, copies.table]
        table = np.moveaxis(table, 2, 3) * copies.present[:, None, :]
        counts = copies.present.sum(axis=-1)[:, None, None]
        table -= table.sum(axis=-1, keepdims=True) / counts * copies.present[:, None, :]
        table *= np.sqrt(counts / (counts - 1))  # what taking the mean away cost of its size
        return table * (noise.scale * reading.measure(noise.deviation))

    def kept(self) -> Kept | None:
        """Where the source is, if nothing was copied."""
        copied = self.factor != 1.0 or any((run.counts > 1).any() for run in self.runs)
        return None if copied else moved(self.source.kept(), self.axis, self.runs)

    def describe(self) -> str:
        """Names the axis, its two sizes and the split."""
        name = "columns" if self.axis else "rows"
        before, after = (
            len(self.runs) * width for width in (self.runs[0].width, len(self.runs[0]))
        )
        noise = ""
        if self.noise is not None:
            decibels = 20.0 * math.log10(share_size(self.split, self.runs[0]) / self.noise.scale)
            noise = (
                f", zero-sum noise of {self.noise.scale:.3g} deviations, "
                f"signal to noise {decibels:.1f} dB or more"
            )
        return f"{name} {before}→{after} divided ({self.split}{noise})"


def share_size(split: str, grown: ChannelMap) -> float:
    """The size of a share (root mean square) of a weight of size 1, over channels with copies."""
    copies = grown.counts[grown.counts > 1].astype(np.float64)
    if split == "uniform":
        squares = copies**-2
    elif split in ("select", "diagonal"):
        squares = copies**-1
    else:  # uniform on the simplex
        squares = 2.0 / (copies * (copies + 1.0))
    return float(np.sqrt((squares * copies).sum() / copies.sum())) if len(copies) else 1.0


@dataclass(frozen=True)
class _Copies:
    """The channels of a map that were copied, as a padded table.

    ``sources`` are the teacher's channels with several copies; ``table`` "source share" holds the
    student channels that copy them (0 where ``present`` is false); the last share of every row is
    present, so that it can take what remains. ``places`` are the student channels, in the
    order of ``present``.
    """

    map: ChannelMap
    chosen: np.ndarray | None = None

    def only(self, wanted: np.ndarray) -> _Copies:
        """The same table for some teacher channels."""
        return _Copies(self.map, np.unique(wanted))

    @cached_property
    def sources(self) -> np.ndarray:
        several = np.flatnonzero(self.map.counts > 1)
        return several if self.chosen is None else np.intersect1d(several, self.chosen)

    @property
    def count(self) -> int:
        return len(self.sources)

    @cached_property
    def table(self) -> np.ndarray:
        shares = int(self.map.counts.max())  # of all, so that sums are alike for any of them
        number = np.full(self.map.width, -1)
        number[self.sources] = np.arange(self.count)
        source = self.map.sources
        members = np.flatnonzero((source >= 0) & (number[np.maximum(source, 0)] >= 0))
        rows = number[source[members]]
        # right-aligned: a channel with fewer copies leaves the first shares empty
        from_right = self.map.counts[source[members]] - self.map.ranks[members]
        table = np.full((self.count, shares), -1)
        table[rows, shares - from_right] = members
        return table

    @cached_property
    def present(self) -> np.ndarray:
        return self.table >= 0

    @cached_property
    def places(self) -> np.ndarray:
        return self.table[self.present]
