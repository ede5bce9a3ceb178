"""Tensors that change the function, beside those that would not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.recipes.base import Kept, Reading, Recipe


@dataclass(frozen=True, eq=False)
class Loud(Recipe):
    """``source``, where ``neutral`` would keep the function: that is what the quiet version has.

    Everything that changes the function on purpose is said like this, and only like this.
    """

    source: Recipe
    neutral: Recipe
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.source.spec)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Those of the source."""
        return self.source.rows(index, reading)

    def kept(self) -> Kept | None:
        """Where the source has it."""
        return self.source.kept()

    def quiet(self) -> Recipe:
        """The tensor that keeps the function."""
        return self.neutral.quiet()

    def describe(self) -> str:
        """Nothing more happens to it."""
        return ""
