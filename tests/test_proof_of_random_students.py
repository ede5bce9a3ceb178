"""Random students: sound ones are proven, and what is proven computes its teacher's function.

Networks of ``test_random_networks``, grown by several steps of any method. Then a tensor, a claim,
or a node of the recorded graph is changed: whatever is proven still, agrees in torch in float64.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matrix_networks import SUBJECTS
from proof_oracles import claims_of, in_memory, proof_of
from student_oracles import grown, grown_graph, random_arrays, run
from test_compositions import deepenings, examples, others, widenings
from test_random_networks import networks, steps

from ckgrow.errors import CkgrowError, SpecError
from ckgrow.graph import Graph
from ckgrow.maps import ChannelMap
from ckgrow.planning import Plan
from ckgrow.proof import Claims, prove
from ckgrow.verdict.tolerance import DEFECTS

Arrays = Mapping[str, np.ndarray]
Changed = tuple[Graph, Arrays, Claims]

DTYPES = (np.float32, np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
ROUNDING = 1e-5
"""What rounded factors may be off by where their record is lost: float32 networks of six layers."""


def difference(plan: Plan, teacher: Arrays, graph: Graph, student: Arrays, claims: Claims) -> float:
    """Of the outputs relative to their scale, in float64; only the teacher's channels count."""
    before = plan.start.graph
    ((name, size),) = before.inputs.items()
    x = np.random.default_rng(3).standard_normal((3, *size[1:])).astype(np.float32)
    more = graph.inputs[name][1] - size[1]
    new = np.random.default_rng(4).standard_normal((3, more, *size[2:])).astype(np.float32)
    wide = np.concatenate([x, new], axis=1)
    outputs = zip(
        run("torch_float64", before, teacher, x),
        run("torch_float64", graph, student, wide),
        strict=True,
    )
    return max(
        float(np.abs(found[:, : old.shape[1]] - old).max() / max(np.abs(old).max(), 1e-3))
        for old, found in outputs
    )


# --- what is changed --------------------------------------------------------------------------


def other_tensor(dice: random.Random, graph: Graph, arrays: Arrays, claims: Claims) -> Changed:
    """One entry, or two rows or columns."""
    name = dice.choice([each for each in arrays if arrays[each].size])
    array = arrays[name].copy()
    place = tuple(dice.randrange(size) for size in array.shape)
    kind = dice.choice(["scaled", "negated", "added", "zero", "rows", "columns"])
    axis = 1 if kind == "columns" else 0
    if kind in ("rows", "columns") and array.ndim > axis and array.shape[axis] > 1:
        pair = dice.sample(range(array.shape[axis]), 2)
        order = np.arange(array.shape[axis])
        order[pair] = order[pair[::-1]]
        array = np.take(array, order, axis)
    else:
        made = {"scaled": 1.001 * float(array[place]), "negated": -array[place], "zero": 0.0}
        array[place] = made.get(kind, float(array[place]) + 0.01)
    return graph, {**arrays, name: array}, claims


def other_map(dice: random.Random, graph: Graph, arrays: Arrays, claims: Claims) -> Changed:
    """A layer's map off by one, with two entries exchanged, or one that is something else."""
    name = dice.choice(sorted(claims.origins))
    origin = claims.origins[name]
    sources = origin.map.sources.copy()
    places = [dice.randrange(len(sources)) for _ in range(2)]
    kind = dice.choice(["off by one", "exchanged", "equal", "another"])
    if kind == "off by one":
        sources = np.roll(sources, 1)
    elif kind == "exchanged":
        sources[places] = sources[places[::-1]]
    elif kind == "equal":
        sources[places[0]] = sources[places[1]]
    else:
        sources[places[0]] = dice.choice([-1, -2, -3, dice.randrange(max(1, origin.map.width))])
    changed = replace(origin, map=ChannelMap(origin.map.width, sources))
    return graph, arrays, replace(claims, origins={**claims.origins, name: changed})


def other_claim(dice: random.Random, graph: Graph, arrays: Arrays, claims: Claims) -> Changed:
    """A certificate, a layer's origin, an interface, names, or defects without measure."""
    name = dice.choice(sorted(claims.origins))
    origin = claims.origins[name]
    kinds = ("identity", "zero", "factor", "product", "")
    width = dice.randrange(1, 5)
    sources = [dice.randrange(-3, width) for _ in range(dice.randrange(1, 6))]
    end = dice.choice([*graph.inputs, *graph.outputs])
    names = dict(claims.teacher_names)
    one, two = (dice.choice(sorted(names)) for _ in range(2))
    return (
        graph,
        arrays,
        dice.choice(
            [
                replace(
                    claims,
                    origins={
                        **claims.origins,
                        name: replace(origin, certificate=dice.choice(kinds)),
                    },
                ),
                replace(
                    claims,
                    origins={
                        **claims.origins,
                        name: replace(origin, of=dice.choice(sorted(claims.origins))),
                    },
                ),
                replace(claims, interface={**claims.interface, end: ChannelMap.of(width, sources)}),
                replace(claims, teacher_names={**names, one: names[two], two: names[one]}),
                replace(claims, defects={node.name: 1e9 for node in graph.nodes}, rescaled=True),
            ]
        ),
    )


