"""What two files say of each other, beside the verdict: changed since, swapped, or strangers.

A student's record has the hash of its teacher's tensors and that of its own. Either may have been
changed after ``ckgrow apply``: then the record tells of other tensors than those at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckgrow.loading import Loaded
from ckgrow.provenance import Provenance

_LENGTH = 12
"""How much of a hash is shown."""


def notes_on(teacher: Loaded, student: Loaded, hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Sentences on the two files, whose contents hash to ``hashes``; none where all is as usual."""
    if hashes["teacher"] == hashes["student"]:
        return (_same(teacher, student),)
    said = [*_records(teacher, student, hashes)]
    if teacher.architecture.name != student.architecture.name:
        said.append(
            f"the teacher is of the family {teacher.architecture.name}, the student of "
            f"{student.architecture.name}: no growth makes the one of the other"
        )
    return tuple(said)


def is_as_written(student: Loaded, hashes: Mapping[str, str]) -> bool:
    """Whether the student's tensors are those that its record tells of."""
    return student.provenance is not None and student.provenance.student == hashes["student"]


def _same(teacher: Loaded, student: Loaded) -> str:
    if teacher.path and student.path and teacher.path.resolve() == student.path.resolve():
        return "both are the same file: the teacher is its own student"
    return "both files hold the same tensors: the teacher is its own student"


def _records(teacher: Loaded, student: Loaded, hashes: Mapping[str, str]) -> list[str]:
    known, other = student.provenance, teacher.provenance
    if other is not None and hashes["student"] in _ancestors(other):
        return ["the first file was grown from the second: give the teacher first"]
    if known is None:
        return [
            "the student's file has no record of its growth (the entry 'ckgrow' in its metadata): "
            "it was matched with its teacher by names and shapes, and no rounding is allowed for "
            "that a record may tell of"
        ]
    said = []
    if student.lender:
        said.append(f"the student's record is that of {student.lender}")
    if not is_as_written(student, hashes):
        said.append(
            "the student's tensors are no longer those that ckgrow apply wrote (trained further, "
            "converted or changed): no rounding that its record tells of is allowed for"
        )
    if known.teacher != hashes["teacher"]:
        said.append(_another_teacher(known, hashes["teacher"]))
    return said


def _another_teacher(record: Provenance, teacher: str) -> str:
    ancestors = _ancestors(record)
    if teacher in ancestors:
        return (
            f"the teacher is not the one that the student was grown from but "
            f"{ancestors.index(teacher) + 1} generations before it; the record tells of one"
        )
    return (
        "the teacher is not the one that the student was grown from, or was changed since: its "
        f"tensors hash to {teacher[:_LENGTH]}, the student's record says {record.teacher[:_LENGTH]}"
    )


def _ancestors(record: Provenance) -> list[str]:
    """Hashes of the teachers, the student's own first."""
    return [str(each["teacher"]) for each in reversed(record.as_ancestor())]
