"""What the commands say, as data: one document per command, versioned, the same from Python.

``to_json`` writes a document as the command line's ``--json`` prints it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckgrow.architecture import Assumption
from ckgrow.files import Stamps
from ckgrow.graph import Shape
from ckgrow.learning.report import Learning
from ckgrow.localisation import Localisation
from ckgrow.planning import StepReport
from ckgrow.proof.certificate import Proof, Result
from ckgrow.verdict.comparison import OutputVerdict
from ckgrow.verdict.expectation import Expectation
from ckgrow.verdict.training import TrainMode


@dataclass(frozen=True)
class GroupRow:
    """Channels that grow together; ``axes`` are tensor dimensions as ``tensor[dim]``."""

    name: str
    width: int
    runs: int
    layers: tuple[str, ...]
    axes: tuple[str, ...]
    growable: bool
    reason: str | None


@dataclass(frozen=True)
class LayerRow:
    """A layer with weights and the groups of its output channels."""

    name: str
    op: str
    width: int
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Amount:
    """One quantity before and after."""

    teacher: int
    student: int


@dataclass(frozen=True)
class TensorRow:
    """One student tensor; ``teacher_shape`` is None for a new one.

    ``kept`` says where the teacher's tensor stands in it bit for bit, as a slice per axis; None
    where it is not to be found.
    """

    name: str
    teacher_shape: tuple[int, ...] | None
    student_shape: tuple[int, ...]
    how: str
    kept: tuple[str, ...] | None


@dataclass(frozen=True)
class InspectDocument:
    """What a checkpoint is and what can grow in it."""

    checkpoint: str
    architecture: str
    options: Mapping[str, Any]
    assumptions: tuple[Assumption, ...]
    layers: tuple[LayerRow, ...]
    groups: tuple[GroupRow, ...]
    stages: Mapping[str, tuple[str, ...]]
    passthrough: tuple[str, ...]
    dropped: tuple[str, ...]
    parameters: int
    bytes: int
    flops: int
    new_tensors: tuple[str, ...]
    teacher_tensors: Mapping[str, tuple[str, ...]]
    lineage: tuple[Mapping[str, Any], ...]
    schema: str = "ckgrow.inspect/1"


@dataclass(frozen=True)
class PlanDocument:
    """What growing would do."""

    teacher: str
    architecture: str
    options: Mapping[str, Any]
    assumptions: tuple[Assumption, ...]
    groups: tuple[GroupRow, ...]
    steps: tuple[StepReport, ...]
    preserves: str
    tensors: tuple[TensorRow, ...]
    renames: Mapping[str, str]
    new_tensors: tuple[str, ...]
    dropped: tuple[str, ...]
    stock_loadable: str
    parameters: Amount
    bytes: Amount
    flops: Amount
    schema: str = "ckgrow.plan/1"


@dataclass(frozen=True)
class VerifyDocument:
    """The verdict on two files.

    ``expected`` is true when a student that is not preserved is what its plan promised. ``notes``
    say what is odd about the two files, whatever the verdict: changed since, no record, swapped.
    ``proof`` is ``proven``, ``refuted`` or ``not proven``, and ``certificate`` what it rests on;
    these and the three others at the end are null where they were not asked for, or not needed.
    """

    teacher: str
    student: str
    preserved: bool
    expected: bool
    reason: str
    assumptions: tuple[Assumption, ...]
    hashes: Mapping[str, str]
    notes: tuple[str, ...]
    outputs: tuple[OutputVerdict, ...] = ()
    inputs: str = ""
    samples: int = 0
    tolerance: str = ""
    runtimes: tuple[str, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    localisation: Localisation | None = None
    proof: Result | None = None
    certificate: Proof | None = None
    train_mode: TrainMode | None = None
    learning: Learning | None = None
    schema: str = "ckgrow.verify/1"


@dataclass(frozen=True)
class ApplyDocument:
    """What growing did. ``status`` is ``written``, ``up to date`` or ``failed``.

    ``files`` are stamps of the files of ``teacher`` and ``student`` by absolute path: their sizes
    in bytes and times of change in nanoseconds, when they were opened and written.
    """

    teacher: str
    student: str
    status: str
    preserves: str
    stock_loadable: str
    parameters: Amount
    bytes: Amount
    flops: Amount
    dropped: tuple[str, ...]
    warnings: tuple[str, ...]
    hashes: Mapping[str, str] = field(default_factory=dict)
    verify: VerifyDocument | None = None
    files: Mapping[str, Stamps] = field(default_factory=dict)
    schema: str = "ckgrow.apply/1"


@dataclass(frozen=True)
class ConvertDocument:
    """What converting did: how many tensors and bytes, their hash, and entries left out."""

    source: str
    output: str
    format: str
    tensors: int
    bytes: int
    hash: str
    dropped: tuple[str, ...]
    schema: str = "ckgrow.convert/1"


@dataclass(frozen=True)
class ExportDocument:
    """What exporting did: the network, its weights, and the files that the model needs beside it.

    ``inputs`` and ``outputs`` are shapes by name, in which ``N`` is the batch.
    """

    source: str
    output: str
    architecture: str
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    tensors: int
    bytes: int
    files: tuple[str, ...]
    schema: str = "ckgrow.export/1"


def to_plain(value: Any) -> Any:
    """Documents, and everything in them, as what JSON can hold; infinities become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        return {name: to_plain(getattr(value, name)) for name in sorted(names, key=_schema_first)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(document: Any) -> str:
    """A document as indented JSON."""
    return json.dumps(to_plain(document), indent=2, ensure_ascii=True)


def _schema_first(name: str) -> bool:
    return name != "schema"
