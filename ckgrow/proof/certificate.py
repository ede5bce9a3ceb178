"""What a proof says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ckgrow.labels import Labels

Result = Literal["proven", "refuted", "not proven"]


@dataclass(frozen=True)
class Finding:
    """An equation that does not hold: at a ``tensor`` of the student, for some of its channels.

    ``channels`` are those of the student's layer that the tensor belongs to, ``sources`` what they
    or the channels they read should be. ``defect`` is the largest deviation in units of the stored
    dtype's rounding. ``product`` is the layer behind a dense factor that is wrong.
    """

    tensor: str
    layer: str
    equation: str
    channels: tuple[int, ...]
    sources: tuple[str, ...]
    defect: float
    product: str = ""


@dataclass(frozen=True)
class Check:
    """What was checked of one tensor: ``holds``, ``refuted``, or ``not checked``, and why.

    ``copies``, ``fresh`` and ``zeros`` count the channels by their sources, ``defect`` is the
    largest deviation in units of the stored dtype's rounding, 0 where every equation is exact.
    """

    tensor: str
    layer: str
    group: str
    shape: tuple[int, ...]
    result: str
    copies: int
    fresh: int
    zeros: int
    defect: float
    equation: str


@dataclass(frozen=True)
class GroupCheck:
    """The tensors of one group of channels: as wide as the ``teacher`` has it, and the ``student``.

    ``copies``, ``fresh`` and ``zeros`` count the student's channels by their sources; ``result`` is
    the worst of its ``tensors``, ``defect`` their largest deviation.
    """

    group: str
    teacher: int
    student: int
    copies: int
    fresh: int
    zeros: int
    tensors: int
    result: str
    defect: float


@dataclass(frozen=True)
class Traces:
    """The labels of all values of both graphs, and what they stand for."""

    table: Labels
    teacher: Mapping[str, np.ndarray]
    student: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Proof:
    """The result, and everything it rests on.

    ``findings`` are the equations that are violated, ``lacking`` what would be needed besides.
    ``groups`` and ``tensors`` have a row for each, ``defect`` is the largest deviation of any
    equation that holds, in units of the stored dtype's rounding.
    """

    result: Result
    reason: str
    findings: tuple[Finding, ...]
    lacking: tuple[str, ...]
    groups: tuple[GroupCheck, ...]
    tensors: tuple[Check, ...]
    defect: float
