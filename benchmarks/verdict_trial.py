"""One student of benchmarks/verdict.py: judged as it is, then with one fault after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from verdict_equations import DEFECTS, ROUNDING, Equations
from verdict_faults import Fault, Ground, faults
from verdict_forward import by_graph, by_module, double, doubles, same_layers
from verdict_students import SUBJECTS, Case, stock, whole

from ckgrow.loading import Loaded
from ckgrow.maps import ChannelMap
from ckgrow.memory import MemoryReader
from ckgrow.provenance import Provenance
from ckgrow.reports.documents import VerifyDocument
from ckgrow.verdict.samples import seeded_samples
from ckgrow.verifying import Checks, compare_checkpoints

SAMPLES = 6
"""Normal ones; zeros and ones are added."""
SURPLUS = 4.0
"""A difference of so many tolerances has to be found."""


@dataclass(frozen=True)
class Said:
    """What the checks say of a student. ``effect`` is how far the independent run sees it off.

    ``tolerance`` is that of the float64 check, ``quick_tolerance`` that of ``--quick``. ``located``
    are the layers that the float64 check names, ``refuted`` the layers that the proof names.
    """

    effect: float
    scale: float
    preserved: bool
    tolerance: float
    quick: bool
    quick_tolerance: float
    proof: str
    refuted: tuple[str, ...]
    located: tuple[str, ...]


@dataclass(frozen=True)
class Broken:
    """A fault, the layer it is in, whether it violates an equation, and what is said of it."""

    kind: str
    place: str
    layer: str
    violates: bool
    said: Said

    @property
    def visible(self) -> bool:
        """Whether the float64 check has to find it."""
        return self.said.effect >= SURPLUS * self.said.tolerance

    @property
    def visible_quickly(self) -> bool:
        """Whether ``--quick`` has to find it."""
        return self.said.effect >= SURPLUS * self.said.quick_tolerance


@dataclass(frozen=True)
class Trial:
    """A student, what it promised, and what is said of it whole and broken."""

    case: Case
    promised: str
    sound: Said
    broken: tuple[Broken, ...] = field(default=())


def tried(case: Case, folder: Path, count: int) -> Trial:
    """Judges a student, and ``count`` broken ones made of it; its files are made in ``folder``."""
    teacher, student = case.opened(folder)
    with teacher, student:
        assert student.provenance is not None
        bench = _Bench(case, teacher, student, student.provenance)
        sound = bench.said(student, {})
        ground = Ground(
            Equations.of(student.network.graph, student.provenance, bench.tensors),
            (
                lambda: _relative(replace(case, spec_seed=case.spec_seed + 1), folder),
                lambda: _relative(replace(case, recipe=case.next_recipe), folder),
            ),
            lambda: _relative(replace(case, teacher_seed=case.teacher_seed + 1), folder),
        )
        found = faults(ground, (case.spec_seed, list(SUBJECTS).index(case.network)), count)
        broken = tuple(bench.judged(fault, ground, sound) for fault in found)
        return Trial(case, student.provenance.preserves, sound, broken)


def _relative(case: Case, folder: Path) -> dict[str, np.ndarray]:
    teacher, student = case.opened(folder)
    with teacher, student:
        return whole(student)


class _Bench:
    """What all trials of one student share: its tensors, and what the teacher computes."""

    def __init__(self, case: Case, teacher: Loaded, student: Loaded, record: Provenance) -> None:
        self._teacher, self._student, self._record = teacher, student, record
        self.tensors = whole(student)
        self._doubles = doubles(self.tensors)
        (array,) = seeded_samples(teacher.network.graph, SAMPLES, 0).arrays.values()
        self._x = double(array)
        module, graph = stock(case.network), student.network.graph
        self._expected = by_module(module, doubles(whole(teacher)), self._x)
        stays = same_layers(teacher.network.graph, graph)
        self._forward: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] = (
            (lambda tensors: by_module(module, tensors, self._x))
            if stays
            else (lambda tensors: by_graph(graph, tensors, self._x))
        )

    def judged(self, fault: Fault, ground: Ground, sound: Said) -> Broken:
        """What is said of the student with ``fault``."""
        if fault.content is None:
            changed = replace(self._student, provenance=self._with_maps(fault.maps))
            violates = any(ground.equations.broken_map(*each) for each in fault.maps.items())
            return Broken(fault.kind, fault.place, fault.place, violates, self.said(changed, {}))
        reader = MemoryReader({**self.tensors, fault.place: fault.content})
        changed = replace(self._student, reader=reader)
        said = self.said(changed, {fault.place: double(fault.content)})
        recorded = DEFECTS * sum(self._record.defects.values())
        # what does not compute the same function violates an equation, whichever it is
        violates = ground.equations.broken_by(fault.place, fault.content) or (
            said.effect > (ROUNDING + recorded) * said.scale + sound.effect
        )
        layer = ground.reader(fault.place).name
        return Broken(fault.kind, fault.place, layer, violates, said)

    def _with_maps(self, maps: Mapping[str, ChannelMap]) -> Provenance:
        """The record with other maps, as it would be read from a file."""
        changed = {
            name: replace(self._record.origins[name], map=each) for name, each in maps.items()
        }
        record = replace(self._record, origins={**self._record.origins, **changed})
        return Provenance.from_json(record.to_json(), "the benchmark")

    def said(self, student: Loaded, changes: Mapping[str, torch.Tensor]) -> Said:
        """The verdicts on a student whose tensors differ by ``changes``.

        Its hash is the recorded one, as if ``apply`` had made the fault: nothing is to be found
        because a file is not the one that was written.
        """
        full = self._verified(student, Checks(samples=SAMPLES))
        quick = self._verified(student, Checks(samples=SAMPLES, quick=True, locate=False))
        proof = self._verified(student, Checks(proof=True)).certificate
        assert proof is not None
        ((output,), (quick_output,)) = full.outputs, quick.outputs
        made = self._forward({**self._doubles, **changes})
        where = full.localisation.sources if full.localisation else ()
        return Said(
            effect=float((made - self._expected).abs().nan_to_num(nan=torch.inf).max()),
            scale=float(self._expected.abs().max()),
            preserved=full.preserved,
            tolerance=float(output.float64_tolerance or 0),
            quick=quick.preserved,
            quick_tolerance=float(quick_output.tolerance or 0),
            proof=proof.result,
            refuted=tuple(dict.fromkeys(each.layer for each in proof.findings)),
            located=tuple(dict.fromkeys(each.layer for each in where)),
        )

    def _verified(self, student: Loaded, checks: Checks) -> VerifyDocument:
        hashes = {"teacher": self._record.teacher, "student": self._record.student}
        return compare_checkpoints(self._teacher, student, checks, hashes=hashes).document
