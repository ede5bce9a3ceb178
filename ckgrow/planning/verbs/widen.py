"""``widen``: more channels in the outputs of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckgrow.drafts.calibrating import calibrated
from ckgrow.drafts.draft import Draft
from ckgrow.loading import Loaded
from ckgrow.methods import widen_method
from ckgrow.methods.method import WidenMethod
from ckgrow.names import first_few
from ckgrow.planning.convolution_groups import taken_by_groups
from ckgrow.planning.report import StepReport
from ckgrow.planning.targets import Widths, match_names, new_widths
from ckgrow.planning.verbs.facts import refuse_defaults
from ckgrow.planning.verbs.options import refuse_unread
from ckgrow.planning.widening import widen
from ckgrow.random import Draw
from ckgrow.spec import WidenStep

COMMON = ("widen", "factor", "to", "by", "groups", "multiple_of", "method", "placement")
"""Keys that every method reads."""

PADDED_SHORTCUTS = "shortcuts without parameters"
"""The fact that says where a zero-padded shortcut puts its zeros."""


def widen_step(
    draft: Draft, step: WidenStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """Every group that the step names, by its method."""
    method = widen_method(step.method, step.where)
    refuse_unread(step, COMMON, method)
    facts = method.rests_on(step)
    label = f"{method.name} with these options" if facts else method.name
    refuse_defaults(facts, teacher, label, step.where)
    if step.groups is not None:
        draft = taken_by_groups(draft, step)
    names = match_names(step.widen, draft.grouping.layers, step.where, "layer")
    before = draft
    draft, widths = _prepared(draft, step, method, names)
    grouping = draft.grouping
    warnings = list(widths.warnings)
    told = {
        name: method.warnings(step, draft.graph, grouping, grouping.groups[name])
        for name in widths.targets
    }
    warnings.extend(_together(told))
    warnings.extend(_padding_warnings(draft, tuple(widths.targets), teacher))
    report = StepReport(
        step.where,
        f"widen {', '.join(step.widen)} by {method.name}",
        method.name,
        method.preserves(step),
        widths.matched,
        widths.skipped,
        {name: (grouping.groups[name].width, width) for name, width in widths.targets.items()},
        added=tuple(layer for layer in draft.origins if layer not in before.origins),
        warnings=tuple(warnings),
    )
    widened = widen(draft, widths.targets, method, draw, step)
    measured, said = calibrated(before, widened, step, teacher.network.assumptions)
    report = replace(report, warnings=(*report.warnings, *said))
    return replace(measured, by_groups=frozenset()), report


def _prepared(
    draft: Draft, step: WidenStep, method: WidenMethod, names: Sequence[str]
) -> tuple[Draft, Widths]:
    """The draft made ready for the layers that grow, and their widths.

    How wide a layer becomes is known when it is ready, as a method may part it from others. Where
    some stay as they are, the draft is made ready anew for the others alone.
    """
    ready = method.prepare(draft, names, step)
    widths = new_widths(ready.draft.grouping, step, names, ready.barred)
    groups = ready.draft.grouping.groups
    growing = {layer for name in widths.targets for layer in groups[name].layers}
    if ready.draft is draft or growing.issuperset(widths.matched):
        return ready.draft, widths
    less = method.prepare(draft, [name for name in names if name in growing], step).draft
    return less, new_widths(less.grouping, step, names, ready.barred)


def _together(told: Mapping[str, list[str]]) -> list[str]:
    """Warnings by group, with those that say the same of several groups said once."""
    groups: dict[str, list[str]] = {}
    for name, texts in told.items():
        for text in texts:
            groups.setdefault(text.removeprefix(f"{name}: "), []).append(name)
    return [f"{first_few(names)}: {text}" for text, names in groups.items()]


def _padding_warnings(draft: Draft, groups: tuple[str, ...], teacher: Loaded) -> list[str]:
    """Where zero channels stand beside widened ones, keys do not tell on which side."""
    grouping = draft.grouping
    pads = [node.output for node in draft.graph.nodes if node.op == "Pad"]
    padded = [
        name
        for name in groups
        if any(grouping.holds(value, grouping.groups[name]) for value in pads)
    ]
    return [
        f"{', '.join(padded)}: shortcuts without parameters are taken to put {each.value}; if "
        "this network does otherwise, state it (teacher.options.padding); verify --expect tells"
        for each in teacher.network.assumptions
        if padded and each.fact == PADDED_SHORTCUTS and each.source != "spec"
    ]
