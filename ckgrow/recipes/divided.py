"""Weights divided among copies of the channels they read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.random import Stream
from ckgrow.recipes.base import Kept, Reading, Recipe, moved
from ckgrow.recipes.copies import Family, Layout, as_bits, families, selection, taken
from ckgrow.recipes.splits import Block, Disturbance, Table, share_size
from ckgrow.shares import divide, divide_evenly, split_exactly

CHUNK = 1 << 17
"""Weights that are divided at a time: what is computed on the way stays in the cache."""


@dataclass(frozen=True, eq=False)
class Divided(Recipe):
    """Entries along ``axis`` go to the copies of ``runs``, each copy with a share that sums to one.

    ``runs`` has one map per convolution group (one for everything else): rows of group b follow
    map b. ``split`` is ``unequal``, ``select``, ``uniform``, ``per-channel``, which takes
    positive ``weights`` per student channel and run, or ``diagonal``, by which row r reads copy
    ``copy_of_row[r]`` modulo the number of copies. ``factor`` multiplies what goes to channels
    that were copied; a power of two, so that nothing rounds.

    Axis 0 is allowed for layouts that keep inputs first; there is one run then. Random numbers
    belong to rows of the result, and where inputs come first to rows of the source.
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
        if len(self.runs) == 1:
            return self._columns(0, whole, index, reading)
        made = np.empty((len(index), *self.spec.shape[1:]), whole.dtype)
        run_of_row = index * len(self.runs) // self.spec.shape[0]
        for run in np.unique(run_of_row).tolist():
            chosen = np.flatnonzero(run_of_row == run)
            made[chosen] = self._columns(run, whole[chosen], index[chosen], reading)
        return made

    def _columns(
        self, run: int, whole: np.ndarray, index: np.ndarray, reading: Reading
    ) -> np.ndarray:
        """Rows ``index`` of one run, which in the source are ``whole``."""
        members, layout = _copies(self.runs[run])
        made = layout.copied(whole, self.axis)
        into, out = (np.moveaxis(as_bits(each), self.axis, 1) for each in (made, whole))
        taps = math.prod(into.shape[2:])
        width = sum(len(family.sources) for family in members)
        for rows in _steps(len(index), width * taps):
            tables = self._tables(index[rows], members, width, taps)
            for family in members:
                for part in _steps(len(family.sources), taps):
                    places = family.places[:, part]
                    values = taken(out[rows], family.sources[part], 1)
                    block = Block(
                        values.view(whole.dtype).reshape(*values.shape[:2], taps),
                        family.copies,
                        tables[0],
                        family.before + part.start,
                        self.weights[run][places][:, None, :, None] if self.weights else None,
                        self._picked(index[rows], (-1, 1, 1)),
                    )
                    shares = self._shares(block, tables[1], reading)
                    for each, share in zip(places, shares, strict=True):
                        into[rows, selection(each)] = as_bits(share).reshape(values.shape)
        return made

    def _inputs_first(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Rows are the copied channels: of each, the shares of the copies that are wanted."""
        grown = self.runs[0]
        wanted, ranks = grown.sources[index], grown.ranks[index]
        # of our own, since what is read may be the teacher's memory
        made = np.require(self.source.rows(wanted, reading), requirements="W")
        outputs = made.shape[1] if made.ndim > 1 else 1
        flat = made.reshape(len(index), outputs, -1)  # "place out tap"
        taps = flat.shape[2]
        for family in _copies(grown)[0]:
            places = np.flatnonzero(np.isin(wanted, family.sources))
            sources, firsts, inverse = np.unique(
                wanted[places], return_index=True, return_inverse=True
            )
            for rows in _steps(len(sources), outputs * taps):
                tables = self._tables(sources[rows], (family,), outputs, taps)
                here = np.flatnonzero((inverse >= rows.start) & (inverse < rows.stop))
                for part in _steps(outputs, taps):
                    stated = None
                    if self.weights:
                        shown = family.places[:, np.searchsorted(family.sources, sources[rows])]
                        stated = self.weights[0][shown][:, :, None, None]
                    block = Block(
                        flat[places[firsts[rows]], part],
                        family.copies,
                        tables[0],
                        part.start,
                        stated,
                        self._picked(np.arange(part.start, part.stop), (1, -1, 1)),
                    )
                    shares = self._shares(block, tables[1], reading)
                    for copy, share in enumerate(shares):
                        mine = here[ranks[places[here]] == copy]
                        flat[places[mine], part] = share[inverse[mine] - rows.start]
        return made

    def _shares(self, block: Block, noise: Table | None, reading: Reading) -> list[np.ndarray]:
        """What each copy gets of the weights of a block."""
        values, dtype = block.values, self.spec.dtype
        if noise is not None and self.noise is not None:
            size = self.noise.scale * reading.measure(self.noise.deviation)
            disturbance = block.noise(noise, size)
            shares = split_exactly(values, block.fractions(self.split), dtype, disturbance)
        elif self.split == "uniform":
            shares = divide_evenly(values, block.copies, dtype)
        else:
            shares = divide(values, block.fractions(self.split), dtype)
        if self.factor == 1.0:
            return shares
        return [
            (share * np.asarray(self.factor, share.dtype)).astype(share.dtype) for share in shares
        ]

    def _tables(
        self, rows: np.ndarray, members: tuple[Family, ...], width: int, taps: int
    ) -> tuple[Table, Table | None]:
        """Random numbers for shares, and for noise if there is any."""
        copies = max((family.copies for family in members), default=2)
        drawn = Table(self.stream, rows, copies - 1, width)
        if self.noise is None:
            return drawn, None
        return drawn, Table(self.noise.stream, rows, copies, width * taps, normal=True)

    def _picked(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        if self.split != "diagonal" or self.copy_of_row is None:
            return None
        return self.copy_of_row[rows].reshape(shape)

    def kept(self) -> Kept | None:
        """Where the source is, if nothing was copied."""
        divided = self.factor != 1.0 or any(run.has_copies for run in self.runs)
        return None if divided else moved(self.source.kept(), self.axis, self.runs)

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


@lru_cache(maxsize=16)
def _copies(grown: ChannelMap) -> tuple[tuple[Family, ...], Layout]:
    """Of a map; kept for the last ones only, since a large network has thousands."""
    members = families(grown)
    return members, Layout.of(grown, members)


def _steps(count: int, size: int) -> Iterator[slice]:
    """Slices of ``count`` things of ``size`` weights each, a chunk at a time."""
    step = max(1, CHUNK // max(size, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
