"""Which part of a weight each copy of its channel gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ckgrow.maps import ChannelMap
from ckgrow.random import Stream
from ckgrow.recipes.base import Statistic

MOST_DRAWN = 1 << 17
"""Numbers of a row that are drawn at once; of longer rows, those that are needed."""


@dataclass(frozen=True)
class Disturbance:
    """Zero-sum noise on shares: ``scale`` times the measured deviation of the layer."""

    stream: Stream
    deviation: Statistic
    scale: float


@dataclass(frozen=True, eq=False)
class Table:
    """Random numbers "row level column", fractions or ``normal`` ones.

    Fractions have a level for each cut between copies, normal numbers one for each copy.
    """

    stream: Stream
    rows: np.ndarray
    levels: int
    width: int
    normal: bool = False

    def part(self, level: int, start: int, stop: int) -> np.ndarray:
        """Columns of one level, "row column" in float32."""
        first = level * self.width
        if self.levels * self.width <= MOST_DRAWN:
            return self._whole[:, first + start : first + stop]
        return self._drawn(first + start, first + stop)

    @cached_property
    def _whole(self) -> np.ndarray:
        return self._drawn(0, self.levels * self.width)

    def _drawn(self, start: int, stop: int) -> np.ndarray:
        draw = self.stream.normals if self.normal else self.stream.fractions
        return draw(self.rows, self.levels * self.width, start, stop)


@dataclass(frozen=True, eq=False)
class Block:
    """Weights "row entry tap" whose channels have equally many ``copies``.

    Their random numbers stand in the same rows of ``drawn``, from column ``start`` on. ``stated``
    are weights of the copies, "copy row entry 1", and ``picked`` which copy takes all, "row entry
    1"; their axes may have size 1.
    """

    values: np.ndarray
    copies: int
    drawn: Table
    start: int
    stated: np.ndarray | None = None
    picked: np.ndarray | None = None

    def _drawn(self, levels: int) -> list[np.ndarray]:
        stop = self.start + self.values.shape[1]
        return [self.drawn.part(level, self.start, stop)[:, :, None] for level in range(levels)]

    def fractions(self, split: str) -> list[np.ndarray]:
        """What all copies but the last get of every weight; each broadcasts to the weights."""
        kind = np.float64 if self.values.dtype == np.float64 else np.float32
        if split == "uniform":
            return [np.full((1, 1, 1), 1.0 / self.copies, kind)] * (self.copies - 1)
        if self.stated is not None:
            return list((self.stated / self.stated.sum(axis=0))[:-1].astype(kind))
        if self.picked is not None or split == "select":
            picked = self.choice()
            return [(picked == copy).astype(kind) for copy in range(self.copies - 1)]
        if self.copies == 2:
            return self._drawn(1)
        # distances between sorted points: uniform on the simplex
        points = np.sort(np.stack(self._drawn(self.copies - 1)), axis=0)
        return [points[0], *np.diff(points, axis=0)]

    def choice(self) -> np.ndarray:
        """Which copy takes the whole weight: the picked one, or any."""
        if self.picked is not None:
            return self.picked % self.copies
        return (self._drawn(1)[0] * self.copies).astype(np.int64)

    def noise(self, drawn: Table, size: float) -> list[np.ndarray]:
        """Noise of deviation ``size`` on all copies but the last; over all, it sums to zero."""
        rows, entries, taps = self.values.shape
        start, stop = self.start * taps, (self.start + entries) * taps
        levels = np.stack([drawn.part(copy, start, stop) for copy in range(self.copies)])
        levels -= levels.mean(axis=0)
        # what taking the mean away cost of its size
        levels *= np.float32(size * (self.copies / (self.copies - 1)) ** 0.5)
        return list(levels[:-1].reshape(-1, rows, entries, taps))


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
