"""From a teacher and a spec to a plan: everything decided before a tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ckgrow.architecture import Assumption, Stage
from ckgrow.drafts.draft import Draft
from ckgrow.errors import CkgrowError, SpecError
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.loading import Loaded
from ckgrow.methods import block_method, layer_method, widen_method
from ckgrow.methods.method import STRENGTH, Preserves
from ckgrow.names import Pattern
from ckgrow.planning.deepening import deepen_layer, deepen_stage
from ckgrow.planning.targets import match_names, new_widths
from ckgrow.planning.widening import widen
from ckgrow.random import Draw
from ckgrow.spec import DeepenStep, Spec, WidenStep

EVERY_STEP_RESTS_ON = ("order", "BatchNorm of each layer")
"""Facts without which it is not even known what reads what."""

PADDED_SHORTCUTS = "shortcuts without parameters"
"""The fact that says where a zero-padded shortcut puts its zeros."""


@dataclass(frozen=True)
class StepReport:
    """What one step does.

    ``widths`` are (before, after) by group, ``added`` new layers and blocks, ``defect`` what
    inserted layers change for want of representable values, relative to what passes through them.
    """

    where: str
    summary: str
    method: str
    preserves: Preserves
    matched: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    defect: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A student that is fully described but not made.

    ``start`` is the teacher before the first step, ``draft`` what the last one made of it.
    """

    teacher: Loaded
    spec: Spec
    start: Draft
    draft: Draft
    steps: tuple[StepReport, ...]

    @property
    def preserves(self) -> Preserves:
        """The weakest promise of all steps."""
        return max((step.preserves for step in self.steps), key=STRENGTH.index)

    @property
    def defect(self) -> float:
        """What is recorded of rounding in inserted layers, summed over steps."""
        return sum(step.defect for step in self.steps)

    @property
    def graph(self) -> Graph:
        """The student's graph."""
        return self.draft.graph

    @property
    def header(self) -> Header:
        """The student's tensors by their names without prefix."""
        return self.draft.header

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What the teacher's keys and shapes do not hold."""
        return self.teacher.network.assumptions

    @cached_property
    def new_tensors(self) -> tuple[str, ...]:
        """Tensors that no tensor of the teacher turned into."""
        kept = set(self.draft.names.values())
        return tuple(name for name in self.draft.recipes if name not in kept)

    @cached_property
    def rebuilt(self) -> bool:
        """Whether the adapter makes the same graph of the student's keys and shapes alone."""
        adapter = self.teacher.architecture
        try:
            if not adapter.explain(self.header).complete:
                return False
            network = adapter.build(self.header, self.teacher.network.options)
        except CkgrowError:
            return False
        return network.graph == self.graph

    @cached_property
    def stock_loadable(self) -> str:
        """``yes (where)`` or ``no (why)``."""
        grown = [name for step in self.steps for name in step.added if "_grown" in name]
        if grown:
            return f"no ({grown[0]} has no place in the stock module; use ckgrow.load_into)"
        place = self.teacher.architecture.stock(self.header) if self.rebuilt else None
        if place is None:
            return "no (no constructor has these widths and depths; use ckgrow.load_into)"
        return f"yes ({place})"


def make_plan(teacher: Loaded, spec: Spec) -> Plan:
    """Runs every step of a spec on names and shapes.

    Raises SpecError at the step that cannot be done, CheckpointError for tensors that cannot grow.
    """
    start = draft = Draft.of_teacher(teacher.network.graph, teacher.header)
    reports: list[StepReport] = []
    for number, stated in enumerate(spec.steps):
        draw = Draw(spec.seed, number)
        step = stated.without_prefix(teacher.prefix)
        if isinstance(step, WidenStep):
            draft, report = _widen(draft, step, draw, teacher)
        else:
            draft, report = _deepen(draft, step, draw, teacher)
        reports.append(report)
    _ = draft.shapes  # raises where tensors and graph no longer fit, and is kept for the sizes
    return Plan(teacher, spec, start, draft, tuple(reports))


