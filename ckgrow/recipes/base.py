"""What a recipe is."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np

from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap

Taken = TypeVar("Taken")


class Reading(Protocol):
    """What a recipe may ask for while it computes."""

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a teacher tensor in its stored dtype."""
        ...

    def measure(self, statistic: Statistic) -> float:
        """The value of a statistic, measured once."""
        ...

    def once(self, measurement: Measurement[Taken]) -> Taken:
        """What ``measurement`` takes, taken once for all tiles."""
        ...


class Measurement(ABC, Generic[Taken]):
    """Something that many tiles need and that is costly to come by; equal ones are the same.

    What is taken is kept while the tensor is made that asked for it, and to the end of the run
    where it is ``lasting``.
    """

    lasting: ClassVar[bool] = False

    @abstractmethod
    def take(self, reading: Reading) -> Taken:
        """Takes it."""


Kept = tuple[np.ndarray, ...]
"""Where a teacher's tensor stands in a student's: for each axis, an index for each entry."""


class Recipe(ABC):
    """One step of making a tensor; ``spec`` is the dtype and shape of the result."""

    spec: TensorSpec

    @abstractmethod
    def rows(self, index: np.ndarray, reading: Reading) -> np.ndarray:
        """The rows ``index``; shape (len(index), *spec.shape[1:]), dtype ``spec.dtype``."""

    @abstractmethod
    def describe(self) -> str:
        """This step in a few words, "" for an unchanged tensor."""

    def kept(self) -> Kept | None:
        """Where the teacher's own tensor stands bit for bit; None where it is not to be found."""
        return None

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


def moved(kept: Kept | None, axis: int, runs: Sequence[ChannelMap]) -> Kept | None:
    """Where what was ``kept`` stands after ``axis`` has followed ``runs``: at the first copies."""
    if kept is None:
        return None
    found: np.ndarray | None = None
    for run in runs:
        places = np.full(run.width, -1, np.int64)
        copies = np.flatnonzero(run.sources >= 0)[::-1]
        places[run.sources[copies]] = copies  # of several, the last assignment stays: the first
        index = places[kept[axis]]
        if (index < 0).any() or (found is not None and not np.array_equal(found, index)):
            return None
        found = index
    return None if found is None else (*kept[:axis], found, *kept[axis + 1 :])


def ranges(index: np.ndarray) -> str:
    """Positions as slices: ``0:64``, ``0:12:2``, ``0:6,9:12``."""
    said: list[str] = []
    steps = np.diff(index)
    turns = np.append(np.flatnonzero(np.diff(steps)), len(steps) - 1) + 1  # last of equal steps
    start = 0
    while start < len(index):
        step = int(steps[start]) if start < len(steps) else 1
        goes_on = start < len(steps) and step > 0
        last = int(turns[np.searchsorted(turns, start, side="right")]) if goes_on else start
        first, stop = int(index[start]), int(index[last]) + 1
        said.append(f"{first}:{stop}" if step == 1 or last == start else f"{first}:{stop}:{step}")
        start = last + 1
    return ",".join(said) or "0:0"


def history(recipe: Recipe) -> str:
    """Everything that happens to a tensor, in order; "unchanged" when nothing does."""
    said: list[str] = []
    step: object = recipe
    while isinstance(step, Recipe):
        if text := step.describe():
            said.append(text)
        step = getattr(step, "source", None)
    return "; ".join(reversed(said)) or "unchanged"
