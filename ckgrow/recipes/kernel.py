"""Kernels with zeros around them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.recipes.base import Kept, Reading, Recipe

CHANNEL_DIMS = 2  # a kernel is "out in/group *sizes"


@dataclass(frozen=True, eq=False)
class Surrounded(Recipe):
    """A convolution's weight whose kernel has ``margins[axis]`` zeros more on either side."""

    source: Recipe
    margins: tuple[int, ...]
    spec: TensorSpec = field(init=False)

    def __post_init__(self) -> None:
        shape = self.source.spec.shape
        sizes = (n + 2 * m for n, m in zip(shape[CHANNEL_DIMS:], self.margins, strict=True))
        spec = TensorSpec(self.source.spec.dtype, (*shape[:CHANNEL_DIMS], *sizes))
        object.__setattr__(self, "spec", spec)

    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """Every row with its zeros."""
        sides = ((0, 0),) * CHANNEL_DIMS + tuple((margin, margin) for margin in self.margins)
        return np.pad(self.source.rows(index, reading), sides)

    def kept(self) -> Kept | None:
        """In the middle."""
        kept = self.source.kept()
        if kept is None:
            return None
        moved = (places + n for places, n in zip(kept[CHANNEL_DIMS:], self.margins, strict=True))
        return (*kept[:CHANNEL_DIMS], *moved)

    def describe(self) -> str:
        """Names both sizes."""
        before, after = (
            "x".join(map(str, spec.shape[CHANNEL_DIMS:])) for spec in (self.source.spec, self.spec)
        )
        return f"kernel {before}→{after}, zeros around"
