"""What a recipe is."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ckgrow.header import TensorSpec


class Reading(Protocol):
    """What a recipe may ask for while it computes."""

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a teacher tensor in its stored dtype."""
        ...

    def measure(self, statistic: Statistic) -> float:
        """The value of a statistic, measured once."""
        ...


class Recipe(ABC):
    """One step of making a tensor; ``spec`` is the dtype and shape of the result."""

    spec: TensorSpec

    @abstractmethod
    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """The rows ``index``; shape (len(index), *spec.shape[1:]), dtype ``spec.dtype``."""

    @abstractmethod
    def describe(self) -> str:
        """This step in a few words, "" for an unchanged tensor."""

    def quiet(self) -> Recipe:
        """The same recipe with its noise off."""
        source = getattr(self, "source", None)
        if not isinstance(source, Recipe):
            return self
        return dataclasses.replace(self, source=source.quiet())  # type: ignore[type-var]  # all are


@dataclass(frozen=True, eq=False)
class Statistic:
    """A number measured over a whole tensor.

    ``mean`` and ``deviation`` (standard, of the population, in float64). Where the deviation is
    0, ``otherwise`` stands in for it.
    """

    kind: Literal["mean", "deviation"]
    of: Recipe
    label: str
    otherwise: float = 0.0

    def describe(self) -> str:
        """For instance ``the deviation of layer3.1.conv1.weight``."""
        return f"the {self.kind} of {self.label}"


def history(recipe: Recipe) -> str:
    """Everything that happens to a tensor, in order; "unchanged" when nothing does."""
    said: list[str] = []
    step: object = recipe
    while isinstance(step, Recipe):
        if text := step.describe():
            said.append(text)
        step = getattr(step, "source", None)
    return "; ".join(reversed(said)) or "unchanged"
