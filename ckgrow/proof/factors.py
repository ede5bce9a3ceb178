"""Dense factors of a student, and the layers behind them that make products of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ckgrow.labels import UNKNOWN, ZERO
from ckgrow.ops.tracing import Linear
from ckgrow.proof.effective import Effective, Plain, Product


@dataclass(frozen=True)
class Factor:
    """A layer that is certified to be one, and the row that makes each label."""

    linear: Linear
    row_of: Mapping[int, int]


@dataclass(frozen=True)
class Factors:
    """Those met so far, in order. ``plain`` is a layer as it stands, ``defects`` the record's."""

    plain: Callable[[Linear], Plain]
    defects: Mapping[str, float]
    known: dict[str, Factor] = field(default_factory=dict)

    def add(self, linear: Linear, labels: np.ndarray) -> None:
        """One more, whose rows have these labels."""
        first, at = np.unique(labels, return_index=True)
        rows = dict(zip(first.tolist(), at.tolist(), strict=True))
        rows.pop(UNKNOWN, None)
        self.known[linear.node.name] = Factor(linear, rows)

    def readings(self, linear: Linear, copied: bool, passing: bool) -> Iterator[Effective]:
        """A layer as it stands, and as the product with the factor that it reads.

        Copies are the teacher's only together; anything else may be as claimed in either way.
        """
        if passing or not copied:
            yield self.plain(linear)
        effective = self.effective(linear)
        if isinstance(effective, Product) or (effective is not None and copied and not passing):
            yield effective

    def effective(self, linear: Linear) -> Effective | None:
        """A layer, together with the factor in front that it reads; None where they do not fit."""
        plain = self.plain(linear)
        bases = {plain.table.parted(label)[1] for label in linear.columns.tolist()} - {ZERO}
        every = self.known.values()
        earlier = itertools.takewhile(lambda each: each.linear.node != linear.node, every)
        factor = next((each for each in earlier if bases & each.row_of.keys()), None)
        if factor is None:
            return plain
        below = self.effective(factor.linear)
        if below is None:
            return None
        recorded = self.defects.get(linear.node.name, 0.0)
        product = Product(plain, below, factor.row_of, recorded)
        return product if product.fits else None

    def owner(self, tensor: str) -> str | None:
        """The factor that a tensor belongs to."""
        names = (name for name, each in self.known.items() if tensor in each.linear.node.inputs)
        return next(names, None)

    def made(self, labels: set[int]) -> bool:
        """Whether all of these are rows of one factor."""
        return any(labels <= each.row_of.keys() for each in self.known.values())
