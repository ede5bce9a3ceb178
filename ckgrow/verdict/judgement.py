"""Puts the verdict together: runs both networks, compares every output, and concludes.

Quick means: what float32 shows beyond doubt is passed at once. What it does not pass, though no
difference stands out, goes to the float64 arbiter all the same: a quick verdict may take longer,
but it is neither a false pass nor a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckgrow.architecture import Assumption
from ckgrow.graph import Graph
from ckgrow.names import shown
from ckgrow.registry import runtime
from ckgrow.verdict.comparison import OutputVerdict, Pair, compare
from ckgrow.verdict.expectation import Expectation, meet
from ckgrow.verdict.interface import SAME, Interface
from ckgrow.verdict.reordering import reordered
from ckgrow.verdict.running import Outputs, Side, batch_rows, run
from ckgrow.verdict.samples import Samples
from ckgrow.verdict.tolerance import Allowance

ARBITER = "torch_float64"
RUNTIME = "onnxruntime"
PLAIN = 1e-3
PLAIN_YARDSTICKS = 100.0
"""A difference beyond this part of the scale and this many yardsticks is no rounding: float64 need
not be asked."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on two networks; ``reason`` sums it up in a sentence."""

    preserved: bool
    reason: str
    outputs: tuple[OutputVerdict, ...]
    inputs: str
    samples: int
    runtimes: tuple[str, ...] = ()
    tolerance: str = ""
    expectations: tuple[Expectation, ...] = ()


def judge(
    teacher: Side,
    student: Side,
    *,
    samples: Samples,
    quick: bool,
    interface: Interface = SAME,
    expected_outputs: Mapping[str, np.ndarray] | None = None,
    assumptions: Sequence[Assumption] = (),
    defect: float = 0.0,
    rtol: float | None = None,
    atol: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Judgement:
    """Whether ``student`` computes the same function as ``teacher`` on ``samples``.

    ``quick`` does without float64 where it can. ``interface`` says how channels of their inputs
    and outputs belong together where these differ. ``expected_outputs`` are what another framework
    computed for the teacher on the same samples; ``assumptions`` are named when it differs.
    ``defect`` is the sum of the relative defects that rounded steps recorded, 0 for exact ones.
    ``rtol`` (of each output's scale) and ``atol`` replace the measured tolerances.
    """
    allowance = Allowance(defect, rtol, atol)
    problem = _incomparable(teacher.graph, student.graph, samples, interface)
    if problem:
        return Judgement(False, problem, (), samples.source, samples.count)
    runs = _Runs(teacher, student, samples, interface, progress or _silent)
    verdicts = _verdicts(runs, allowance, double=not quick)
    measured_in_float64 = not quick
    if quick and any(map(_float64_may_decide, verdicts.values())):
        verdicts = _verdicts(runs, allowance, double=True)
        measured_in_float64 = True
    expectations: tuple[Expectation, ...] = ()
    if expected_outputs is not None:
        expectations = meet(expected_outputs, runs.pairs(RUNTIME), verdicts, assumptions)
    notes = [f"{shown(name)} {note}" for name in verdicts if (note := runs.note(name))]
    preserved, reason = _conclusion(verdicts, expectations, notes)
    return Judgement(
        preserved,
        reason,
        tuple(verdicts.values()),
        samples.source,
        samples.count,
        tuple(runtime(name).label() for name in runs.used),
        allowance.text(measured_in_float64=measured_in_float64),
        expectations,
    )


class _Runs:
    """Outputs of both sides, each computed once."""

    def __init__(
        self,
        teacher: Side,
        student: Side,
        samples: Samples,
        interface: Interface,
        progress: Callable[[str], None],
    ) -> None:
        self._sides = {"teacher": (teacher, samples), "student": (student, samples.for_student())}
        self._interface = interface
        self._progress = progress
        self._rows = batch_rows((teacher, student))
        self._made: dict[tuple[str, bool], dict[str, Outputs]] = {}
        self.outputs = tuple(dict.fromkeys((*teacher.graph.outputs, *student.graph.outputs)))

    @property
    def used(self) -> tuple[str, ...]:
        """The runtimes asked so far."""
        return tuple(dict.fromkeys(name for name, _ in self._made))

    def pairs(self, name: str, *, reorder: bool = False) -> dict[str, Pair]:
        """The outputs that both sides have, in one runtime, perhaps with reordered sums."""
        if (name, reorder) not in self._made:
            self._made[name, reorder] = {
                who: self._run(name, who, side, samples, reorder)
                for who, (side, samples) in self._sides.items()
            }
        made = self._made[name, reorder]
        teacher, student = made["teacher"], made["student"]
        return {
            output: Pair(
                teacher[output],
                self._interface.old(output, student[output], teacher[output].shape),
            )
            for output in self.outputs
            if output in teacher and output in student
        }

    def note(self, output: str) -> str:
        """What is to be said of an output whose channels are not the same on both sides."""
        teacher, student = (self._made[RUNTIME, False][who] for who in self._sides)
        if output not in teacher or output not in student:
            return ""
        return self._interface.note(output, teacher[output].shape, student[output].shape)

    def _run(self, name: str, who: str, side: Side, samples: Samples, reorder: bool) -> Outputs:
        how = ", reordered" if reorder else ""
        self._progress(f"{who} in {runtime(name).label()}{how}")
        graph = reordered(side.graph) if reorder else side.graph
        return run(name, graph, side, samples, self._rows)


def _verdicts(runs: _Runs, allowance: Allowance, *, double: bool) -> dict[str, OutputVerdict]:
    single = runs.pairs(RUNTIME)
    rounded = runs.pairs(ARBITER) if double else runs.pairs(RUNTIME, reorder=True)
    verdicts = {}
    for name in runs.outputs:
        if name in single:
            verdict = compare(name, single[name], rounded[name], allowance, double=double)
            note = runs.note(name)
            verdicts[name] = replace(
                verdict, reason="; ".join(filter(None, (verdict.reason, note)))
            )
        else:
            verdicts[name] = OutputVerdict(name, False, "only one of the networks has this output")
    return verdicts


def _float64_may_decide(verdict: OutputVerdict) -> bool:
    if verdict.preserved or verdict.max_rel is None or verdict.ratio is None:
        return False
    return verdict.max_rel <= PLAIN or verdict.ratio <= PLAIN_YARDSTICKS


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
