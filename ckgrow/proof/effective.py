"""What a layer does to the channels that it is about, seen through dense factors in front of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ckgrow.header import last_place
from ckgrow.labels import ZERO, Labels
from ckgrow.proof.reading import Adding, LayerWeights, Taps
from ckgrow.provenance import most_recorded

DOUBLE = 2.0**-53
"""What adding two numbers in float64 may be off by, relative to them."""


@dataclass(frozen=True)
class Geometry:
    """Strides, and the sizes of maps before and behind a layer."""

    steps: tuple[int, ...]
    sizes: tuple[tuple[int | str, ...], tuple[int | str, ...]]


@dataclass(frozen=True)
class Plain:
    """A layer as it stands: its columns are the channels that it reads."""

    weights: LayerWeights
    table: Labels
    known: dict[tuple[int, int], tuple[Adding, np.ndarray | None, np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False
    )

    defect = 0.0

    @property
    def taps(self) -> Taps:
        """The offsets of a row's kernel."""
        return self.weights.taps

    @property
    def geometry(self) -> Geometry:
        """How it moves over a map."""
        return Geometry(self.weights.linear.steps, self.weights.linear.sizes)

    def columns(self, group: int) -> np.ndarray:
        """The labels that rows of a convolution group read."""
        return self.weights.group_columns(group)

    def classes(self, group: int) -> np.ndarray:
        """The distinct ones that are not zero, multiples taken apart."""
        bases = {self.table.parted(label)[1] for label in self.columns(group).tolist()}
        return np.array(sorted(bases - {ZERO}), dtype=np.int64)

    def sums(self, rows: np.ndarray, group: int, classes: np.ndarray) -> np.ndarray:
        """Weights added up, "rows classes taps"."""
        return self._added(self.weights.weights(rows), group, classes)

    def bias(self, rows: np.ndarray) -> np.ndarray:
        """What is added to rows."""
        return self.weights.bias[rows]

    def sizes(
        self, rows: np.ndarray, group: int, classes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(magnitude, slack) of sums: absolute weights added up, and what adding may be off by."""
        size = self._added(np.abs(self.weights.weights(rows)), group, classes)
        return size, size * self.adding(group)

    def adding(self, group: int) -> float:
        """What adding up columns in float64 may be off by, relative to their sizes."""
        return DOUBLE * len(self.columns(group))

    def bias_sizes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of biases, which are stored and not added up."""
        size = np.abs(self.bias(rows))
        return size, np.zeros_like(size)

    def _added(self, weights: np.ndarray, group: int, classes: np.ndarray) -> np.ndarray:
        adding, factors = self._adding(group, classes)
        return adding(weights if factors is None else weights * factors[:, None])

    def _adding(self, group: int, classes: np.ndarray) -> tuple[Adding, np.ndarray | None]:
        """How columns are added up, and by what they are multiplied before; kept for next time."""
        key = (group, id(classes))
        if key not in self.known:
            parted = [self.table.parted(label) for label in self.columns(group).tolist()]
            factors = np.array([factor for factor, _ in parted])
            bases = np.array([base for _, base in parted], dtype=np.int64)
            places = np.searchsorted(classes, bases)
            found = places < len(classes)
            found[found] = classes[places[found]] == bases[found]
            adding = Adding.of(np.where(found, places, -1), len(classes))
            plain = bool((factors == 1.0).all())
            self.known.clear()
            self.known[key] = adding, None if plain else factors, classes
        return self.known[key][:2]


@dataclass(frozen=True)
class Product:
    """A layer whose columns are rows of a dense factor: both together, M (W' x + b').

    ``recorded`` is the defect in the student's record. Every weight of the factor is off by half a
    unit in its last place at most, which bounds what the product is off by, entry by entry.
    """

    outer: Plain
    inner: Effective
    row_of: Mapping[int, int]
    recorded: float

    @property
    def weights(self) -> LayerWeights:
        """Those of the layer itself."""
        return self.outer.weights

    @property
    def defect(self) -> float:
        """What is recorded of both."""
        most = most_recorded(self.weights.dtype)
        return min(self.recorded, most) + self.inner.defect

    @property
    def taps(self) -> Taps:
        """Those of the factor."""
        return self.inner.taps

    @property
    def geometry(self) -> Geometry:
        """That of the factor, which the layer keeps."""
        return self.inner.geometry

    def columns(self, group: int) -> np.ndarray:
        """What the factor reads."""
        return self.inner.columns(self._inner_group(group))

    def classes(self, group: int) -> np.ndarray:
        """The factor's."""
        return self.inner.classes(self._inner_group(group))

    def sums(self, rows: np.ndarray, group: int, classes: np.ndarray) -> np.ndarray:
        """M W', "rows classes taps"."""
        mixing, inner = self._mixing(rows, group), self._inner_rows(group)
        right = self.inner.sums(inner, self._inner_group(group), classes)
        return np.tensordot(mixing, right, axes=1)

    def bias(self, rows: np.ndarray) -> np.ndarray:
        """M b' + b."""
        group = int(rows[0]) // self.weights.rows_per_group
        own = self.inner.bias(self._inner_rows(group))
        return self.outer.bias(rows) + self._mixing(rows, group) @ own

    def sizes(
        self, rows: np.ndarray, group: int, classes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """|M| |W'|; half a unit in the last place of every W', and what adding up M is off by."""
        whole, mixing, off = self._sizes_of_mixing(rows, group)
        inner = self._inner_rows(group)
        size, slack = self.inner.sizes(inner, self._inner_group(group), classes)
        each = size * self._rounding(group) + slack
        added = np.tensordot(whole, size, axes=1)
        return added, np.tensordot(mixing, each, axes=1) + off * added

    def bias_sizes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """|M| |b'|, likewise."""
        group = int(rows[0]) // self.weights.rows_per_group
        whole, mixing, off = self._sizes_of_mixing(rows, group)
        own, rounding = np.abs(self.outer.bias(rows)), self._rounding(group)
        size, slack = self.inner.bias_sizes(self._inner_rows(group))
        added = whole @ size
        return added + own, mixing @ (size * rounding + slack) + off * added + own * rounding

    def _sizes_of_mixing(
        self, rows: np.ndarray, group: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """What adds up to |M|, |M|, "rows members"; and what adding is off by, relative to it."""
        whole, _ = self.outer.sizes(rows, group, self._members(group))
        off = self.outer.adding(group)
        return whole[:, :, 0], np.abs(self._mixing(rows, group)), off

    def _rounding(self, group: int) -> float:
        """Of W', and of solving for it and of multiplying by it in float64."""
        count = len(self._members(group))
        half = last_place(self.inner.weights.dtype) / 2
        return half + DOUBLE * (count + 24 * math.sqrt(count) + 4)

    def _members(self, group: int) -> np.ndarray:
        """Of what the layer reads, the factor's rows; the rest has to cancel."""
        read = self.outer.classes(group).tolist()
        return np.array([label for label in read if label in self.row_of], dtype=np.int64)

    def _inner_rows(self, group: int) -> np.ndarray:
        return np.array([self.row_of[label] for label in self._members(group).tolist()])

    def _inner_group(self, group: int) -> int:
        return int(self._inner_rows(group)[0]) // self.inner.weights.rows_per_group

    def _mixing(self, rows: np.ndarray, group: int) -> np.ndarray:
        return self.outer.sums(rows, group, self._members(group))[:, :, 0]

    @cached_property
    def fits(self) -> bool:
        """Whether it is a product of matrices: one tap here, and all of a group from one group.

        Nothing else may be read than the factor's rows, but for what cancels.
        """
        if len(self.outer.taps) != 1 or any(self.outer.taps[0]):
            return False
        if not keeps_size(self.outer.geometry):
            return False
        per_group = self.inner.weights.rows_per_group
        return all(
            len(set((self._inner_rows(group) // per_group).tolist())) == 1 and self._cancels(group)
            for group in range(self.weights.linear.groups)
        )

    def _cancels(self, group: int) -> bool:
        """Whether what is read besides the factor's rows adds up to nothing."""
        rest = np.setdiff1d(self.outer.classes(group), self._members(group))
        if not len(rest):
            return True
        rows = np.arange(self.weights.rows_per_group) + group * self.weights.rows_per_group
        _, slack = self.outer.sizes(rows, group, rest)
        return bool((np.abs(self.outer.sums(rows, group, rest)) <= slack).all())


Effective = Plain | Product
"""A layer by what it does, whichever way it is stored."""


def centre(taps: Taps) -> int | None:
    """Which tap reads the place that an output stands at, None where none does."""
    return next((index for index, tap in enumerate(taps) if not any(tap)), None)


def keeps_size(geometry: Geometry) -> bool:
    """Whether a layer moves over its input step by step and makes a map of the same size."""
    return geometry.sizes[0] == geometry.sizes[1] and math.prod(geometry.steps) == 1
