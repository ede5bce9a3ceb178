"""The verdict on two checkpoints: opens both, feeds both the same inputs, judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ckgrow.architecture import Assumption
from ckgrow.errors import CheckpointError
from ckgrow.execute import content_hash, hash_tensors
from ckgrow.learning.ancestry import Ancestry
from ckgrow.learning.report import Learning
from ckgrow.loading import Loaded
from ckgrow.localisation import NodeDeviation, locate
from ckgrow.names import shown
from ckgrow.naming import in_grown
from ckgrow.notes import is_as_written, notes_on
from ckgrow.pairing import LEND
from ckgrow.proof import prove
from ckgrow.reports.documents import VerifyDocument
from ckgrow.verdict.budget import too_big
from ckgrow.verdict.comparison import Pair
from ckgrow.verdict.expectation import expected_from_file
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.judgement import judge
from ckgrow.verdict.running import Side, batch_rows
from ckgrow.verdict.samples import Samples, from_file, seeded_samples
from ckgrow.verdict.training import TrainMode, compare_in_training

DEFAULT_SAMPLES = 16


@dataclass(frozen=True)
class Checks:
    """How two checkpoints are compared.

    ``inputs`` and ``expect`` are files of arrays; without ``inputs``, ``samples`` seeded ones are
    drawn. ``quick`` does without float64. ``rtol`` and ``atol`` replace the measured tolerance.
    ``proof`` reads the tensors instead of running the networks. ``train_mode`` and ``learn`` are
    looked at besides, ``labels`` belong to ``inputs``. ``every_layer`` compares all layers even
    where the outputs agree; ``locate`` names those at fault where they do not.
    """

    samples: int = DEFAULT_SAMPLES
    seed: int = 0
    inputs: Path | None = None
    expect: Path | None = None
    quick: bool = False
    rtol: float | None = None
    atol: float | None = None
    proof: bool = False
    train_mode: bool = False
    learn: bool = False
    labels: Path | None = None
    every_layer: bool = False
    locate: bool = True


@dataclass(frozen=True)
class Verified:
    """The verdict, and what it was found on: compared outputs, and layers if they were compared."""

    document: VerifyDocument
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    double_pairs: Mapping[str, Pair] = field(default_factory=dict)
    nodes: tuple[NodeDeviation, ...] = ()


def compare_checkpoints(
    teacher: Loaded,
    student: Loaded,
    checks: Checks,
    *,
    hashes: Mapping[str, str],
    progress: Callable[[str], None] = lambda _: None,
) -> Verified:
    """The verdict. ``hashes`` of both contents stand in the document as they are.

    What cannot be run in the memory there is, is proven. Raises CheckpointError for inputs that
    fit the networks' interface nowhere.
    """
    comparing = _Comparing(teacher, student, checks, hashes, progress)
    too_large = "" if checks.proof else comparing.too_large()
    found = comparing.proven(too_large) if checks.proof or too_large else comparing.run()
    return replace(found, document=comparing.looked_at_besides(found.document, too_large))


@dataclass(frozen=True)
class _Comparing:
    """Two checkpoints that are compared, and how."""

    teacher: Loaded
    student: Loaded
    checks: Checks
    hashes: Mapping[str, str]
    progress: Callable[[str], None]

    def too_large(self) -> str:
        """Why the networks cannot be run in the memory there is, "" when they can."""
        rows = min(self.samples.count, batch_rows(self.sides))
        return too_big(*self.sides, rows)

    def run(self) -> Verified:
        """The verdict by running both networks."""
        checks = self.checks
        before, after = self.sides
        judgement = judge(
            before,
            after,
            samples=self.samples,
            quick=checks.quick,
            interface=self.interface,
            expected_outputs=expected_from_file(checks.expect, before) if checks.expect else None,
            assumptions=self.teacher.network.assumptions,
            defects=_recorded_defects(self.student, self.hashes),
            rtol=checks.rtol,
            atol=checks.atol,
            progress=self.progress,
        )
        if not judgement.preserved:
            _require_read_for_certain(self.student, judgement.reason)
        document = self._document(
            judgement.preserved,
            judgement.reason,
            outputs=judgement.outputs,
            inputs=judgement.inputs,
            samples=judgement.samples,
            tolerance=judgement.tolerance,
            runtimes=judgement.runtimes,
            expectations=judgement.expectations,
        )
        failed = not judgement.preserved and checks.locate
        nodes: tuple[NodeDeviation, ...] = ()
        if judgement.outputs and (failed or checks.every_layer):
            where, nodes = locate(self.teacher, self.student, self.samples, progress=self.progress)
            if failed:
                document = replace(document, localisation=where)
        return Verified(document, judgement.pairs, judgement.double_pairs, nodes)

    def proven(self, too_large: str) -> Verified:
        """The verdict by reading both files; ``too_large`` is why they are not run."""
        self.progress("proving")
        proof = prove(self.teacher, self.student)
        reason = proof.reason
        reason += f"; not run: {too_large}" if too_large else "; nothing was run"
        document = self._document(proof.result == "proven", reason)
        return Verified(replace(document, proof=proof.result, certificate=proof))

    def looked_at_besides(self, document: VerifyDocument, too_large: str) -> VerifyDocument:
        """The document with what was asked for besides; what cannot be looked at is noted.

        What is wrong with labels is an error all the same: the user can mend it.
        """
        if self.checks.train_mode and not too_large:
            document = replace(document, train_mode=self.training())
        if self.checks.learn and not too_large:
            try:
                document = replace(document, learning=self.learning())
            except CheckpointError as failure:
                if self.checks.labels is not None:
                    raise
                note = f"whether the student can learn was not seen: {failure}"
                document = replace(document, notes=(*document.notes, note))
        if too_large and (self.checks.train_mode or self.checks.learn):
            note = "training was not looked at: the networks are too big to run"
            document = replace(document, notes=(*document.notes, note))
        return document

    def training(self) -> TrainMode:
        """How both compare in training mode."""
        known = self.student.provenance
        defect = sum(_recorded_defects(self.student, self.hashes).values())
        return compare_in_training(
            *self.sides,
            self.samples,
            self.interface,
            known.renames if known else {},
            defect,
            self.progress,
        )

    def learning(self) -> Learning:
        """Whether the student can learn."""
        from ckgrow.learning.learning import learn  # imports torch

        known = self.student.provenance
        own = known is not None and known.teacher == self.hashes["teacher"]
        return learn(
            *self.sides,
            Ancestry.of(known) if known is not None and own else None,
            interface=self.interface,
            inputs=self.samples if self.checks.inputs is not None else None,
            labels=self.checks.labels,
            seed=self.checks.seed,
            progress=self.progress,
        )

    @cached_property
    def sides(self) -> tuple[Side, Side]:
        """Both as the runtimes take them."""
        return self.teacher.side, self.student.side

    @cached_property
    def interface(self) -> Interface:
        """How channels of inputs and outputs belong together."""
        return _interface(self.student, self.hashes)

    @cached_property
    def samples(self) -> Samples:
        """What both are run on."""
        return _samples(*self.sides, self.interface, self.checks)

    def _document(self, preserved: bool, reason: str, **found: Any) -> VerifyDocument:
        return VerifyDocument(
            self.teacher.label,
            self.student.label,
            preserved,
            expected=False,
            reason=reason,
            assumptions=_assumptions(self.teacher, self.student),
            hashes=self.hashes,
            notes=notes_on(self.teacher, self.student, self.hashes),
            **found,
        )


def hash_checkpoint(loaded: Loaded, workers: int) -> str:
    """The content hash of a checkpoint: its tensors, whatever the format."""
    header = loaded.reader.header
    return content_hash(header, hash_tensors(header, loaded.reader.read, workers))


def _recorded_defects(student: Loaded, hashes: Mapping[str, str]) -> Mapping[str, float]:
    """What rounded steps recorded of nodes, if the tensors are still those that they made."""
    return student.defects if is_as_written(student, hashes) else {}


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
