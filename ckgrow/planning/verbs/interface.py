"""``inputs`` and ``classes``: more channels in the network's input, more classes in its output.

Both keep the teacher's function on what the teacher knows. The layers that read the input have
zero weights for new channels, so that whatever these hold changes nothing; a layer that makes the
logits has new rows behind the old ones, whose logits stay bit for bit. Neither is dead: a zero
weight beside an input that is not zero has a gradient, and new classes have one from the first
example on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ckgrow.drafts.draft import Draft
from ckgrow.errors import SpecError
from ckgrow.graph import Graph
from ckgrow.loading import Loaded
from ckgrow.names import first_few, shown
from ckgrow.ops import rule
from ckgrow.planning.ends import (
    End,
    group_of,
    grown_ends,
    input_ends,
    obstacle,
    output_ends,
)
from ckgrow.planning.report import StepReport
from ckgrow.planning.targets import MOST_CHANNELS
from ckgrow.planning.verbs.facts import refuse_defaults
from ckgrow.random import Draw
from ckgrow.spec import ClassesStep, InputsStep
from ckgrow.spec.section import Amount

NORMALISING = ("Softmax", "LogSoftmax")


def inputs_step(
    draft: Draft, step: InputsStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """More channels in the only input of the network."""
    refuse_defaults((), teacher, "inputs", step.where)
    opened = replace(draft, open_ends=frozenset(draft.graph.inputs))
    ends = input_ends(opened)
    if len(ends) != 1:
        names = first_few([shown(end.name) for end in ends]) or "none"
        raise SpecError(
            f"{step.where}: inputs is for networks with one input that has channels; "
            f"those of this network: {names}"
        )
    end = ends[0]
    if reason := obstacle(opened, end):
        raise SpecError(
            f"{step.where}: the network's input {shown(end.name)} cannot have more channels: "
            f"{reason}"
        )
    target = _target(step.inputs, end.width, "input channels", step.where)
    summary = f"inputs {_said(step.inputs)}"
    report = StepReport(step.where, summary, step.verb, "exact", (end.name,))
    if target == end.width:
        said = f"the network has {target} input channels already: nothing to do"
        return draft, replace(report, warnings=(said,))
    grown = grown_ends(opened, {end: target}, "match-std", draw, step.where)
    rescaling = _rescaling(opened.graph, grown.graph)
    warnings = [
        f"{first_few(rescaling)} rescale the old input channels by constants of the network; new "
        "ones pass as they are, and your module has to do the same"
    ]
    return grown, replace(
        report,
        widths={end.name: (end.width, target)},
        warnings=tuple(warnings if rescaling else ()),
    )


def classes_step(
    draft: Draft, step: ClassesStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """More classes in every output that is a classification, auxiliary heads included."""
    refuse_defaults((), teacher, "classes", step.where)
    opened = replace(draft, open_ends=frozenset(draft.graph.outputs))
    ends, others = output_ends(opened)
    if not ends:
        said = "; ".join(f"{shown(name)}: {reason}" for name, reason in others.items())
        raise SpecError(f"{step.where}: no output of this network is a classification ({said})")
    for end in ends:
        if reason := obstacle(opened, end):
            raise SpecError(
                f"{step.where}: the output {shown(end.name)} cannot have more classes: "
                f"{_explained(opened, end, reason)}"
            )
    if len({end.width for end in ends}) > 1:
        said = ", ".join(f"{shown(end.name)} has {end.width} channels" for end in ends)
        raise SpecError(
            f"{step.where}: it is not known which outputs of this network are classes: {said}"
        )
    width = ends[0].width
    target = _target(step.classes, width, "classes", step.where)
    summary = f"classes {_said(step.classes)} ({step.fill})"
    matched = tuple(end.name for end in ends)
    report = StepReport(step.where, summary, step.verb, "exact", matched, others)
    if target == width:
        said = f"the network has {target} classes already: nothing to do"
        return draft, replace(report, warnings=(said,))
    return grown_ends(opened, dict.fromkeys(ends, target), step.fill, draw, step.where), replace(
        report,
        widths={end.name: (width, target) for end in ends},
        warnings=tuple(_dead(opened, ends) if step.fill == "zeros" else ()),
    )


def _target(amount: Amount, width: int, what: str, where: str) -> int:
    """How many there are in the end; a spec has one of ``by`` and ``to``."""
    target = amount.to if amount.by is None else width + amount.by
    assert target is not None
    if target < width:
        raise SpecError(
            f"{where}: the network has {width} {what} and cannot shrink to {target}; "
            "ckgrow only grows"
        )
    if target > MOST_CHANNELS:
        raise SpecError(
            f"{where}: the network would have {target} {what}; "
            f"ckgrow grows to {MOST_CHANNELS} at most"
        )
    return target


def _said(amount: Amount) -> str:
    return f"to {amount.to}" if amount.by is None else f"by {amount.by}"


def _rescaling(before: Graph, after: Graph) -> list[str]:
    """The nodes whose constants got an entry for each new channel."""
    changed = {name for name, each in before.constants.items() if each != after.constants[name]}
    return [
        node.name
        for node in before.nodes
        if rule(node.op).neutral is not None and any(name in changed for name in node.inputs)
    ]


def _explained(draft: Draft, end: End, reason: str) -> str:
    """The reason, and for a Softmax what to do about it."""
    group = group_of(draft, end)
    behind = [
        node
        for node in draft.graph.nodes
        if node.op in NORMALISING and group and draft.grouping.holds(node.inputs[0], group)
    ]
    if not behind:
        return reason
    return (
        f"{behind[0].op} {behind[0].name!r} runs over it, and every new class would change the "
        "probabilities of the old ones; let the network end at the logits, then add classes"
    )


def _dead(draft: Draft, ends: Sequence[End]) -> list[str]:
    """Rows of zero before an activation whose gradient at 0 is zero never learn."""
    found = []
    for end in ends:
        group = group_of(draft, end)
        readers = () if group is None else draft.grouping.readers(draft.graph, group)
        nodes = map(draft.graph.node, readers)
        flat = (n.name for n in nodes if rule(n.op).flat_at_zero(n, draft.graph.constants))
        found += [
            f"{end.name}: new logits are zero before {name}, whose gradient there is zero: they "
            "are dead and cannot learn; use fill: match-std"
            for name in itertools.islice(flat, 1)
        ]
    return found
