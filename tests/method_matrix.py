"""Every method on every network: what a cell of the matrix is, and how it is measured.

A cell preserves the function (in ONNX Runtime in float32 and in torch in float64, both within what
its step promises), or is refused with a reason. There is no third thing, but for baselines, which
say that they do not preserve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from matrix_networks import SUBJECTS, Subject
from student_oracles import (
    Student,
    arrays_of,
    deviation,
    grown,
    images,
    on_meta,
    outputs_of,
)

from ckgrow.errors import SpecError
from ckgrow.memory import MemoryReader
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.judgement import judge
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import seeded_samples

Step = Mapping[str, Any]

WIDEN: Mapping[str, Step] = {
    "net2wider": {},
    "r2wider": {"method": "r2wider"},
    "fold": {"method": "fold"},
    "netmorph": {"method": "netmorph"},
    "netmorph zero: in": {"method": "netmorph", "zero": "in"},
    "symmetric": {"method": "symmetric"},
    "diagonal": {"method": "diagonal"},
    "envelope": {"method": "envelope"},
    "envelope noise: both": {"method": "envelope", "noise": {"both": True}},
    "random-pad": {"method": "random-pad"},
}
DEEPEN: Mapping[str, Step] = {
    "net2deeper": {"method": "net2deeper"},
    "r2deeper": {"method": "r2deeper"},
    "zero-init": {"method": "zero-init"},
    "netmorph": {"method": "netmorph"},
    "netmorph p-activation": {"method": "netmorph", "activation": "p-activation"},
    "random-pad": {"method": "random-pad"},
}
STAGE: Mapping[str, Step] = {
    "r2deeper": {"method": "r2deeper"},
    "zero-init": {"method": "zero-init"},
    "zero-init fill: copy": {"method": "zero-init", "fill": "copy"},
    "random-pad": {"method": "random-pad"},
}
BRANCH: Mapping[str, Step] = {
    "netmorph": {"method": "netmorph"},
    "r2deeper": {"method": "r2deeper"},
}
APPENDED: Mapping[str, Step] = {
    "netmorph": {"method": "netmorph"},
    "r2wider": {"method": "r2wider"},
}
LAYERS = ("inner", "stream", "branch", "flatten", "grouped", "all")


@dataclass(frozen=True)
class Cell:
    """One step on one network at one place."""

    verb: str
    method: str
    network: str
    place: str
    step: Step
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.verb} {self.method} | {self.network} | {self.place}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: refused with a message, or a student and how far it is off.

    ``double`` and ``single`` are the largest differences of any output relative to its scale, in
    our two runtimes; ``torch`` is that of the module's own forward on the student's tensors, in
    float64, where they fit the module.
    """

    refused: str = ""
    promised: str = ""
    preserved: bool = False
    double: float = 0.0
    single: float = 0.0
    torch: float | None = None
    defect: float = 0.0
    kept: bool = False
    student: Student | None = None


def cells() -> Iterator[Cell]:
    """All of them, in the order of the table in docs/methods.md."""
    for network, subject in SUBJECTS.items():
        places = subject.places
        layers = [(place, places[place]) for place in LAYERS if place in places]
        for place, pattern in layers:
            for method, options in WIDEN.items():
                step = {"widen": pattern, "factor": 2, **options}
                yield Cell("widen", method, network, place, step)
        for place, pattern in layers:
            if place == "all":
                continue
            for method, options in DEEPEN.items():
                yield Cell("deepen", method, network, place, {"deepen": pattern, **options})
            yield Cell("kernel", "zero-padding", network, place, {"kernel": pattern, "to": 5})
            for method, options in BRANCH.items():
                step = {"branch": pattern, "at": "sum", "width": 4, **options}
                yield Cell("branch", method, network, place, step)
            for method, options in APPENDED.items():
                step = {"branch": pattern, "at": "concat", "width": 4, **options}
                yield Cell("branch at: concat", method, network, place, step)
        for method, options in STAGE.items():
            step = {"deepen": places["stage"], "blocks": 1, **options}
            yield Cell("deepen stage", method, network, "stage", step)
        if "block" in places:
            for method, options in BRANCH.items():
                step = {"branch": places["block"], "width": 4, **options}
                yield Cell("branch", method, network, "block", step)
        yield Cell("inputs", "inputs", network, "input", {"inputs": {"by": 1}})
        yield Cell("classes", "classes", network, "output", {"classes": {"by": 3}})


