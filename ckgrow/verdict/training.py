"""Both networks in training mode: BatchNorm on the statistics of the batch, Dropout off.

A function can be preserved in eval mode and not in training mode. Copies of a channel have the
statistics of their source, so what ``net2wider`` and its like make agrees there too. The BatchNorm
of an identity layer does not: its gamma and beta undo statistics that are *stored*, and the batch
has others. That is no fault and no part of the verdict; it tells how gently training will go on.

In exact arithmetic both agree or they do not, so float64 decides. BatchNorm divides by deviations
of the batch, which may be small, so rounding is measured through it: by the difference between each
network and itself with every sum reversed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ckgrow.graph import Graph
from ckgrow.names import first_few
from ckgrow.registry import runtime
from ckgrow.verdict.comparison import largest_difference
from ckgrow.verdict.interface import SAME, Interface
from ckgrow.verdict.reordering import reordered
from ckgrow.verdict.running import Outputs, Side
from ckgrow.verdict.samples import Samples

ARBITER = "torch_float64"
RELATIVE = 1e-12
"""Of the output's scale: float64 rounding of a network without BatchNorm stays below it."""
TIMES_ROUNDING = 16.0
"""How many times the rounding that either network shows the two may differ by."""
LEAST_SAMPLES = 2
MOST_SUSPECTS = 16
"""How many new BatchNorms are tried one by one; each costs a run of the student."""


@dataclass(frozen=True)
class TrainModeOutput:
    """One output: the largest difference, absolute and in parts of its scale, in float64."""

    name: str
    agrees: bool
    max_abs: float
    max_rel: float | None
    tolerance: float


@dataclass(frozen=True)
class TrainMode:
    """How teacher and student compare in training mode; ``outputs`` is empty where they cannot be.

    ``causes`` are the new BatchNorms that part them: with the others on stored statistics, each
    does so alone.
    """

    agrees: bool
    reason: str
    outputs: tuple[TrainModeOutput, ...]
    causes: tuple[str, ...]
    samples: int


def in_training(graph: Graph, stored: Collection[str] = ()) -> Graph:
    """The graph with BatchNorms on the statistics of the batch, but for those in ``stored``."""
    nodes = (
        node.with_attributes(training_mode=1)
        if node.op == "BatchNormalization" and node.name not in stored
        else node
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def compare_in_training(
    teacher: Side,
    student: Side,
    samples: Samples,
    interface: Interface = SAME,
    renames: Mapping[str, str] | None = None,
    defect: float = 0.0,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainMode:
    """Whether both compute the same on ``samples`` in training mode, all of them as one batch.

    ``renames`` say what the teacher's tensors are called in the student where they are called
    otherwise; ``defect`` is what rounded steps recorded.
    """
    if samples.count < LEAST_SAMPLES:
        why = "BatchNorm takes its statistics from the batch, and one sample has none"
        return TrainMode(False, f"not compared: {why}; give at least two", (), (), samples.count)
    if not interface.joins(teacher.graph, student.graph):
        return TrainMode(False, "not compared: the inputs differ", (), (), samples.count)
    both = _Both(teacher, student, samples, interface, defect, progress)
    outputs = both.outputs(frozenset())
    agrees = bool(outputs) and all(each.agrees for each in outputs)
    norms = _batch_norms(student)
    if agrees:
        if norms:
            reason = "BatchNorm on batch statistics, every output agrees within float64 rounding"
        else:
            reason = "there is no BatchNorm: training mode, with dropout off, is eval mode"
        return TrainMode(True, reason, outputs, (), samples.count)
    new = _new_batch_norms(student, teacher, renames or {}, norms)
    causes = both.causes(new)
    return TrainMode(False, _blame(new, causes, both), outputs, causes, samples.count)


@dataclass(frozen=True)
class _Both:
    """The two networks; the teacher is run once, the student as often as it is asked about."""

    teacher: Side
    student: Side
    samples: Samples
    interface: Interface
    defect: float
    progress: Callable[[str], None]
    _made: dict[str, tuple[Outputs, Mapping[str, float]]] = field(default_factory=dict)

    def outputs(self, stored: frozenset[str]) -> tuple[TrainModeOutput, ...]:
        """The comparison with the BatchNorms ``stored`` of the student as in eval mode."""
        before, rounding = self._teacher()
        graph = in_training(self.student.graph, stored)
        inputs = self.samples.for_student()
        after = self._run("student", graph, self.student, inputs)
        again = self._run("student, reordered", reordered(graph), self.student, inputs)
        found = []
        for name in before:
            if name not in after:
                continue
            old, new, other = (
                self.interface.old(name, each[name], before[name].shape)
                for each in (before, after, again)
            )
            found.append(self._compared(name, old, new, max(rounding[name], _apart(new, other))))
        return tuple(found)

    def causes(self, new: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the new BatchNorms that part the two, tried one by one where they are few."""
        if not new or not self._agrees(frozenset(new)):
            return ()
        if len(new) > MOST_SUSPECTS:
            return new
        return tuple(name for name in new if not self._agrees(frozenset(new) - {name}))

    def _agrees(self, stored: frozenset[str]) -> bool:
        return all(each.agrees for each in self.outputs(stored))

    def _teacher(self) -> tuple[Outputs, Mapping[str, float]]:
        """The teacher's outputs, and how much rounding moves each."""
        if "teacher" not in self._made:
            graph = in_training(self.teacher.graph)
            made = self._run("teacher", graph, self.teacher, self.samples)
            again = self._run("teacher, reordered", reordered(graph), self.teacher, self.samples)
            rounding = {name: _apart(made[name], again[name]) for name in made}
            self._made["teacher"] = made, rounding
        return self._made["teacher"]

    def _run(self, who: str, graph: Graph, side: Side, samples: Samples) -> Outputs:
        self.progress(f"{who} in training mode")
        session = runtime(ARBITER).Session(graph, side.header, side.read)
        return session.run(samples.arrays)  # in one batch: its statistics are over all samples

    def _compared(
        self, name: str, teacher: np.ndarray, student: np.ndarray, rounding: float
    ) -> TrainModeOutput:
        scale = float(np.abs(teacher).max(initial=0.0))
        tolerance = max((RELATIVE + 64 * self.defect) * scale, TIMES_ROUNDING * rounding)
        apart = _apart(teacher, student)
        return TrainModeOutput(
            name, apart <= tolerance, apart, apart / scale if scale else None, tolerance
        )


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; infinite between arrays of different shapes, or with NaN."""
    if a.shape != b.shape:
        return float("inf")
    difference = largest_difference(a, b) if a.size else 0.0
    return difference if np.isfinite(difference) else float("inf")


def _batch_norms(side: Side) -> tuple[str, ...]:
    return tuple(node.name for node in side.graph.nodes if node.op == "BatchNormalization")


def _new_batch_norms(
    student: Side, teacher: Side, renames: Mapping[str, str], norms: tuple[str, ...]
) -> tuple[str, ...]:
    """BatchNorms of the student whose tensors are none of the teacher's."""
    old = {renames.get(key, key) for key in teacher.header}
    return tuple(name for name in norms if student.graph.node(name).input(1) not in old)


def _blame(new: tuple[str, ...], causes: tuple[str, ...], both: _Both) -> str:
    if causes:
        are = "is a new BatchNorm" if len(causes) == 1 else "are new BatchNorms"
        return (
            f"{first_few(causes)} {are}, made for stored statistics, and the batch has others: "
            "the first steps of training begin from another function"
        )
    if new:
        return "the outputs differ, and not for the new BatchNorms alone: see the verdict"
    return "the outputs differ, though there is no new BatchNorm: see the verdict"
