"""Makes a student's file: plan, part file, verdict, name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from ckgrow.checkpoint import PROVENANCE_KEY, Format
from ckgrow.drafts.calibrating import hash_calibrations, require_unchanged
from ckgrow.errors import CkgrowError, FileError, SpecError
from ckgrow.execute import content_hash, execute
from ckgrow.header import Header
from ckgrow.loading import Loaded, Wish, load
from ckgrow.names import shown_path
from ckgrow.planning import Plan
from ckgrow.provenance import Provenance
from ckgrow.publishing import PartFile
from ckgrow.recipes import Recipe
from ckgrow.registry import formats
from ckgrow.reports.describing import amounts
from ckgrow.reports.documents import ApplyDocument, VerifyDocument
from ckgrow.spec import canonical
from ckgrow.verifying import Checks, compare_checkpoints, hash_checkpoint
from ckgrow.version import VERSION

DEVIATING = ("approximate", "no")


@dataclass(frozen=True)
class Run:
    """How a student is made: how many threads, whether it may replace a file, how it is checked.

    ``checks`` is None when the student is not to be verified.
    """

    workers: int = os.cpu_count() or 1
    force: bool = False
    keep_failed: bool = False
    checks: Checks | None = field(default_factory=lambda: Checks(quick=True))


class Watching(Protocol):
    """Whoever wants to see how far a run is."""

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins; ``total`` in bytes, 0 when it cannot be counted."""
        ...

    def advance(self, count: int) -> None:
        """So many bytes more are done."""
        ...


class Unwatched:
    """Nobody does."""

    def begin(self, what: str, total: int) -> None:
        """Nothing to show."""

    def advance(self, count: int) -> None:
        """Nothing to show."""


def output_format(teacher: Loaded, output: Path) -> Format:
    """The format that the suffix of ``output`` says.

    Raises SpecError where ckgrow does not write it, FileError where the output is the teacher.
    """
    path = teacher.path
    if path is not None and os.path.exists(output) and os.path.samefile(path, output):
        raise FileError(f"{shown_path(output)} is the teacher itself; write the student elsewhere")
    known = formats().values()
    for each in known:
        if output.suffix.lower() in each.suffixes and each.writable:
            return each
    writable = ", ".join(suffix for each in known if each.writable for suffix in each.suffixes)
    raise SpecError(
        f"{shown_path(output)}: the suffix says which format to write, and ckgrow does not write "
        f"{output.suffix or 'files without one'}; it writes {writable}"
    )


def write_student(
    plan: Plan, output: Path, writing: Format, run: Run, watching: Watching
) -> ApplyDocument:
    """Writes, verifies and publishes the student of ``plan`` at ``output``.

    ``writing`` is what :func:`output_format` says of ``output``. Raises FileError where it cannot
    be written, and whatever reading the teacher raises. Nothing is left behind then.
    """
    teacher = plan.teacher
    with PartFile(output, force=run.force) as part:
        watching.begin("reading the teacher", 0)
        identity = _provenance(plan, hash_checkpoint(teacher, run.workers))
        if part.taken and (known := _written_before(output, identity)):
            return _document(plan, output, "up to date", known, None)
        part.require_free()
        student = _Student(plan, identity, writing, run, watching)
        expected = True
        if plan.preserves in DEVIATING and run.checks is not None:
            quiet = {name: recipe.quiet() for name, recipe in plan.draft.recipes.items()}
            expected = student.verified(part.path, student.written(part.path, quiet)).preserved
        digest = student.written(part.path, plan.draft.recipes)
        verdict = student.verified(part.path, digest) if run.checks is not None else None
        if not teacher.reader.unchanged():
            raise FileError(
                f"{teacher.label} changed while it was read; run again when nothing writes to it"
            )
        require_unchanged(plan.spec.steps, identity.calibration)
        hashes = {"teacher": identity.teacher, "student": digest}
        if verdict is not None:
            verdict = replace(
                verdict,
                student=shown_path(output),
                expected=not verdict.preserved and plan.preserves in DEVIATING and expected,
            )
            if not (verdict.preserved or verdict.expected):
                if run.keep_failed:
                    part.keep_failed()
                return _document(plan, output, "failed", hashes, verdict)
        part.publish()
    return _document(plan, output, "written", hashes, verdict)


@dataclass(frozen=True)
class _Student:
    """The student being made, with everything that making and checking it needs."""

    plan: Plan
    identity: Provenance
    format: Format
    run: Run
    watching: Watching

    def written(self, path: Path, recipes: Mapping[str, Recipe]) -> str:
        """Writes the file at ``path`` and returns its content hash."""
        prefix, teacher = self.plan.teacher.prefix, self.plan.teacher
        made = {prefix + name: recipe for name, recipe in recipes.items()}
        # In the order of names, so that the same tensors make the same bytes whoever held them.
        header = Header({name: made[name].spec for name in sorted(made)})
        metadata = dict(teacher.reader.contents.metadata)
        # Stands for the student's hash until that is known: found nowhere else in the file.
        unhashed = blake3(repr((sorted(made), metadata, self.identity)).encode()).hexdigest()
        metadata[PROVENANCE_KEY] = replace(self.identity, student=unhashed).to_json()
        total = sum(spec.nbytes for spec in header.values())
        self.watching.begin("growing", total)
        writer = self.format.create(path, header, metadata)
        try:
            digests = execute(made, teacher.read, writer, self.run.workers, self.watching.advance)
            digest = content_hash(header, digests)
            writer.finish({unhashed: digest})
        except BaseException:
            writer.abandon()
            raise
        return digest

    def verified(self, path: Path, digest: str) -> VerifyDocument:
        """The verdict on what stands at ``path``."""
        teacher = self.plan.teacher
        hashes = {"teacher": self.identity.teacher, "student": digest}
        locate = self.plan.preserves not in DEVIATING
        checks = replace(self.run.checks or Checks(), seed=self.plan.spec.seed, locate=locate)
        self.watching.begin("verifying", 0)
        with load(path, Wish()) as student:
            return compare_checkpoints(teacher, student, checks, hashes=hashes).document


def _provenance(plan: Plan, teacher_hash: str) -> Provenance:
    teacher = plan.teacher
    return Provenance(
        version=VERSION,
        architecture=teacher.architecture.name,
        options=plan.options,
        assumptions=plan.inherited,
        spec=canonical(plan.spec),
        teacher=teacher_hash,
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
    )


def _written_before(output: Path, identity: Provenance) -> dict[str, str] | None:
    """The hashes of a student at ``output`` that this very run would make again."""
    try:
        with load(output, Wish()) as present:
            known = present.provenance
            if known is None or known.identity() != identity.to_json():
                return None
            digest = hash_checkpoint(present, os.cpu_count() or 1)
    except CkgrowError:
        return None
    if digest != known.student:
        return None
    return {"teacher": identity.teacher, "student": digest}


def _document(
    plan: Plan,
    output: Path,
    status: str,
    hashes: Mapping[str, str],
    verdict: VerifyDocument | None,
) -> ApplyDocument:
    parameters, size, flops = amounts(plan)
    return ApplyDocument(
        plan.teacher.label,
        shown_path(output),
        status,
        plan.preserves,
        plan.stock_loadable,
        parameters,
        size,
        flops,
        plan.teacher.reader.contents.dropped,
        tuple(warning for step in plan.steps for warning in step.warnings),
        hashes,
        verdict,
    )
