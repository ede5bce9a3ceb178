"""Puts the verdict together: runs both networks, compares every output, and concludes.

Quick means: what float32 shows beyond doubt is passed at once. What it does not pass, though
float64 might, goes to the float64 arbiter all the same: a quick verdict may take longer, but it is
neither a false pass nor a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from ckgrow.architecture import Assumption
from ckgrow.graph import Graph
from ckgrow.names import shown
from ckgrow.registry import runtime
from ckgrow.verdict.comparison import OutputVerdict, Pair, compare
from ckgrow.verdict.disturbance import Disturbance
from ckgrow.verdict.expectation import Expectation, meet
from ckgrow.verdict.interface import SAME, Interface
from ckgrow.verdict.running import Side
from ckgrow.verdict.runs import ARBITER, RUNTIME, Runs
from ckgrow.verdict.samples import Samples
from ckgrow.verdict.tolerance import (
    TRUSTED,
    YARDSTICKS,
    Allowance,
    Stated,
    explained,
    rounding_bound,
)


@dataclass(frozen=True)
class Judgement:
    """The verdict on two networks; ``reason`` sums it up in a sentence.

    ``pairs`` are the outputs that were compared in float32, ``double_pairs`` those in float64,
    where it was asked.
    """

    preserved: bool
    reason: str
    outputs: tuple[OutputVerdict, ...]
    inputs: str
    samples: int
    runtimes: tuple[str, ...] = ()
    tolerance: str = ""
    expectations: tuple[Expectation, ...] = ()
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    double_pairs: Mapping[str, Pair] = field(default_factory=dict)


def judge(
    teacher: Side,
    student: Side,
    *,
    samples: Samples,
    quick: bool,
    interface: Interface = SAME,
    expected_outputs: Mapping[str, np.ndarray] | None = None,
    assumptions: Sequence[Assumption] = (),
    defects: Mapping[str, float] = MappingProxyType({}),
    rtol: float | None = None,
    atol: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Judgement:
    """Whether ``student`` computes the same function as ``teacher`` on ``samples``.

    ``quick`` does without float64 where it can. ``interface`` says how channels of their inputs
    and outputs belong together where these differ. ``expected_outputs`` are what another framework
    computed for the teacher on the same samples; ``assumptions`` are named when it differs.
    ``defects`` are what rounded steps recorded of nodes of the student, relative to what passes
    through them; that of the node "" may be anywhere.
    ``rtol`` (of each output's scale) and ``atol`` replace the measured tolerances.
    """
    stated = Stated(rtol, atol)
    problem = _incomparable(teacher.graph, student.graph, samples, interface)
    if problem:
        return Judgement(False, problem, (), samples.source, samples.count)
    runs = Runs(teacher, student, samples, interface, progress or _silent)
    disturbance = Disturbance.of(defects, student)
    rounding = max(rounding_bound(side.graph, side.header) for side in (teacher, student))
    allowance = Allowance(rounding, unplaced=disturbance.unplaced, stated=stated)
    judging = _Judging(runs, disturbance, allowance)
    verdicts = judging.quick() if quick else judging.full()
    expectations: tuple[Expectation, ...] = ()
    if expected_outputs is not None:
        expectations = meet(expected_outputs, runs.pairs(RUNTIME), verdicts, assumptions)
    notes = [f"{shown(name)} {note}" for name in verdicts if (note := runs.note(name))]
    preserved, reason = _conclusion(verdicts, expectations, notes)
    in_float64 = ARBITER in runs.used
    return Judgement(
        preserved,
        reason,
        tuple(verdicts.values()),
        samples.source,
        samples.count,
        tuple(runtime(name).label() for name in runs.used),
        explained(stated, runs.disturbed, disturbance.unplaced, in_float64=in_float64),
        expectations,
        runs.pairs(RUNTIME),
        runs.pairs(ARBITER) if in_float64 else {},
    )


@dataclass(frozen=True)
class _Judging:
    """Compares all outputs, with as much computed as it takes."""

    runs: Runs
    disturbance: Disturbance
    allowance: Allowance

    def full(self) -> Mapping[str, OutputVerdict]:
        """With float64."""
        return self._verdicts(double=True, defects_in=ARBITER)

    def quick(self) -> Mapping[str, OutputVerdict]:
        """With the next more expensive thing only where the last one left a doubt.

        Most recorded defects are smaller than float32 can show, so what they do is measured last.
        """
        verdicts = self._verdicts(double=False)
        if self._doubtful(verdicts) and self.disturbance.sizes:
            verdicts = self._verdicts(double=False, defects_in=RUNTIME)
        return self.full() if self._doubtful(verdicts) else verdicts

    def _doubtful(self, verdicts: Mapping[str, OutputVerdict]) -> bool:
        """Whether float64 could pass what did not pass."""
        return any(not each.preserved and _may_be_rounding(each) for each in verdicts.values())

    def _verdicts(self, *, double: bool, defects_in: str = "") -> Mapping[str, OutputVerdict]:
        """With what recorded defects do in a runtime; the user's own tolerance needs none of it."""
        runs, allowance = self.runs, self.allowance
        single = runs.pairs(RUNTIME)
        rounded = runs.pairs(ARBITER) if double else {}
        moved: Mapping[str, float] = {}
        if defects_in and self.disturbance.sizes and allowance.stated.of(1.0) is None:
            moved = runs.moved(defects_in, self.disturbance)
        verdicts = {}
        for name in runs.outputs:
            if name in single:
                allowed = replace(allowance, moved=moved.get(name, 0.0))
                verdict = compare(name, single[name], rounded.get(name), allowed)
                reasons = filter(None, (verdict.reason, runs.note(name)))
                verdicts[name] = replace(verdict, reason="; ".join(reasons))
            else:
                reason = "only one of the networks has this output"
                verdicts[name] = OutputVerdict(name, False, reason)
        return verdicts


def _may_be_rounding(verdict: OutputVerdict) -> bool:
    """Whether the difference is below all that float64 would find to be rounding.

    It allows 4 yardsticks, trusts none beyond ``TRUSTED``, and measures what defects do much as
    float32 did. A sum of two is at most twice the larger.
    """
    if verdict.max_abs is None or verdict.max_rel is None or verdict.tolerance is None:
        return False
    rounding = 2.0 * YARDSTICKS * TRUSTED
    return verdict.max_rel <= rounding or verdict.max_abs <= 4.0 * verdict.tolerance


def _incomparable(teacher: Graph, student: Graph, samples: Samples, interface: Interface) -> str:
    """Why the two cannot be run on the same inputs, "" when they can."""
    if not interface.joins(teacher, student):
        notes = {
            interface.note(name, shape, student.inputs.get(name, ()))
            for name, shape in teacher.inputs.items()
        }
        differing = f"{_listed(teacher)} in the teacher, {_listed(student)} in the student"
        return "; ".join((f"the inputs differ: {differing}", *sorted(notes - {""})))
    if not teacher.outputs or not student.outputs:
        return "there are no outputs to compare"
    if not samples.count:
        return "there are no inputs to compare the networks on"
    return ""


def _listed(graph: Graph) -> str:
    return ", ".join(f"{shown(name)} {list(shape)}" for name, shape in graph.inputs.items())


def _conclusion(
    verdicts: Mapping[str, OutputVerdict],
    expectations: Sequence[Expectation],
    notes: Sequence[str],
) -> tuple[bool, str]:
    problems = [
        *((each.name, each.reason) for each in verdicts.values() if not each.preserved),
        *((each.name, each.reason) for each in expectations if not each.met),
    ]
    if not problems:
        return True, "; ".join(("every output agrees within its tolerance", *notes))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    name, reason = problems[0]
    return False, f"output {shown(name)}: {reason}{more}"


def _silent(_: str) -> None:
    pass
