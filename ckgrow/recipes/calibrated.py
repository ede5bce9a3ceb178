"""Tensors whose new entries are measured on the user's own inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.recipes.base import Kept, Measurement, Reading, Recipe

Measured = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Calibrated(Recipe):
    """A per-channel tensor as ``calibration`` makes it; it measures whole tensors, by key.

    ``source`` is the tensor without data: what stays of it, and all of it in the quiet version.
    """

    source: Recipe
    key: str
    calibration: Measurement[Measured]
    label: str
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.source.spec)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Entries of what was measured once for all tensors of a step."""
        return reading.once(self.calibration)[self.key][index]

    def kept(self) -> Kept | None:
        """Where the source is: only new entries are measured."""
        return self.source.kept()

    def quiet(self) -> Recipe:
        """Without the data."""
        return self.source.quiet()

    def describe(self) -> str:
        """Names the file."""
        return f"new entries measured on {self.label}"