@cache
def teacher(network: str) -> tuple[Subject, dict[str, torch.Tensor]]:
    subject = SUBJECTS[network]
    return subject, subject.state()


def measure(cell: Cell, samples: int = 3) -> Outcome:
    """Grows the network of a cell and compares the student with it in both runtimes."""
    subject, state = teacher(cell.network)
    options = (
        {"input": list(subject.size), **subject.options}
        if len(subject.size) > 1
        else {**subject.options}
    )
    try:
        student = grown(state, cell.step, seed=cell.seed, options=options)
    except SpecError as refusal:
        return Outcome(refused=str(refusal))
    plan = student.plan
    tensors = {name: each.numpy() for name, each in student.tensors.items()}
    verdict = compared(student, state, tensors, samples)
    preserved = verdict.preserved
    if plan.preserves in ("approximate", "no"):
        quiet = {name: recipe.quiet() for name, recipe in plan.draft.recipes.items()}
        bare = {name: each.numpy() for name, each in state.items()}
        preserved = compared(student, state, arrays_of(quiet, bare), samples).preserved
    return Outcome(
        promised=plan.preserves,
        preserved=preserved,
        double=max(float(each.float64_max_abs or 0) / scale(each) for each in verdict.outputs),
        single=max(float(each.max_rel or 0) for each in verdict.outputs),
        torch=by_torch(cell, subject, state, student),
        defect=plan.defect,
        kept=set(plan.kept) >= set(plan.draft.names.values()),
        student=student,
    )


def by_torch(
    cell: Cell, subject: Subject, state: Mapping[str, torch.Tensor], student: Student
) -> float | None:
    """The largest difference by the module's own forward; None where the student needs another."""
    module: torch.nn.Module = subject.module()
    wider = cell.verb in ("widen", "inputs", "classes") and cell.method != "fold"
    # the stock module pads a quarter of the channels on either side, whatever stands there
    padded = cell.network == "resnet option A" and cell.place == "stream"
    if cell.verb == "deepen stage" and subject.deeper is not None:
        module = on_meta(subject.deeper)
    elif not wider or padded:
        return None
    channels = 1 if cell.verb == "inputs" else 0
    size = (subject.size[0] + channels, *subject.size[1:])
    x = images(4, *size)
    before = outputs_of(subject.module(), state, x[:, : subject.size[0]])
    after = outputs_of(module, student.tensors, x)
    old = [new[:, : was.shape[1]] for was, new in zip(before, after, strict=True)]
    return deviation(before, old)


def scale(output: Any) -> float:
    return float(output.max_abs / output.max_rel) if output.max_rel else 1.0


def compared(
    student: Student,
    state: Mapping[str, torch.Tensor],
    tensors: Mapping[str, np.ndarray],
    samples: int,
) -> Any:
    """Our verdict: ONNX Runtime and torch in float64, both over the graph."""
    plan = student.plan
    before = {name: each.numpy() for name, each in state.items()}
    graph = plan.teacher.network.graph
    interface = Interface(plan.draft.interface)
    return judge(
        Side("teacher", graph, MemoryReader(before).header, before.__getitem__),
        Side("student", plan.graph, MemoryReader(tensors).header, dict(tensors).__getitem__),
        samples=interface.shared(seeded_samples(graph, samples, 0), graph, plan.graph, 0),
        interface=interface,
        quick=False,
        defects=plan.draft.defects,
    )
