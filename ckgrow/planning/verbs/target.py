"""``target``: the steps that make a published network of this one.

What is to be done follows from comparing the two networks; it is done by the verbs themselves, as
if the spec had these steps: groups of convolutions first, then widths, then blocks and layers. In
this order new blocks are modelled on layers of their final widths, and their fresh weights are
drawn in full: grown the other way round, they would be copies of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from ckgrow.architecture import Architecture
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.renaming import is_inside
from ckgrow.errors import CkgrowError, SpecError
from ckgrow.loading import Loaded
from ckgrow.methods import block_method, layer_method, widen_method
from ckgrow.methods.method import weakest
from ckgrow.names import by, first_few, nearest, quoted
from ckgrow.planning.correspondence import Addition, Correspondence, correspond
from ckgrow.planning.departures import departures, group_count, obstacles
from ckgrow.planning.report import StepReport
from ckgrow.planning.verbs.deepen import deepen_step
from ckgrow.planning.verbs.widen import widen_step
from ckgrow.random import Draw
from ckgrow.recognition import build
from ckgrow.registry import architectures
from ckgrow.spec import DeepenStep, TargetStep, WidenStep

Layers = Mapping[str, str]


def target_step(
    draft: Draft, step: TargetStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """Every step towards the target; SpecError says what stands between."""
    adapter = teacher.architecture
    target = _published(draft, step, adapter)
    stages = adapter.stages(draft.graph)
    _check_methods(step, in_stages=bool(stages))
    way = correspond(draft, stages, target, adapter.stages(target.graph))
    _refuse(step, way.obstacles or obstacles(draft, target, way.layers))
    parts = map(draw.part, count())
    reports: list[StepReport] = []
    for widths in (_new_groups, _new_widths):
        for widening in widths(draft, target, way.layers, step):
            draft, report = widen_step(draft, widening, next(parts), teacher)
            reports.append(report)
    names = {name: name for name in draft.grouping.layers}
    for addition in way.additions:
        deepening = _deepening(addition, names.get(addition.name, addition.name), step)
        grown, report = deepen_step(draft, deepening, next(parts), teacher)
        moved = _moved(draft, grown, report.added)
        names = {name: moved[now] for name, now in names.items()}
        draft = grown
        reports.append(report)
    left = list(departures(draft, target))
    if left and step.deepen is not None and way.additions:
        left.insert(0, f"{step.deepen} makes other layers than the target has; leave it out")
    _refuse(step, left)
    return draft, _summarised(step, way, reports)


def _published(draft: Draft, step: TargetStep, adapter: Architecture) -> Draft:
    """The target as a network of its own, with inputs and classes as the draft has them."""
    if step.target not in adapter.targets:
        raise SpecError(f"{step.where}: {_unknown(step.target, adapter)}")
    facts = adapter.targets[step.target](draft.graph, draft.header)
    try:
        network = build(adapter, facts.header, facts.options, step.target)
    except CkgrowError as failure:
        (size,) = draft.graph.inputs.values()
        read = by(size[1:])
        raise SpecError(
            f"{step.where}: {step.target} cannot be reached: it does not work on inputs of {read} "
            f"({failure})"
        ) from failure
    return Draft.of_teacher(network.graph, facts.header)


def _unknown(name: str, adapter: Architecture) -> str:
    families = architectures() | {adapter.name: adapter}
    for family in families.values():
        if name in family.targets:
            own = first_few(list(adapter.targets)) or "none"
            return (
                f"{name} is of the family {family.name}, this network of the family "
                f"{adapter.name}; targets of its own are {own}"
            )
    own_first = (adapter, *families.values())
    known = dict.fromkeys(each for family in own_first for each in family.targets)
    same = [each for each in known if each.endswith(f"/{name}")]
    near = first_few(same or nearest(name, known))
    return f"there is no target {quoted(name)}" + (
        f"; the nearest are {near}" if near else "; see 'ckgrow adapters' for all there are"
    )


def _check_methods(step: TargetStep, *, in_stages: bool) -> None:
    """Known by name, even where nothing is there to be done by them."""
    widen_method(step.widen, step.where)
    if step.deepen is not None:
        named: Callable[[str, str], object] = block_method if in_stages else layer_method
        named(step.deepen, step.where)


def _refuse(step: TargetStep, why: Iterable[str]) -> None:
    reasons = list(why)
    if reasons:
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise SpecError(
            f"{step.where}: {step.target} cannot be reached: {'; '.join(reasons[:3])}{more}"
        )


def _new_groups(
    draft: Draft, target: Draft, layers: Layers, step: TargetStep
) -> Iterator[WidenStep]:
    """One step for every number of convolution groups that is to be."""
    wanted: dict[int, list[str]] = {}
    for name, there in layers.items():
        groups = group_count(target, there)
        if groups != group_count(draft, name):
            wanted.setdefault(groups, []).append(name)
    for groups, names in wanted.items():
        made = WidenStep(widen=tuple(names), groups=groups, method=step.widen)
        yield made.standing_at(step.where)


def _new_widths(
    draft: Draft, target: Draft, layers: Layers, step: TargetStep
) -> Iterator[WidenStep]:
    """One step for every width that is to be."""
    wanted: dict[int, list[str]] = {}
    for name, there in layers.items():
        width = target.grouping.layers[there].width
        if width != draft.grouping.layers[name].width:
            wanted.setdefault(width, []).append(name)
    for width, names in wanted.items():
        made = WidenStep(widen=tuple(names), to=width, method=step.widen)
        yield made.standing_at(step.where)


def _deepening(addition: Addition, name: str, step: TargetStep) -> DeepenStep:
    stated: dict[str, Any] = {"deepen": (name,), addition.kind: addition.count}
    if step.deepen is not None:
        stated["method"] = step.deepen
    return DeepenStep(**stated).standing_at(step.where)


def _moved(before: Draft, after: Draft, added: Iterable[str]) -> dict[str, str]:
    """What each layer of a draft is called in the next one, which has more of them."""
    new = tuple(added)
    kept = [
        name for name in after.grouping.layers if not any(is_inside(name, path) for path in new)
    ]
    return dict(zip(before.grouping.layers, kept, strict=True))


def _summarised(step: TargetStep, way: Correspondence, reports: list[StepReport]) -> StepReport:
    widths: dict[str, tuple[int, int]] = {}
    widened: list[str] = []
    for report in reports:
        if report.widths:
            widened += report.matched
        for name, (before, after) in report.widths.items():
            widths[name] = (widths.get(name, (before, after))[0], after)
    done = [f"widen {len(widths)} groups by {step.widen}"] if widths else []
    done += [f"deepen {each}" for each in way.additions]
    warnings = dict.fromkeys(text for report in reports for text in report.warnings)
    if not reports:
        done = ["nothing to do"]
        warnings[f"this is {step.target} already: nothing to do"] = None
    return StepReport(
        step.where,
        f"target {step.target}: {', '.join(done)}",
        ", ".join(dict.fromkeys(report.method for report in reports)) or step.widen,
        weakest(report.preserves for report in reports),
        tuple(dict.fromkeys((*widened, *(each.name for each in way.additions)))),
        widths=widths,
        added=way.new,
        defect=sum(report.defect for report in reports),
        warnings=tuple(warnings),
    )
