"""BatchNorms that undo themselves in eval mode: gamma (x - mean) / sqrt(var + eps) + beta = x.

beta = mean takes care of the mean, exactly. What is left is gamma / sqrt(var + eps) = 1 in stored
numbers: gamma = sqrt(var + eps) rounded is off by up to half a unit in the last place. But var may
be any number near the one that is wanted. Among thousands of neighbouring gammas one squares to a
var + eps that is stored almost without rounding, and that one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ckgrow.header import TensorSpec, numpy_dtype
from ckgrow.recipes.base import Reading, Recipe

NEIGHBOURS = 1 << 13
FARTHEST = 2.0**-5
"""How far gamma may be from the one that is wanted, relative to it."""
_CHANNELS = 64
"""How many are searched at a time: a few megabytes of candidates."""

DEFECTS = {"float32": 2.0**-34, "float64": 2.0**-51}
"""What gamma / sqrt(var + eps) is off by at most, all but surely: the best of 2^13 roundings, each
of which is off by up to 2^-25, misses by more in one channel of ten million."""

Role = Literal["gamma", "beta", "mean", "var"]
ROLES: tuple[Role, ...] = ("gamma", "beta", "mean", "var")
"""In the order of a BatchNorm's inputs."""


@dataclass(frozen=True, eq=False)
class Undoing(Recipe):
    """One tensor of a BatchNorm that undoes itself, whatever the activations are."""

    spec: TensorSpec
    role: Role
    epsilon: float

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """The same for all channels."""
        return np.full(len(index), self._value, numpy_dtype(self.spec.dtype))

    @property
    def _value(self) -> float:
        gamma, variance, _ = identity_statistics(self.spec.dtype, self.epsilon)
        return {"gamma": gamma, "beta": 0.0, "mean": 0.0, "var": variance}[self.role]

    def describe(self) -> str:
        """Names the value."""
        return f"new, {self._value:g}"


@cache
def identity_statistics(dtype: str, epsilon: float) -> tuple[float, float, float]:
    """(gamma, var, defect) near 1 with gamma / sqrt(var + epsilon) as near 1 as ``dtype`` can.

    ``defect`` is the distance from 1: below 1e-13 in float32, since among a million values of
    gamma one has a var that is stored almost without rounding.
    """
    stored = numpy_dtype(dtype)
    candidates = np.unique(np.linspace(1.0, 1.25, 1 << 20).astype(stored)).astype(np.float64)
    variances = (candidates**2 - epsilon).astype(stored).astype(np.float64)
    defects = np.abs(candidates / np.sqrt(variances + epsilon) - 1.0)
    best = int(np.argmin(defects))
    return float(candidates[best]), float(variances[best]), float(defects[best])


def undone(
    mean: np.ndarray, variance: np.ndarray, dtype: str, epsilon: float
) -> dict[Role, np.ndarray]:
    """The four tensors for measured statistics, as ``dtype`` holds them."""
    stored = numpy_dtype(dtype)
    centre = mean.astype(stored)
    parts = [
        _nearest(variance[start : start + _CHANNELS], stored, epsilon)
        for start in range(0, len(variance), _CHANNELS)
    ]
    gamma, found = (np.concatenate(each) for each in zip(*parts, strict=True))
    return {"gamma": gamma, "beta": centre, "mean": centre, "var": found}


def _nearest(
    variance: np.ndarray, stored: np.dtype[np.generic], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(gamma, var) of each channel, near its variance."""
    wanted = np.sqrt(variance + epsilon)
    if stored.itemsize == 8:
        return wanted, variance.copy()
    bits = {2: np.int16, 4: np.int32}[stored.itemsize]
    steps = np.arange(-NEIGHBOURS // 2, NEIGHBOURS // 2)
    centre = wanted.astype(stored).view(bits).astype(np.int64)
    # positive floats stand in the order of their bits; steps below the smallest stay there
    gammas = np.maximum(centre[:, None] + steps, 1).astype(bits).view(stored)  # "channel candidate"
    with np.errstate(invalid="ignore", over="ignore"):
        values = gammas.astype(np.float64)
        variances = (values**2 - epsilon).astype(stored)
        defects = np.abs(values / np.sqrt(variances.astype(np.float64) + epsilon) - 1.0)
        far = np.abs(values / wanted[:, None] - 1.0) > FARTHEST
    defects[far | ~(variances >= 0) | ~np.isfinite(defects)] = np.inf
    best = np.argmin(defects, axis=1)
    channels = np.arange(len(variance))
    return gammas[channels, best], variances[channels, best]
