"""What a student's record claims of its channels. None of it is believed before it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckgrow.drafts.draft import Origin
from ckgrow.header import Header
from ckgrow.maps import ChannelMap
from ckgrow.provenance import Provenance


@dataclass(frozen=True)
class Claims:
    """Where layers come from, by the student's names, and what its tensors were called before.

    ``teacher_names`` has the teacher's name of every tensor of the student that was the teacher's.
    ``rescaled`` says that a step multiplied units by powers of two;
    ``recorded`` is False where there is no record and names and shapes have to do.
    """

    origins: Mapping[str, Origin]
    teacher_names: Mapping[str, str]
    interface: Mapping[str, ChannelMap] = field(default_factory=dict)
    defects: Mapping[str, float] = field(default_factory=dict)
    rescaled: bool = False
    recorded: bool = True

    @staticmethod
    def of(provenance: Provenance | None, teacher: Header, student: Header) -> Claims:
        """Those of a record; without one, tensors of one name and shape are the teacher's."""
        if provenance is None:
            same = {
                name: name
                for name, spec in student.items()
                if name in teacher and teacher[name].shape == spec.shape
            }
            return Claims({}, same, recorded=False)
        new = {*provenance.new_tensors, *provenance.renames.values()}
        names = {name: name for name in student if name in teacher and name not in new}
        names |= {now: before for before, now in provenance.renames.items() if before in teacher}
        steps = provenance.spec.get("steps", ())
        rescaled = any(step.get("rescale") is not None for step in steps)
        return Claims(provenance.origins, names, provenance.interface, provenance.defects, rescaled)
