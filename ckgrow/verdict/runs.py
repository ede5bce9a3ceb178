"""What both networks compute: every run made once, when somebody asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ckgrow.registry import runtime
from ckgrow.verdict.comparison import Pair, largest_difference
from ckgrow.verdict.disturbance import Disturbance
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.running import Outputs, Side, batch_rows, run
from ckgrow.verdict.samples import Samples

ARBITER = "torch_float64"
RUNTIME = "onnxruntime"
PRECISION = {ARBITER: 2.0**-52, RUNTIME: 2.0**-23}


class Runs:
    """Outputs of both sides in both runtimes."""

    def __init__(
        self,
        teacher: Side,
        student: Side,
        samples: Samples,
        interface: Interface,
        progress: Callable[[str], None],
    ) -> None:
        self._student = samples.for_student()
        self._sides = {"teacher": (teacher, samples), "student": (student, self._student)}
        self._interface = interface
        self._progress = progress
        self._rows = batch_rows((teacher, student))
        self._made: dict[str, dict[str, Outputs]] = {}
        self._moved: dict[str, Mapping[str, float]] = {}
        self.outputs = tuple(dict.fromkeys((*teacher.graph.outputs, *student.graph.outputs)))

    @property
    def used(self) -> tuple[str, ...]:
        """The runtimes asked so far."""
        return tuple(self._made)

    @property
    def disturbed(self) -> bool:
        """Whether anything recorded was put to the test."""
        return bool(self._moved)

    def pairs(self, name: str) -> dict[str, Pair]:
        """The outputs that both sides have, in one runtime."""
        if name not in self._made:
            self._made[name] = {
                who: self._run(name, who, side, samples)
                for who, (side, samples) in self._sides.items()
            }
        teacher, student = self._made[name]["teacher"], self._made[name]["student"]
        return {
            output: Pair(teacher[output], self._old(output, student, teacher[output]))
            for output in self.outputs
            if output in teacher and output in student
        }

    def moved(self, name: str, disturbance: Disturbance) -> Mapping[str, float]:
        """How far the student's recorded defects move each output that both sides have."""
        if name not in self._moved:
            pairs, times = self.pairs(name), disturbance.enlarged(PRECISION[name])
            farthest = dict.fromkeys(self.outputs, 0.0)
            for side in disturbance.draws(times):
                made = self._run(name, "student with its recorded defects", side, self._student)
                for output, pair in pairs.items():
                    changed = self._old(output, made, pair.teacher)
                    change = largest_difference(changed, pair.student) / times
                    if math.isfinite(change):  # a tolerance without end would pass anything
                        farthest[output] = max(farthest[output], change)
            self._moved[name] = farthest
        return self._moved[name]

    def note(self, output: str) -> str:
        """What is to be said of an output whose channels are not the same on both sides."""
        teacher, student = (self._made[RUNTIME][who] for who in self._sides)
        if output not in teacher or output not in student:
            return ""
        return self._interface.note(output, teacher[output].shape, student[output].shape)

    def _old(self, output: str, student: Outputs, teacher: np.ndarray) -> np.ndarray:
        """Of a student's output the channels that are the teacher's."""
        return self._interface.old(output, student[output], teacher.shape)

    def _run(self, name: str, who: str, side: Side, samples: Samples) -> Outputs:
        self._progress(f"{who} in {runtime(name).label()}")
        return run(name, side, samples, self._rows)
