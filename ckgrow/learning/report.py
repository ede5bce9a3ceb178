"""What is said of a student's first steps of training, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ill = Literal["exploding", "dead", "locked"]
"""What can be wrong, the worst first."""
Prospect = Literal["learns", "locked", "dead", "exploding"]


@dataclass(frozen=True)
class TensorLearning:
    """Of ``new`` entries that are none of the teacher's, ``moved`` received a gradient."""

    name: str
    new: int
    moved: int


@dataclass(frozen=True)
class GroupLearning:
    """The units of a group that grew, ``width`` of them where the teacher had ``teacher_width``.

    ``teacher_width`` is None for groups of new layers. A unit's gradients [dW_in | db | dW_out]
    are a row of a matrix: ``rank`` is its rank in the first step, and ``attainable`` that of the
    same student with noise on all weights, which is what the batch and the sizes allow; they are
    None where the teacher has no such group, or it is too large. Of the
    ``new`` units ``still`` received no gradient at all, and ``identical`` equal another unit
    after the steps. ``still_before`` counts the other units that received none.
    """

    name: str
    width: int
    teacher_width: int | None
    rank: int | None
    attainable: int | None
    new: int
    still: int
    still_before: int
    identical: int


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: with which layers, what, and the change to the spec against it."""

    kind: Ill
    layers: tuple[str, ...]
    what: str
    cure: str


@dataclass(frozen=True)
class Losses:
    """The loss before the first step and after each, and the norm of all gradients before it."""

    teacher: tuple[float, ...]
    student: tuple[float, ...]
    teacher_gradient: float
    student_gradient: float


@dataclass(frozen=True)
class Learning:
    """Whether a student can learn; ``reason`` says it in a sentence, ``findings`` in detail.

    ``new`` and ``moved`` add up ``tensors``, ``share`` is moved / new (None when nothing is new).
    ``training`` tells the optimizer, its rate, and why this one.
    """

    verdict: Prospect
    reason: str
    new: int
    moved: int
    share: float | None
    tensors: tuple[TensorLearning, ...]
    groups: tuple[GroupLearning, ...]
    findings: tuple[Finding, ...]
    losses: Losses
    rate: float
    batch: int
    inputs: str
    targets: str
    training: str
