"""A verdict as people read it in a terminal."""

from __future__ import annotations

import math

from rich.console import Console

from ckgrow.cli.tables import console, show_assumptions, table
from ckgrow.learning.report import Learning
from ckgrow.localisation import Localisation
from ckgrow.names import by, first_few, shown
from ckgrow.proof import Proof
from ckgrow.reports.documents import VerifyDocument
from ckgrow.verdict.training import TrainMode


def show_verdict(document: VerifyDocument) -> None:
    """Preserved or not, by how much, where it breaks, and on what that rests."""
    out = console()
    word = "preserved" if document.preserved else "NOT PRESERVED"
    style = "bold green" if document.preserved else "bold red"
    if document.expected:
        word, style = "not preserved, as the plan said", "bold yellow"
    if document.proof is not None:
        word = document.proof if document.preserved else document.proof.upper()
    out.print(f"verdict: {word}", style=style)
    out.print(document.reason)
    for note in document.notes:
        out.print(f"note: {note}")
    if document.outputs:
        _outputs(out, document)
    if document.localisation is not None:
        _localisation(out, document.localisation)
    if document.certificate is not None:
        _violations(out, document.certificate)
    show_assumptions(out, document.assumptions)
    if document.certificate is not None:
        _checks(out, document.certificate)
    if document.train_mode is not None:
        _training(out, document.train_mode)
    if document.learning is not None:
        _learning(out, document.learning)


def _outputs(out: Console, document: VerifyDocument) -> None:
    rows = [
        (
            shown(output.name),
            _number(output.max_abs),
            _number(output.tolerance),
            _number(output.yardstick),
            _number(output.ratio),
            _number(output.float64_max_abs),
            _number(output.float64_tolerance),
            _number(output.passing),
            "" if output.top1 is None else f"{output.top1:.1%}",
        )
        for output in document.outputs
    ]
    heads = ("output", "max abs", "tolerance", "yardstick", "ratio", "in float64")
    table(out, (*heads, "its tolerance", "would pass", "top-1"), rows)
    out.print(f"inputs: {document.inputs}")
    out.print(f"runtimes: {', '.join(document.runtimes)}")
    out.print(f"tolerance: {document.tolerance}")
    weaker = max((output.weaker or 0.0 for output in document.outputs), default=0.0)
    if weaker:
        out.print(f"float64 would see differences {weaker:.1e} times smaller: leave out --quick")


def _localisation(out: Console, found: Localisation) -> None:
    rows = [
        (
            shown(source.layer),
            first_few(source.tensors),
            first_few([str(channel) for channel in source.channels]),
            first_few(tuple(dict.fromkeys(source.sources))),
            _number(source.deviation),
        )
        for source in found.sources
    ]
    if rows:
        heads = ("breaks at", "tensors", "channels", "which should be", "relative deviation")
        table(out, heads, rows)
    else:
        out.print(f"no layer departs by itself, of {found.compared} that were compared")
    if found.skipped:
        out.print(f"not compared, for want of a record: {first_few(found.skipped)}")


def _violations(out: Console, proof: Proof) -> None:
    if proof.findings:
        rows = [
            (
                shown(each.tensor or each.layer),
                each.equation,
                first_few([str(channel) for channel in each.channels]),
                first_few(tuple(dict.fromkeys(each.sources))),
                _number(each.defect) if math.isfinite(each.defect) else "",
            )
            for each in proof.findings
        ]
        head = "violated at" if proof.result == "refuted" else "not borne out at"
        table(out, (head, "equation", "channels", "should be", "units of rounding"), rows)
    for each in proof.lacking:
        out.print(f"missing: {each}")


def _checks(out: Console, proof: Proof) -> None:
    groups = [
        (
            shown(group.group),
            f"{group.teacher}→{group.student}",
            f"{group.copies}/{group.fresh}/{group.zeros}",
            str(group.tensors),
            group.result,
            _number(group.defect),
        )
        for group in proof.groups
    ]
    heads = ("group", "channels", "copies/new/zero", "tensors", "result", "units of rounding")
    table(out, heads, groups)
    tensors = [
        (shown(each.tensor), by(each.shape) or "scalar", each.result, _number(each.defect))
        for each in proof.tensors
    ]
    table(out, ("tensor", "shape", "result", "units of rounding"), tensors)


def _training(out: Console, found: TrainMode) -> None:
    word = "agrees" if found.agrees else "differs"
    out.print(f"training mode: {word}; {found.reason}")
    rows = [
        (shown(each.name), _number(each.max_abs), _number(each.max_rel), _number(each.tolerance))
        for each in found.outputs
    ]
    table(out, ("output", "max abs", "max rel", "tolerance"), rows)


def _learning(out: Console, found: Learning) -> None:
    style = "bold green" if found.verdict == "learns" else "bold yellow"
    out.print(f"learning: {found.verdict}", style=style)
    out.print(found.reason)
    for finding in found.findings:
        out.print(f"{finding.kind}: {finding.what}")
        out.print(f"  cure: {finding.cure}")
    if found.share is not None:
        out.print(f"new weights that moved: {found.moved:,} of {found.new:,} ({found.share:.1%})")
    rows = [
        (
            shown(group.name),
            f"{group.teacher_width or 0}→{group.width}",
            "" if group.rank is None else f"{group.rank} of {group.attainable}",
            str(group.still),
            str(group.identical),
        )
        for group in found.groups
        if group.teacher_width != group.width
    ]
    table(out, ("group", "units", "rank of gradients", "still", "identical"), rows)
    losses = found.losses
    for who, course in (("teacher", losses.teacher), ("student", losses.student)):
        out.print(f"loss of the {who}: {', '.join(_number(each) for each in course)}")
    out.print(f"{found.training}; rate {found.rate:g}; {found.inputs}; targets: {found.targets}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