def _widen(draft: Draft, step: WidenStep, draw: Draw, teacher: Loaded) -> tuple[Draft, StepReport]:
    method = widen_method(step.method, step.where)
    facts = method.rests_on(step)
    label = f"{method.name} with these options" if facts else method.name
    _refuse_defaults(facts, teacher, label, step.where)
    grouping = draft.grouping
    widths = new_widths(grouping, step)
    warnings = list(widths.warnings)
    for name in widths.targets:
        warnings.extend(method.warnings(step, draft.graph, grouping, grouping.groups[name]))
    warnings.extend(_padding_warnings(draft, tuple(widths.targets), teacher))
    report = StepReport(
        step.where,
        f"widen {', '.join(step.widen)} by {method.name}",
        method.name,
        method.preserves(step),
        widths.matched,
        widths.skipped,
        {name: (grouping.groups[name].width, width) for name, width in widths.targets.items()},
        warnings=tuple(warnings),
    )
    return widen(draft, widths.targets, method, draw, step), report


def _deepen(
    draft: Draft, step: DeepenStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    stages = {stage.name: stage for stage in teacher.architecture.stages(draft.graph)}
    layers = draft.grouping.layers
    wanted = _meant(step, stages, tuple(layers))
    names = match_names(step.deepen, wanted, step.where, "layer or stage")
    method_name = step.method or ("zero-init" if names[0] in stages else "net2deeper")
    waiting = list(names)
    added: list[str] = []
    warnings: list[str] = []
    preserves: list[Preserves] = []
    defect = 0.0
    while waiting:
        name = waiting.pop(0)
        if name in stages:
            block = block_method(method_name, step.where)
            _refuse_defaults(block.rests_on, teacher, block.name, step.where)
            done = deepen_stage(draft, stages[name], block, draw, step)
        else:
            if "fill" in step.model_fields_set:
                raise SpecError(
                    f"{step.where}: fill is for new blocks; a layer by {method_name} is not drawn"
                )
            layer = layer_method(method_name, step.where)
            _refuse_defaults(layer.rests_on, teacher, layer.name, step.where)
            done = deepen_layer(draft, name, layer, draw, step)
        draft = done.draft
        waiting = [done.moved(each) for each in waiting]
        added = [*map(done.moved, added), *done.added]
        preserves.append(done.preserves)
        defect += done.defect
        warnings.extend(done.warnings)
    report = StepReport(
        step.where,
        f"deepen {', '.join(step.deepen)} by {method_name}",
        method_name,
        max(preserves, key=STRENGTH.index),
        tuple(names),
        added=tuple(added),
        defect=defect,
        warnings=tuple(warnings),
    )
    return draft, report


def _meant(
    step: DeepenStep, stages: Mapping[str, Stage], layers: tuple[str, ...]
) -> tuple[str, ...]:
    """Stages where a pattern matches one or blocks are asked for, layers otherwise."""
    if step.blocks is not None or step.after is not None:
        if not stages:
            raise SpecError(
                f"{step.where}: this network has no stages; name a layer and say 'layers'"
            )
        return tuple(stages)
    patterns = [Pattern(text) for text in step.deepen]
    matches = [name for name in stages for pattern in patterns if pattern.matches(name)]
    if step.layers is not None:
        if matches and any(pattern.is_literal for pattern in patterns):
            raise SpecError(f"{step.where}: {matches[0]} is a stage; say 'blocks', not 'layers'")
        return layers
    return tuple(stages) if matches else (*stages, *layers)


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


def _refuse_defaults(facts: tuple[str, ...], teacher: Loaded, method: str, where: str) -> None:
    """A step must not rest on what was merely guessed."""
    for assumption in teacher.network.assumptions:
        rests = assumption.fact in (*EVERY_STEP_RESTS_ON, *facts)
        if rests and assumption.source == "default":
            raise SpecError(
                f"{where}: {method} is exact only if the {assumption.fact} is "
                f"{assumption.value}, which is a guess; state what is true in the spec, under "
                f"'teacher: options:' (for instance 'options: {{{assumption.fact}: ...}}')"
            )
