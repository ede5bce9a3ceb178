"""The record of a student that is to be made, and whether that very student is there already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ckgrow.checkpoint import PROVENANCE_KEY, ComparingFormat, ContainerReader
from ckgrow.drafts.calibrating import hash_calibrations
from ckgrow.errors import CkgrowError
from ckgrow.execute import hash_content
from ckgrow.files import Stamps, stamps_of
from ckgrow.loading import Loaded, Wish, load
from ckgrow.making import made_content
from ckgrow.outputs import Output
from ckgrow.planning import Plan
from ckgrow.provenance import Provenance, TwinHashes
from ckgrow.spec import canonical
from ckgrow.version import VERSION

_MARKER = "format"
"""The entry by which libraries know their own files; it is added where a format wants one."""


def make_record(plan: Plan, twins: Mapping[str, Plan], workers: int) -> Provenance:
    """What the student's file will say of it, all but hashes of what is not made yet.

    Reads the whole teacher, ``twins`` included: the other state dicts, by name.
    """
    teacher = plan.teacher
    return Provenance(
        version=VERSION,
        architecture=teacher.architecture.name,
        options=plan.options,
        assumptions=plan.inherited,
        spec=canonical(plan.spec),
        teacher=hash_content(teacher.reader, workers),
        teacher_options=teacher.network.options,
        origins=plan.draft.origins,
        interface=plan.draft.interface,
        new_tensors=plan.new_tensors,
        kept=plan.kept,
        renames=plan.draft.renames,
        lineage=teacher.provenance.as_ancestor() if teacher.provenance else (),
        preserves=plan.preserves,
        defects=plan.draft.defects,
        graph=None if plan.rebuilt else plan.graph,
        calibration=hash_calibrations(plan.spec.steps),
        twins={
            name: TwinHashes(hash_content(each.teacher.reader, workers))
            for name, each in twins.items()
        },
    )


@dataclass(frozen=True)
class Made:
    """A student that is there: hashes of the tensors of both, and stamps of its own files."""

    hashes: Mapping[str, str]
    files: Stamps


def made_before(
    plan: Plan, twins: Mapping[str, Plan], output: Output, record: Provenance
) -> Made | None:
    """The student at ``output`` that this very run would make again, all of it.

    None where there is another one, or one that was changed since.
    """
    weights = output.weights(plan.teacher.reader.contents)
    workers = os.cpu_count() or 1
    try:
        with load(output.place, Wish(weights=weights)) as present:
            known = present.provenance
            if known is None or known.identity() != record.identity():
                return None
            if not _is_around(present, plan, twins, output):
                return None
            if not _are_made(present, record.twins, known.twins, workers):
                return None
            digest = hash_content(present.reader, workers)
            files = stamps_of(present.reader.files())
    except CkgrowError:
        return None
    if digest != known.student:
        return None
    return Made({"teacher": record.teacher, "student": digest}, files)


def _is_around(present: Loaded, plan: Plan, twins: Mapping[str, Plan], output: Output) -> bool:
    """Whether the file is as it would be written, whatever numbers are in its tensors."""
    reader, writing = present.reader, output.format
    content = made_content(plan, output, plan.teacher.reader.contents.metadata)
    if reader.header != content.header or set(reader.contents.twins) != set(twins):
        return False
    if _texts(reader.contents.metadata) != _texts(content.metadata):
        return False
    if isinstance(reader, ContainerReader):
        for name, twin in twins.items():
            if reader.twin(name).header != made_content(twin, output, {}).header:
                return False
    return not isinstance(writing, ComparingFormat) or writing.holds(reader, content)


def _texts(metadata: Mapping[str, str]) -> dict[str, str]:
    left_out = (PROVENANCE_KEY, _MARKER)
    return {name: text for name, text in metadata.items() if name not in left_out}


def _are_made(
    present: Loaded, wanted: Mapping[str, TwinHashes], known: Mapping[str, TwinHashes], workers: int
) -> bool:
    """Whether the other state dicts come from those of the teacher, and are unchanged since."""
    reader = present.reader
    if not isinstance(reader, ContainerReader):
        return not wanted
    return all(
        name in known
        and known[name].teacher == each.teacher
        and known[name].student == hash_content(reader.twin(name), workers)
        for name, each in wanted.items()
    )
