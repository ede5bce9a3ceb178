"""From a teacher and a spec to a plan: everything decided before a tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ckgrow.architecture import Assumption
from ckgrow.drafts.draft import Draft
from ckgrow.errors import CkgrowError
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.loading import Loaded
from ckgrow.methods.method import Preserves, weakest
from ckgrow.names import by
from ckgrow.naming import in_grown
from ckgrow.planning.report import StepReport
from ckgrow.planning.ties import tied
from ckgrow.planning.verbs import VERBS
from ckgrow.random import Draw
from ckgrow.recipes import ranges
from ckgrow.spec import Spec


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
        return weakest(step.preserves for step in self.steps)

    @property
    def defect(self) -> float:
        """What is recorded of rounding in inserted layers, summed up."""
        return sum(self.draft.defects.values())

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
    def kept(self) -> Mapping[str, tuple[str, ...]]:
        """Where each of the teacher's tensors stands bit for bit in the student's.

        By the student's name: for each axis the positions, as slices. Tensors of which a weight
        was changed are left out.
        """
        found = {
            name: self.draft.recipes[name].kept()
            for name in self.draft.names.values()
            if name in self.draft.recipes
        }
        return {name: tuple(map(ranges, axes)) for name, axes in found.items() if axes is not None}

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """The teacher's options as they hold for the student.

        An option called like a graph input states its shape, which may have changed.
        """
        stated = self.teacher.network.options
        return {**stated, **{k: list(v) for k, v in self._new_inputs.items() if k in stated}}

    @cached_property
    def inherited(self) -> tuple[Assumption, ...]:
        """The teacher's assumptions as they hold for the student; facts are called like options."""
        sizes = {name: by(shape) for name, shape in self._new_inputs.items()}
        return tuple(
            replace(each, value=sizes.get(each.fact, each.value)) for each in self.assumptions
        )

    @property
    def _new_inputs(self) -> Mapping[str, tuple[int | str, ...]]:
        """The sizes of a sample, for every graph input whose channels changed."""
        inputs = self.graph.inputs
        return {name: inputs[name][1:] for name in self.draft.interface if name in inputs}

    @cached_property
    def rebuilt(self) -> bool:
        """Whether the adapter makes the same graph of the student's keys and shapes alone."""
        adapter = self.teacher.architecture
        try:
            if not adapter.explain(self.header).complete:
                return False
            network = adapter.build(self.header, self.options)
        except CkgrowError:
            return False
        return network.graph == self.graph

    @cached_property
    def stock_loadable(self) -> str:
        """``yes (where)`` or ``no (why)``."""
        grown = [name for step in self.steps for name in step.added if in_grown(name)]
        if grown:
            return f"no ({grown[0]} has no place in the stock module; use ckgrow.load_into)"
        place = self.teacher.architecture.stock(self.header) if self.rebuilt else None
        if place is None:
            return "no (no constructor has these channels and depths; use ckgrow.load_into)"
        return f"yes ({place})"


def make_plan(teacher: Loaded, spec: Spec) -> Plan:
    """Runs every step of a spec on names and shapes.

    Raises SpecError at the step that cannot be done, or where tied tensors would part;
    CheckpointError for tensors that cannot grow.
    """
    start = draft = Draft.of_teacher(teacher.network.graph, teacher.header, teacher.ties)
    reports: list[StepReport] = []
    for number, stated in enumerate(spec.steps):
        draw = Draw(spec.seed, number)
        step = stated.without_prefix(teacher.prefix)
        draft, report = VERBS[step.verb](draft, step, draw, teacher)
        reports.append(report)
    _ = draft.shapes  # raises where tensors and graph no longer fit, and is kept for the sizes
    return Plan(teacher, spec, start, tied(draft), tuple(reports))
