"""The verdict on two checkpoints: opens both, feeds both the same inputs, judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ckgrow.architecture import Assumption
from ckgrow.errors import CheckpointError
from ckgrow.execute import content_hash, hash_tensors
from ckgrow.loading import Loaded
from ckgrow.names import shown
from ckgrow.naming import in_grown
from ckgrow.notes import is_as_written, notes_on
from ckgrow.pairing import LEND
from ckgrow.reports.documents import VerifyDocument
from ckgrow.verdict.expectation import expected_from_file
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.judgement import judge
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import Samples, from_file, seeded_samples

DEFAULT_SAMPLES = 16


@dataclass(frozen=True)
class Checks:
    """How two checkpoints are compared.

    ``inputs`` and ``expect`` are files of arrays; without ``inputs``, ``samples`` seeded ones are
    drawn. ``quick`` does without float64. ``rtol`` and ``atol`` replace the measured tolerance.
    """

    samples: int = DEFAULT_SAMPLES
    seed: int = 0
    inputs: Path | None = None
    expect: Path | None = None
    quick: bool = False
    rtol: float | None = None
    atol: float | None = None


def compare_checkpoints(
    teacher: Loaded,
    student: Loaded,
    checks: Checks,
    *,
    hashes: Mapping[str, str],
    progress: Callable[[str], None] = lambda _: None,
) -> VerifyDocument:
    """The verdict. ``hashes`` of both contents stand in the document as they are.

    Raises CheckpointError for inputs that fit the networks' interface nowhere.
    """
    before, after = _side(teacher), _side(student)
    interface = _interface(student, hashes)
    judgement = judge(
        before,
        after,
        samples=_samples(before, after, interface, checks),
        quick=checks.quick,
        interface=interface,
        expected_outputs=expected_from_file(checks.expect, before) if checks.expect else None,
        assumptions=teacher.network.assumptions,
        defects=_recorded_defects(student, hashes),
        rtol=checks.rtol,
        atol=checks.atol,
        progress=progress,
    )
    if not judgement.preserved:
        _require_read_for_certain(student, judgement.reason)
    return VerifyDocument(
        teacher.label,
        student.label,
        judgement.preserved,
        False,
        judgement.reason,
        judgement.outputs,
        judgement.inputs,
        judgement.samples,
        judgement.tolerance,
        judgement.runtimes,
        _assumptions(teacher, student),
        judgement.expectations,
        hashes,
        notes_on(teacher, student, hashes),
    )


def hash_checkpoint(loaded: Loaded, workers: int) -> str:
    """The content hash of a checkpoint: its tensors, whatever the format."""
    header = loaded.reader.header
    return content_hash(header, hash_tensors(header, loaded.reader.read, workers))


def _recorded_defects(student: Loaded, hashes: Mapping[str, str]) -> Mapping[str, float]:
    """What rounded steps recorded of nodes, if the tensors are still those that they made."""
    known = student.provenance
    return known.defects if known and is_as_written(student, hashes) else {}


def _side(loaded: Loaded) -> Side:
    return Side(loaded.label, loaded.network.graph, loaded.header, loaded.tensor)


def _interface(student: Loaded, hashes: Mapping[str, str]) -> Interface:
    """How the student's record joins it to this teacher.

    The student's own tensors may have changed since: trained further, it is still to be compared
    on the channels that were its teacher's.
    """
    known = student.provenance
    if known is None:
        return Interface(
            missing="which channels are the teacher's would stand in the metadata of the student's "
            f"file (its entry 'ckgrow'), and there is none; {LEND}"
        )
    if known.teacher != hashes["teacher"]:
        return Interface(
            missing="the student's record tells of another teacher, whose tensors hash to "
            f"{known.teacher[:12]}: compare with that one"
        )
    return Interface(known.interface)


def _require_read_for_certain(student: Loaded, reason: str) -> None:
    """Raises CheckpointError where a difference may be one of reading, not of the tensors."""
    guessed = [name for name in student.header if in_grown(name)]
    if student.provenance is None and guessed:
        raise CheckpointError(
            f"{student.label} differs from the teacher as it was read ({reason}), but it may have "
            "been read wrongly: where new layers stand, and whether an activation follows them, "
            f"is not to be told from names such as {shown(guessed[0])}, and the entry 'ckgrow' of "
            f"the file's metadata, which tells, is gone; {LEND}"
        )


def _samples(teacher: Side, student: Side, interface: Interface, checks: Checks) -> Samples:
    if checks.inputs is not None:
        samples = from_file(checks.inputs, teacher.graph, student.graph.inputs)
    else:
        samples = seeded_samples(teacher.graph, checks.samples, checks.seed)
    return interface.shared(samples, teacher.graph, student.graph, checks.seed)


def _assumptions(teacher: Loaded, student: Loaded) -> tuple[Assumption, ...]:
    return tuple(dict.fromkeys((*teacher.network.assumptions, *student.network.assumptions)))
