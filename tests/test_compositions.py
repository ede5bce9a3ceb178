"""Three to six steps of different methods, one upon the other: still the same function.

On random graphs and on the networks of the matrix. A step that a network refuses is left out; what
is taken must preserve, in float64, to 1e-9 of the scale beyond what the steps recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matrix_networks import SUBJECTS
from method_matrix import cells, compared
from student_oracles import Student, grown, grown_graph, random_arrays
from test_random_networks import networks

from ckgrow.errors import SpecError
from ckgrow.verdict.tolerance import DEFECTS

Step = Mapping[str, Any]

BOUND = 1e-9
BASELINES = ("random-pad", "envelope noise: both")
"""They do not preserve, and say so."""

LIGHT = [name for name in SUBJECTS if name not in ("googlenet", "inception_v3")]


def examples(sample: int, full: int) -> int:
    """How many to try; the long form's profile is known by its size."""
    return full if settings().max_examples > 50 else sample


def widenings(layers: list[str]) -> st.SearchStrategy[Step]:
    methods = st.sampled_from(
        [
            {"method": "net2wider"},
            {"method": "net2wider", "split": "select", "placement": "interleave"},
            {"method": "r2wider"},
            {"method": "r2wider", "fill": "copy", "placement": "center"},
            {"method": "fold"},
            {"method": "netmorph"},
            {"method": "netmorph", "zero": "in", "placement": "interleave"},
            {"method": "symmetric"},
            {"method": "diagonal"},
            {"method": "diagonal", "fallback": "random", "placement": "interleave"},
            {"method": "envelope"},
        ]
    )
    size = st.sampled_from([{"by": 2}, {"by": 4}, {"factor": 2}, {"factor": 1.5}])
    where = st.one_of(st.just("*"), st.lists(st.sampled_from(layers), min_size=1, max_size=2))
    return st.builds(lambda w, s, m: {"widen": w, **s, **m}, where, size, methods)


def deepenings(layers: list[str]) -> st.SearchStrategy[Step]:
    methods = st.sampled_from(
        [
            {"method": "net2deeper"},
            {"method": "r2deeper"},
            {"method": "r2deeper", "layers": 3, "fill": "copy"},
            {"method": "zero-init"},
            {"method": "netmorph"},
            {"method": "netmorph", "activation": "p-activation"},
        ]
    )
    return st.builds(lambda w, m: {"deepen": w, **m}, st.sampled_from(layers), methods)


def others(layers: list[str]) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.builds(
            lambda w, n: {"kernel": w, "to": n}, st.sampled_from(layers), st.sampled_from([3, 5])
        ),
        st.builds(
            lambda w, at, m: {"branch": w, "at": at, "width": 2, "method": m},
            st.sampled_from(layers),
            st.sampled_from(["sum", "concat"]),
            st.sampled_from(["netmorph", "r2deeper", "r2wider"]),
        ),
        st.just({"inputs": {"by": 1}}),
        st.just({"classes": {"by": 2}}),
    )


def assert_preserved(student: Student, state: Mapping[str, torch.Tensor]) -> None:
    tensors = {name: each.numpy() for name, each in student.tensors.items()}
    verdict = compared(student, state, tensors, samples=3)
    allowed = BOUND + DEFECTS * student.plan.defect
    for output in verdict.outputs:
        assert output.float64_max_abs is not None, output.reason
        scale = output.max_abs / output.max_rel if output.max_rel else 1.0
        assert output.float64_max_abs <= allowed * max(scale, 1e-3)
        assert output.max_abs <= (1e-3 + allowed) * max(scale, 1e-3)


def test_steps_of_different_methods_on_random_graphs():
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples(12, 200),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.data())
    def preserve(data):
        graph, header = data.draw(networks())
        arrays = random_arrays(header, data.draw(st.integers(0, 99)))
        state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        layers = [node.name for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul")]
        every = st.one_of(widenings(layers), deepenings(layers), others(layers))
        taken: list[Step] = []
        student = None
        for step in data.draw(st.lists(every, min_size=5, max_size=10)):
            if len(taken) == 6:
                break
            try:
                plan, made = grown_graph(graph, arrays, *taken, step, seed=7)
            except SpecError:
                hypothesis.event("refused")
                continue
            taken.append(step)
            student = Student(plan, {name: torch.from_numpy(each) for name, each in made.items()})
        hypothesis.assume(student is not None and len(taken) >= 3)
        seen.update(f"{next(iter(step))} {step.get('method', '')}" for step in taken)
        assert_preserved(student, state)

    preserve()
    assert len(seen) >= examples(8, 17), f"refusals kept some steps out; taken were {seen}"


@settings(
    max_examples=examples(8, 100),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_steps_of_different_methods_on_networks_known_by_name(data):
    name = data.draw(st.sampled_from(LIGHT))
    subject = SUBJECTS[name]
    state = subject.state(data.draw(st.integers(0, 99)))
    options = dict(subject.options)
    if len(subject.size) > 1:
        options["input"] = list(subject.size)
    every = [cell.step for cell in cells() if cell.network == name and cell.method not in BASELINES]
    taken: list[Step] = []
    student = None
    for step in data.draw(st.lists(st.sampled_from(every), min_size=5, max_size=10)):
        if len(taken) == 5:
            break
        try:
            student = grown(state, *taken, step, options=options)
        except SpecError:
            hypothesis.event("refused")
            continue
        taken.append(step)
    hypothesis.assume(student is not None and len(taken) >= 3)
    assert_preserved(student, state)
