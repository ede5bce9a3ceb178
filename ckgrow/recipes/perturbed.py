"""Tensors with noise on some rows, or with rows scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.random import Stream
from ckgrow.recipes.base import Kept, Reading, Recipe, Statistic


@dataclass(frozen=True, eq=False)
class Noised(Recipe):
    """Gaussian noise of ``scale`` times ``deviation`` on the entries ``chosen`` of one axis.

    ``mean`` is added there too, when it is given.
    """

    source: Recipe
    axis: int
    chosen: np.ndarray
    stream: Stream
    deviation: Statistic
    scale: float
    mean: Statistic | None = None
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.source.spec)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Row r holds draws r * length on of the stream, whoever asks."""
        clean = self.source.rows(index, reading)
        if self.axis == 0:
            noisy = np.flatnonzero(self.chosen[index])
            made = np.array(clean)
            if len(noisy):
                made[noisy] = self._disturbed(clean[noisy], index[noisy], reading)
            return made
        made = self._disturbed(clean, index, reading)
        place = [1] * clean.ndim
        place[self.axis] = len(self.chosen)
        return np.where(self.chosen.reshape(place), made, clean)

    def _disturbed(self, clean: np.ndarray, index: np.ndarray, reading: Reading) -> np.ndarray:
        """All entries of rows ``index`` with noise."""
        length = math.prod(clean.shape[1:])
        noise = self.stream.normals(index, length, 0, length).reshape(clean.shape)
        wide = noise * (self.scale * reading.measure(self.deviation))
        if self.mean is not None:
            wide += reading.measure(self.mean)
        return (clean.astype(np.float64) + wide).astype(clean.dtype)

    def describe(self) -> str:
        """Names the size of the noise."""
        mean = " and its mean" if self.mean is not None else ""
        decibels = -20.0 * math.log10(self.scale)
        return (
            f"gaussian noise of {self.scale:g} x {self.deviation.describe()}{mean} "
            f"(signal to noise {decibels:.1f} dB)"
        )

    def kept(self) -> Kept | None:
        """Where the source is, unless noise fell on it."""
        kept = self.source.kept()
        return None if kept is None or self.chosen[kept[self.axis]].any() else kept


@dataclass(frozen=True, eq=False)
class Scaled(Recipe):
    """Entries of one axis multiplied by ``factors``, which are powers of two: nothing rounds."""

    source: Recipe
    axis: int
    factors: np.ndarray
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.source.spec)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Multiplies in the stored dtype."""
        values = self.source.rows(index, reading)
        factors = self.factors[index] if self.axis == 0 else self.factors
        place = [1] * values.ndim
        place[self.axis] = len(factors)
        return (values * factors.reshape(place).astype(values.dtype)).astype(values.dtype)

    def kept(self) -> Kept | None:
        """Where the source is, unless it was scaled."""
        kept = self.source.kept()
        return None if kept is None or (self.factors[kept[self.axis]] != 1).any() else kept

    def describe(self) -> str:
        """Names the factors."""
        rescaled = self.factors[self.factors != 1]
        return f"{len(rescaled)} rows times {rescaled[0]:g}" if len(rescaled) else ""
