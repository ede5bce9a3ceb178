"""Tensors as they are stored, filled with one value, or freshly drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckgrow.header import TensorSpec, numpy_dtype
from ckgrow.random import Stream, clusters
from ckgrow.recipes.base import Kept, Reading, Recipe, Statistic
from ckgrow.recipes.copies import selection, taken

MOST_READ = 4
"""How many times the rows that are needed are read at most, to read them at once."""


@dataclass(frozen=True, eq=False)
class Stored(Recipe):
    """A tensor of the teacher's file as it is."""

    spec: TensorSpec
    name: str

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Reads every needed row once: with those between them, where they are not far apart."""
        if isinstance(chosen := selection(index), slice):
            return reading.read(self.name, chosen.start, chosen.stop)
        wanted, inverse = np.unique(index, return_inverse=True)
        first, last = int(wanted[0]), int(wanted[-1])
        if last - first < MOST_READ * len(wanted):
            return taken(reading.read(self.name, first, last + 1), index - first, 0)
        pieces = [reading.read(self.name, top, end + 1) for _, _, top, end in clusters(wanted)]
        return taken(np.concatenate(pieces), inverse, 0)

    def kept(self) -> Kept:
        """All of it."""
        return tuple(np.arange(size) for size in self.spec.shape)

    def describe(self) -> str:
        """Nothing happens to it."""
        return ""


@dataclass(frozen=True, eq=False)
class Filled(Recipe):
    """A tensor with one value everywhere, given or measured."""

    spec: TensorSpec
    value: float | Statistic

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """The value in the result's dtype."""
        value = reading.measure(self.value) if isinstance(self.value, Statistic) else self.value
        return np.full((len(index), *self.spec.shape[1:]), value, numpy_dtype(self.spec.dtype))

    def describe(self) -> str:
        """Names the value."""
        if isinstance(self.value, Statistic):
            return f"new, {self.value.describe()}"
        return f"new, {self.value:g}"


@dataclass(frozen=True, eq=False)
class Drawn(Recipe):
    """Fresh weights: uniform in (-s sqrt 3, s sqrt 3), whose standard deviation is s.

    s is ``scale`` times ``deviation``.
    """

    spec: TensorSpec
    stream: Stream
    deviation: float | Statistic
    scale: float = 1.0

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Row r holds draws r * length on of the stream, whoever asks."""
        deviation = self.deviation
        if isinstance(deviation, Statistic):
            deviation = reading.measure(deviation)
        shape = (len(index), *self.spec.shape[1:])
        u = self.stream.uniform_rows(index, int(np.prod(shape[1:], dtype=np.int64)))
        weights = (2.0 * u - 1.0) * (np.sqrt(3.0) * self.scale * deviation)
        return weights.reshape(shape).astype(numpy_dtype(self.spec.dtype))

    def describe(self) -> str:
        """Names the deviation and where it comes from."""
        times = "" if self.scale == 1.0 else f"{self.scale:g} times "
        if isinstance(self.deviation, Statistic):
            stand_in = " (He's if that is 0)" if self.deviation.otherwise else ""
            return f"new, random with {times}{self.deviation.describe()}{stand_in}"
        return f"new, random with {times}deviation {self.deviation:.3g}"


@dataclass(frozen=True, eq=False)
class UnitKernel(Recipe):
    """A layer that passes its input on: weight "channels channels/runs *kernel".

    Row r has a single one, at its own channel inside its run and at the centre of the kernel,
    whose sizes are odd.
    """

    spec: TensorSpec

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """One 1 per row."""
        shape = self.spec.shape
        weights = np.zeros((len(index), *shape[1:]), numpy_dtype(self.spec.dtype))
        taps = weights.reshape(len(index), shape[1], -1)  # the middle one is the centre
        taps[np.arange(len(index)), index % shape[1], taps.shape[2] // 2] = 1
        return weights

    def describe(self) -> str:
        """The identity."""
        return "new, identity"
