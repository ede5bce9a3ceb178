"""Documents as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from ckgrow.cli.show_verdict import show_verdict
from ckgrow.cli.tables import console, show_assumptions, table
from ckgrow.names import by, first_few, shown
from ckgrow.planning import StepReport
from ckgrow.reports.documents import (
    Amount,
    ApplyDocument,
    InspectDocument,
    PlanDocument,
    TensorRow,
)


def show_plan(document: PlanDocument) -> None:
    """Steps, tensors, sizes, warnings."""
    out = console()
    out.print(f"teacher: {document.teacher} ({document.architecture})")
    show_assumptions(out, document.assumptions)
    _steps(out, document.steps)
    changed = [row for row in document.tensors if row.how != "unchanged"]
    rows = [
        (shown(row.name), _shape(row.teacher_shape), _shape(row.student_shape), row.how)
        for row in changed
    ]
    table(out, ("tensor", "teacher", "student", "how"), rows)
    out.print(f"{len(document.tensors) - len(changed)} tensors unchanged")
    for before, after in document.renames.items():
        out.print(f"renamed: {shown(before)} → {shown(after)}")
    _sizes(out, document.parameters, document.bytes, document.flops)
    out.print(f"function preserved: {document.preserves}")
    _kept(out, document.tensors)
    out.print(f"loads into the stock module: {document.stock_loadable}")
    _dropped(out, document.dropped)
    _warnings(out, [text for step in document.steps for text in step.warnings])
    _learning_rate(out)


def show_short_plan(document: PlanDocument) -> None:
    """Steps and sizes, before a student is written."""
    out = console()
    out.print(f"teacher: {document.teacher} ({document.architecture})")
    _steps(out, document.steps)
    _sizes(out, document.parameters, document.bytes, document.flops)
    _warnings(out, [text for step in document.steps for text in step.warnings])


def show_applied(document: ApplyDocument, *, kept: bool) -> None:
    """What was written, the verdict, and what to do next; ``kept`` is a failed student."""
    out = console()
    if document.verify is not None:
        show_verdict(document.verify)
    if document.status == "up to date":
        out.print(f"{document.student} is up to date: same teacher, same spec, unchanged since")
    if document.status == "failed":
        where = f"is in {document.student}.failed" if kept else "was not kept (--keep-failed does)"
        out.print(f"nothing was written to {document.student}; the failed student {where}")
    if document.status != "written":
        return
    out.print(f"student: {document.student}")
    _dropped(out, document.dropped)
    if document.verify is None:
        out.print(f"not verified; run: ckgrow verify {document.teacher} {document.student}")
    out.print(f"loads into the stock module: {document.stock_loadable}")
    if document.stock_loadable.startswith("no"):
        out.print(f"next: ckgrow.load_into(module, {document.student!r}), then train")
    else:
        out.print("next: module.load_state_dict(...), then train")
    _learning_rate(out)


def show_checkpoint(document: InspectDocument) -> None:
    """Architecture, assumptions, groups, stages, lineage."""
    out = console()
    out.print(f"checkpoint: {document.checkpoint}")
    out.print(f"architecture: {document.architecture}")
    show_assumptions(out, document.assumptions)
    rows = [
        (
            shown(group.name),
            str(group.width),
            str(group.runs),
            first_few(group.layers),
            str(len(group.axes)),
            "yes" if group.growable else f"no: {group.reason}",
        )
        for group in document.groups
    ]
    table(out, ("group", "width", "runs", "layers", "axes", "can grow"), rows)
    for stage, blocks in document.stages.items():
        out.print(f"stage {shown(stage)}: {len(blocks)} blocks")
    out.print(
        f"{document.parameters:,} parameters, {document.bytes:,} bytes, "
        f"{document.flops:,} FLOPs per sample"
    )
    if document.passthrough:
        out.print(f"passed through unread: {first_few(document.passthrough)}")
    _dropped(out, document.dropped)
    if document.new_tensors:
        out.print(f"new since its teacher: {first_few(document.new_tensors)}")
    if document.teacher_tensors:
        out.print(f"its teacher's tensors, bit for bit: {len(document.teacher_tensors)}, as in")
        for name, axes in list(document.teacher_tensors.items())[:3]:
            out.print(f"  {shown(name)}[{', '.join(axes)}]")
    for generation, ancestor in enumerate(document.lineage, start=1):
        out.print(f"ancestor {generation}: teacher {ancestor['teacher'][:16]}…")


def _steps(out: Console, steps: Sequence[StepReport]) -> None:
    rows = [
        (str(number), step.summary, _effect(step), step.preserves)
        for number, step in enumerate(steps, start=1)
    ]
    table(out, ("", "step", "effect", "preserves"), rows)
    for step in steps:
        for name, reason in step.skipped.items():
            out.print(f"passed over: {shown(name)}: {reason}")


def _effect(step: StepReport) -> str:
    said = [f"{shown(name)} {old}→{new}" for name, (old, new) in step.widths.items()]
    said += [
        f"{shown(name)} {_shape(old)}→{_shape(new)}" for name, (old, new) in step.kernels.items()
    ]
    said += [f"+ {shown(name)}" for name in step.added]
    return first_few(said) or "nothing"


def _sizes(out: Console, parameters: Amount, size: Amount, flops: Amount) -> None:
    rows = [
        (what, f"{amount.teacher:,}", f"{amount.student:,}", _times(amount))
        for what, amount in (("parameters", parameters), ("bytes", size), ("FLOPs", flops))
    ]
    table(out, ("", "teacher", "student", ""), rows)


def _times(amount: Amount) -> str:
    return f"x{amount.student / amount.teacher:.2f}" if amount.teacher else ""


def _warnings(out: Console, warnings: Iterable[str]) -> None:
    for warning in warnings:
        out.print(f"warning: {warning}", style="yellow")


def _kept(out: Console, rows: Sequence[TensorRow]) -> None:
    old = [row for row in rows if row.teacher_shape is not None]
    changed = [shown(row.name) for row in old if row.kept is None]
    if changed:
        out.print(
            f"teacher's tensors kept bit for bit: {len(old) - len(changed)} of {len(old)}; "
            f"rewritten: {first_few(changed)}"
        )
    else:
        out.print(f"teacher's tensors kept bit for bit: all {len(old)}")


def _dropped(out: Console, dropped: Sequence[str]) -> None:
    if dropped:
        out.print(
            f"left behind in the teacher's file: {first_few([shown(name) for name in dropped])}"
        )


def _learning_rate(out: Console) -> None:
    out.print(
        "learning rate: published advice is about a tenth of the teacher's initial rate; the full "
        "rate can end higher after a first dip. Try both."
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "new" if shape is None else by(shape) or "scalar"
