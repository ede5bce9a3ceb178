"""What a student's record says of its weights: which are the teacher's, and what made the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckgrow.provenance import Provenance


@dataclass(frozen=True)
class Ancestry:
    """Where the teacher's tensors stand, and which of its layers the student's come from.

    ``kept`` has a slice per axis for every tensor that is the teacher's bit for bit there,
    ``layers`` the teacher's layer by the student's, ``steps`` are the spec's.
    """

    kept: Mapping[str, tuple[str, ...]]
    layers: Mapping[str, str]
    steps: tuple[Mapping[str, Any], ...]

    @staticmethod
    def of(record: Provenance) -> Ancestry:
        """As a student's file tells it."""
        layers = {name: each.of for name, each in record.origins.items() if each.of}
        return Ancestry(record.kept, layers, tuple(record.spec.get("steps", ())))


def new_entries(ancestry: Ancestry | None, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """True where an entry of the tensor ``name`` is no weight of the teacher's.

    That is everywhere where nothing is known of it.
    """
    new = np.ones(shape, dtype=bool)
    kept = ancestry.kept.get(name) if ancestry else None
    if kept is not None:
        new[np.ix_(*map(positions, kept))] = False
    return new


def positions(slices: str) -> np.ndarray:
    """The numbers that a record means by ``0:6,9:12``."""
    runs = (tuple(map(int, run.split(":"))) for run in slices.split(","))
    return np.concatenate([np.arange(*run) for run in runs])
