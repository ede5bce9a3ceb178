"""What a student's record claims of its channels. None of it is believed before it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckgrow.drafts.draft import Origin
from ckgrow.loading import Loaded
from ckgrow.maps import ChannelMap


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
    def of(teacher: Loaded, student: Loaded) -> Claims:
        """Those of a record; without one, tensors of one name and shape are the teacher's."""
        before, after, record = teacher.header, student.header, student.provenance
        if record is None:
            same = {
                name: name
                for name, spec in after.items()
                if name in before and before[name].shape == spec.shape
            }
            return Claims({}, same, recorded=False)
        new = {*record.new_tensors, *record.renames.values()}
        names = {name: name for name in after if name in before and name not in new}
        names |= {now: old for old, now in record.renames.items() if old in before}
        steps = record.spec.get("steps", ())
        rescaled = any(step.get("rescale") is not None for step in steps)
        return Claims(record.origins, names, record.interface, student.defects, rescaled)
