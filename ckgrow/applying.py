"""Makes a student's file: plan, part file, verdict, name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from blake3 import blake3

from ckgrow.checkpoint import PROVENANCE_KEY, ContainerWriter, Shard, ShardedWriter, Sink, Writer
from ckgrow.drafts.calibrating import require_unchanged
from ckgrow.errors import FileError, SpecError
from ckgrow.execute import content_hash, execute
from ckgrow.files import Stamps, stamps_of
from ckgrow.loading import Loaded, Wish, load
from ckgrow.making import made_content, made_header, made_tensors, made_ties, plan_twins
from ckgrow.names import shown, shown_path
from ckgrow.outputs import Output, Part
from ckgrow.planning import Plan
from ckgrow.provenance import Provenance
from ckgrow.recipes import Recipe
from ckgrow.recording import made_before, make_record
from ckgrow.reports.describing import amounts
from ckgrow.reports.documents import ApplyDocument, VerifyDocument
from ckgrow.verifying import Checks, compare_checkpoints
from ckgrow.watching import Watching

DEVIATING = ("approximate", "no")


class Spreading(Protocol):
    """Whoever makes the parts of a student in many processes."""

    def grow(
        self,
        plan: Plan,
        shards: Sequence[Shard],
        suffix: str,
        *,
        quiet: bool,
        advance: Callable[[int], None],
    ) -> Mapping[str, str]:
        """Makes the tensors of ``plan`` in the files ``shards``; their BLAKE3 hashes by name.

        The files are there, and remain in the format that ``suffix`` says; without the student's
        noise where ``quiet``. ``advance`` is told the bytes that are made.
        """
        ...


@dataclass(frozen=True)
class Run:
    """How a student is made: how many threads, whether it may replace a file, how it is checked.

    ``checks`` is None when the student is not to be verified. ``spreading`` makes the parts of a
    checkpoint in parts; without it they are made here.
    """

    workers: int = os.cpu_count() or 1
    force: bool = False
    keep_failed: bool = False
    checks: Checks | None = field(default_factory=lambda: Checks(quick=True))
    spreading: Spreading | None = None


def write_student(plan: Plan, output: Output, run: Run, watching: Watching) -> ApplyDocument:
    """Writes, verifies and publishes the student of ``plan``.

    Raises FileError where it cannot be written, and whatever reading the teacher raises. Nothing
    is left behind then.
    """
    teacher = plan.teacher
    if run.spreading is not None and not output.format.shards:
        raise SpecError(
            f"{shown_path(output.place)} is one file, which --backend cannot spread; write a "
            "checkpoint in parts (--shard-size, or a folder as the output), or leave it out"
        )
    with output.part(force=run.force) as part:
        watching.begin("reading the teacher", 0)
        twins = plan_twins(plan, output)
        record = make_record(plan, twins, run.workers)
        if part.taken and (known := made_before(plan, twins, output, record)):
            return _document(plan, output, "up to date", known.hashes, None, known.files)
        part.require_free()
        student = _Student(plan, twins, record, part, output, run, watching)
        expected = True
        if student.deviates and run.checks is not None:
            expected = student.verified(student.written(quiet=True)).preserved
        digest = student.written()
        verdict = student.verified(digest) if run.checks is not None else None
        if not teacher.reader.unchanged():
            raise FileError(
                f"{teacher.label} changed while it was read; run again when nothing writes to it"
            )
        require_unchanged(plan.spec.steps, record.calibration)
        hashes = {"teacher": record.teacher, "student": digest}
        if verdict is not None:
            expected = verdict.expected and expected
            verdict = replace(verdict, student=shown_path(output.place), expected=expected)
            if not (verdict.preserved or verdict.expected):
                if run.keep_failed:
                    part.keep_failed()
                return _document(plan, output, "failed", hashes, verdict)
        files = part.stamps()
        part.publish()
    return _document(plan, output, "written", hashes, verdict, files)


@dataclass(frozen=True)
class _Student:
    """The student being made, with everything that making and checking it needs."""

    plan: Plan
    twins: Mapping[str, Plan]
    record: Provenance
    part: Part
    output: Output
    run: Run
    watching: Watching

    @property
    def deviates(self) -> bool:
        """Whether the plan says that the function is not kept, of the weights or of a twin."""
        return any(_deviates(plan) for plan in (self.plan, *self.twins.values()))

    def written(self, *, quiet: bool = False) -> str:
        """Writes the part, without its noise where ``quiet``, and returns its content hash."""
        made = made_tensors(self.plan, quiet=quiet)
        own, twins = self._placeholders(made)
        header = made_header(made)
        total = sum(spec.nbytes for spec in header.values()) * (1 + len(self.twins))
        self.watching.begin("growing", total)
        content = made_content(self.plan, self.output, self._metadata(own, twins))
        writer = self.output.format.create(self.part, content)
        try:
            digest = content_hash(header, self._weights(made, writer, quiet))
            hashes = {own: digest}
            if isinstance(writer, ContainerWriter):
                for name, plan in self.twins.items():
                    others = made_tensors(plan, quiet=quiet)
                    header = made_header(others)
                    sink = writer.twin(name, header, made_ties(plan))
                    grown = self._grown(others, plan.teacher, sink)
                    hashes[twins[name]] = content_hash(header, grown)
            writer.finish(hashes)
        except BaseException:
            writer.abandon()
            raise
        return digest

    def _placeholders(self, made: Mapping[str, Recipe]) -> tuple[str, dict[str, str]]:
        """What stands for the student's hash, and those of twins, until they are known.

        Found nowhere else in the file, and as long as a hash.
        """
        metadata = dict(self.plan.teacher.reader.contents.metadata)
        text = repr((sorted(made), metadata, self.record.teacher, self.record.spec))
        own, *others = (
            blake3(f"{number} {text}".encode()).hexdigest() for number in range(1 + len(self.twins))
        )
        return own, dict(zip(self.twins, others, strict=True))

    def _metadata(self, own: str, twins: Mapping[str, str]) -> dict[str, str]:
        """The teacher's texts and the record, with these for hashes."""
        hashes = {
            name: replace(each, student=twins[name]) for name, each in self.record.twins.items()
        }
        record = replace(self.record, student=own, twins=hashes)
        return {**self.plan.teacher.reader.contents.metadata, PROVENANCE_KEY: record.to_json()}

    def _weights(
        self, made: Mapping[str, Recipe], writer: Writer, quiet: bool
    ) -> Mapping[str, str]:
        spreading = self.run.spreading
        if spreading is None or not isinstance(writer, ShardedWriter):
            return self._grown(made, self.plan.teacher, writer)
        suffix, advance = self.output.format.shards, self.watching.advance
        return spreading.grow(self.plan, writer.hand_out(), suffix, quiet=quiet, advance=advance)

    def _grown(self, made: Mapping[str, Recipe], teacher: Loaded, sink: Sink) -> dict[str, str]:
        return execute(made, teacher.read, sink, self.run.workers, self.watching.advance)

    def verified(self, digest: str) -> VerifyDocument:
        """The verdict on what stands in the part: that on the weights, if no twin's is worse."""
        self.watching.begin("verifying", 0)
        weights = self.output.weights(self.plan.teacher.reader.contents)
        found = [self._compared(self.plan, digest, weights)]
        for name, plan in self.twins.items():
            other = self._compared(plan, digest, name)
            reason = f"{shown(name)}: {other.reason} (--drop {shown(name)} leaves it out)"
            found.append(other if other.preserved else replace(other, reason=reason))
        failed = [each for each in found if not each.preserved]
        return min(failed, key=lambda each: each.expected, default=found[0])

    def _compared(self, plan: Plan, digest: str, weights: str | None) -> VerifyDocument:
        hashes = {"teacher": self.record.teacher, "student": digest}
        checks = self.run.checks or Checks()
        checks = replace(checks, seed=plan.spec.seed, locate=not _deviates(plan))
        with load(self.part.opened(), Wish(weights=weights)) as student:
            found = compare_checkpoints(plan.teacher, student, checks, hashes=hashes).document
        return replace(found, expected=not found.preserved and _deviates(plan))


def _deviates(plan: Plan) -> bool:
    return plan.preserves in DEVIATING


def _document(
    plan: Plan,
    output: Output,
    status: str,
    hashes: Mapping[str, str],
    verdict: VerifyDocument | None,
    files: Stamps | None = None,
) -> ApplyDocument:
    parameters, size, flops = amounts(plan)
    return ApplyDocument(
        plan.teacher.label,
        shown_path(output.place),
        status,
        plan.preserves,
        plan.stock_loadable,
        parameters,
        size,
        flops,
        output.left_behind(plan.teacher.reader.contents),
        tuple(warning for step in plan.steps for warning in step.warnings),
        hashes,
        verdict,
        {"teacher": stamps_of(plan.teacher.reader.files()), "student": files or {}},
    )