def other_graph(dice: random.Random, graph: Graph, arrays: Arrays, claims: Claims) -> Changed:
    """A node of another op, that is gone, or reads something else; an attribute, a constant."""
    nodes = list(graph.nodes)
    place = dice.randrange(len(nodes))
    node = nodes[place]
    kind = dice.choice(["op", "gone", "reads", "attribute", "constant"])
    if kind == "op" and not node.attributes and len(node.inputs) == 1:
        nodes[place] = replace(node, op=dice.choice(["Relu", "Tanh", "Abs", "Neg", "Identity"]))
    elif kind == "gone" and node.output not in graph.outputs:
        before = {node.output: node.inputs[0]}
        nodes = [
            replace(each, inputs=tuple(before.get(name, name) for name in each.inputs))
            for each in nodes
            if each is not node
        ]
    elif kind == "reads":
        names = [*graph.parameters(), *graph.inputs, *(n.output for n in nodes[:place])]
        index = dice.randrange(len(node.inputs))
        inputs = (*node.inputs[:index], dice.choice(names), *node.inputs[index + 1 :])
        nodes[place] = replace(node, inputs=inputs)
    elif kind == "attribute" and node.attributes:
        name = dice.choice(sorted(node.attributes))
        value = node.attributes[name]
        moved = (
            tuple(each + dice.choice([0, 1]) for each in value)
            if isinstance(value, tuple)
            else value + 1
            if isinstance(value, int | float)
            else value
        )
        nodes[place] = node.with_attributes(**{name: moved})
    elif graph.constants:
        name = dice.choice(sorted(graph.constants))
        constant = graph.constants[name]
        values = tuple(value + dice.choice([0, 0, 1]) for value in constant.values)
        changed = {**graph.constants, name: replace(constant, values=values)}
        return replace(graph, constants=changed), arrays, claims
    return replace(graph, nodes=tuple(nodes)), arrays, claims


CHANGES: tuple[Callable[..., Changed], ...] = (other_tensor, other_map, other_claim, other_graph)


def assert_proven_only_if_equal(
    plan: Plan, teacher: Arrays, changed: Changed, seen: Counter[str]
) -> None:
    graph, student, claims = changed
    try:
        proof = prove(
            in_memory("teacher", plan.start.graph, teacher),
            in_memory("student", graph.check(), student),
            claims,
        )
    except (CkgrowError, ValueError, ZeroDivisionError):  # shapes that fit no op: not opened at all
        seen["unreadable"] += 1
        return
    seen[proof.result] += 1
    if proof.result == "proven":
        try:
            off = difference(plan, teacher, graph, student, claims)
        except CkgrowError:
            return
        allowed = 1e-9 + DEFECTS * plan.defect + (ROUNDING if proof.defect else 0.0)
        assert off <= allowed, proof.reason


def test_random_students_and_what_becomes_of_them():
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples(10, 300),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.data())
    def prove_and_attack(data):
        graph, header = data.draw(networks())
        dtype = data.draw(st.sampled_from(DTYPES))
        arrays = random_arrays(header, data.draw(st.integers(0, 99)))
        arrays = {name: each.astype(dtype) for name, each in arrays.items()}
        layers = [node.name for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul")]
        every = st.one_of(widenings(layers), deepenings(layers), others(layers), steps(layers))
        taken: list[Mapping[str, object]] = []
        student = None
        for step in data.draw(st.lists(every, min_size=1, max_size=6)):
            try:
                made = grown_graph(graph, arrays, *taken, step, seed=7)
            except SpecError:
                hypothesis.event("refused")
                continue
            if made[0].preserves in ("exact", "rounded", "eval"):
                taken.append(step)
                student = made
        hypothesis.assume(student is not None)
        plan, tensors = student
        whole = plan.graph, tensors, claims_of(plan)
        proof = prove(
            in_memory("teacher", graph, arrays), in_memory("student", plan.graph, tensors), whole[2]
        )
        assert proof.result == "proven", proof.reason
        dice = random.Random(data.draw(st.integers(0, 2**32)))
        for change in CHANGES:
            for _ in range(3):
                assert_proven_only_if_equal(plan, arrays, change(dice, *whole), seen)
        both = other_tensor(dice, *other_claim(dice, *whole))
        assert_proven_only_if_equal(plan, arrays, both, seen)

    prove_and_attack()
    assert seen["refuted"] > seen["proven"] / 2 > 0


# --- methods upon methods ---------------------------------------------------------------------

FACTORED = {"deepen": "2", "method": "netmorph"}
P_FACTORED = {**FACTORED, "activation": "p-activation"}
BETWEEN = {"deepen": "2", "method": "r2deeper"}
WIDER = {"widen": "*", "factor": 2}
CONV3 = {"deepen": "conv3", "method": "netmorph"}
TOGETHER = [
    ("mlp relu", [P_FACTORED, BETWEEN, {**WIDER, "method": "r2wider"}]),
    ("mlp sigmoid", [P_FACTORED, WIDER, P_FACTORED]),
    ("mlp hardswish", [FACTORED, {"branch": "2", "width": 4}, {**WIDER, "method": "fold"}]),
    ("convnet", [CONV3, {"deepen": "conv3", "method": "net2deeper"}]),
    ("resnet grouped", [{"deepen": "layer1.0.conv1"}, {**WIDER, "method": "netmorph"}]),
    ("resnet option B", [{"deepen": "layer2.0.conv2"}, {**WIDER, "method": "fold"}]),
    ("resnet basic", [{"deepen": "layer2.0.conv2", "method": "r2deeper"}, WIDER]),
]


@pytest.mark.parametrize(("network", "taken"), TOGETHER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_methods_one_upon_the_other_are_proven(network, taken, dtype):
    """Inside and behind factors, beside identities, on streams that grew."""
    subject = SUBJECTS[network]
    state = {
        name: each.to(dtype) if each.is_floating_point() else each
        for name, each in subject.state(1).items()
    }
    options = dict(subject.options)
    if len(subject.size) > 1:
        options["input"] = list(subject.size)
    proof = proof_of(grown(state, *taken, options=options), state)
    assert proof.result == "proven", proof.reason
