"""Opens a teacher and its student, each in the light of what the other's record says.

A student's record tells what its teacher is. Training frameworks drop it with the rest of a file's
metadata; the student is then read by its names and shapes, or by the record of an earlier copy of
it, which it must fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError, UnrecognisedError
from ckgrow.loading import Loaded, Opened, Source, Wish, load, open_source, recognised
from ckgrow.names import by, shown
from ckgrow.places import Place
from ckgrow.provenance import Provenance

LEND = "name an earlier copy of it that still has its record with --maps"


@contextmanager
def open_pair(
    teacher: Source,
    student: Source,
    stated: Wish,
    *,
    weights: str | None = None,
    maps: Place | None = None,
) -> Iterator[tuple[Loaded, Loaded]]:
    """Teacher and student for as long as the context lasts.

    ``weights`` names the teacher's state dict in a container, and the student's if that is a
    container with one of that name; ``maps`` is a file whose record is taken for the student's.
    Raises what opening raises, and FileError when the context ends and
    one of the files is no longer the one that was opened.
    """
    with ExitStack() as files:
        opened = _open_student(student, weights)
        files.callback(opened.reader.close)
        if maps is not None:
            opened = _lent(opened, maps)
        known = opened.provenance
        if known is not None:
            after = recognised(opened, stated)
            before = files.enter_context(load(teacher, _teacher_of(known, stated, weights)))
        else:
            before = files.enter_context(load(teacher, replace(stated, weights=weights)))
            after = _without_record(opened, _student_of(before, stated))
        try:
            yield before, after
        except CkgrowError:
            _require_unchanged(before, after)
            raise
        _require_unchanged(before, after)


def _open_student(student: Source, weights: str | None) -> Opened:
    """The state dict ``weights`` where the student has it, and else what stands for it all."""
    try:
        return open_source(student, weights)
    except SpecError:
        return open_source(student)


def _teacher_of(record: Provenance, stated: Wish, weights: str | None) -> Wish:
    """What was stated when the student was grown holds for its teacher too, unless overruled."""
    if stated.architecture not in (None, record.architecture):
        return replace(stated, weights=weights)
    options = {**record.teacher_options, **stated.options}
    return Wish(record.architecture, options, weights, binding=bool(stated.options))


def _student_of(teacher: Loaded, stated: Wish) -> Wish:
    """A teacher that was itself grown says what nobody says of its student."""
    if teacher.provenance is None or stated.architecture is not None:
        return stated
    options = {**teacher.network.options, **stated.options}
    return Wish(teacher.architecture.name, options, binding=bool(stated.options))


def _without_record(opened: Opened, wish: Wish) -> Loaded:
    try:
        return recognised(opened, wish)
    except UnrecognisedError as failure:
        if not opened.header:
            raise
        raise UnrecognisedError(f"{failure}; if ckgrow has grown it, {LEND}") from None


def _lent(student: Opened, maps: Place) -> Opened:
    """The student with the record of another file, whose tensors it must have."""
    with load(maps, Wish()) as lender:
        record = lender.provenance
        if record is None:
            raise CheckpointError(
                f"{lender.label} has no record to lend: the entry 'ckgrow' is not in its metadata; "
                "--maps is a file as ckgrow apply wrote it"
            )
        _require_same_tensors(student, lender)
        return replace(student, provenance=record, lender=lender.label)


def _require_same_tensors(student: Opened, lender: Loaded) -> None:
    """Every tensor that the lender's network reads, in its shape, and no other weights.

    What counts batches is no weight, and may have been dropped or added.
    """
    does_not_fit = f"the record of {lender.label} does not fit {student.label}"
    for name in lender.network.graph.parameters():
        expected = lender.header.shape(name)
        if name not in student.header:
            raise CheckpointError(f"{does_not_fit}, which has no tensor {shown(name)}")
        if student.header.shape(name) != expected:
            raise CheckpointError(
                f"{does_not_fit}: {shown(name)} is {by(expected) or 'a scalar'} in the one and "
                f"{by(student.header.shape(name)) or 'a scalar'} in the other"
            )
    for name, spec in student.header.items():
        if spec.is_float and name not in lender.header:
            raise CheckpointError(f"{does_not_fit}, which also has a tensor {shown(name)}")


def _require_unchanged(*files: Loaded) -> None:
    for each in files:
        if not each.reader.unchanged():
            raise FileError(
                f"{each.label} changed while it was read; run again when nothing writes to it"
            )
