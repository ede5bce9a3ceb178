"""What a report page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ckgrow.loading import Loaded
from ckgrow.provenance import Provenance
from ckgrow.reports.documents import VerifyDocument
from ckgrow.verdict.comparison import Pair


@dataclass(frozen=True)
class LayerDeviation:
    """How far the activations of a student's layer are from its teacher's, relative to their scale.

    ``tolerance`` is relative as well; ``departs`` marks a source of failure, not its victims.
    """

    layer: str
    deviation: float
    tolerance: float
    departs: bool


@dataclass(frozen=True)
class Evidence:
    """A verdict, the two open checkpoints it is about, and what was computed on the way.

    ``pairs`` are the compared outputs in float32, ``double_pairs`` those in float64; they and
    ``deviations`` may be empty. Both checkpoints are read from while a page is made.
    """

    document: VerifyDocument
    teacher: Loaded
    student: Loaded
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    double_pairs: Mapping[str, Pair] = field(default_factory=dict)
    deviations: tuple[LayerDeviation, ...] = ()

    @cached_property
    def record(self) -> Provenance | None:
        """What the student's file says of itself, if it tells of this very teacher."""
        known = self.student.provenance
        return known if known and known.teacher == self.document.hashes.get("teacher") else None
