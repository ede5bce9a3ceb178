"""Attacks on the proof: what computes another function is never proven, what is sound always is.

Students by hand whose record, graph or tensors are wrong in ways that no step makes; random ones
stand in ``test_proof_of_random_students``. That functions differ, says torch in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from proof_oracles import claims_of, in_memory, proof_of_graph
from student_oracles import grown_graph, run

from ckgrow.drafts.draft import Origin
from ckgrow.graph import BATCH, Constant, Graph, Node
from ckgrow.maps import ChannelMap
from ckgrow.ops import rule
from ckgrow.proof import Claims, Proof, prove

Arrays = Mapping[str, np.ndarray]
RANDOM = np.random.default_rng(0)


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random tensors "layer_part" of layers as they are named in the graphs below."""
    made = {name.replace("_", "."): RANDOM.normal(size=each) for name, each in shapes.items()}
    return {name: each.astype(np.float32) for name, each in made.items()}


def claimed(graph: Graph, arrays: Arrays, **origins: Origin) -> Claims:
    """That nothing changed, but for some layers."""
    layers = [node for node in graph.nodes if rule(node.op).makes_channels]
    same = {
        node.name: Origin(
            node.name,
            ChannelMap.identity(arrays[node.inputs[1]].shape[rule(node.op).rows(node)]),
        )
        for node in layers
        if node.inputs[1] in arrays
    }
    return Claims(same | origins, {name: name for name in arrays})


def difference(before: Graph, teacher: Arrays, after: Graph, student: Arrays) -> float:
    """Of the outputs, in float64."""
    (name,) = before.inputs
    x = np.random.default_rng(1).standard_normal((3, *before.inputs[name][1:])).astype(np.float32)
    more = after.inputs[name][1] - before.inputs[name][1]
    new = np.random.default_rng(2).standard_normal((3, more, *x.shape[2:])).astype(np.float32)
    expected = run("torch_float64", before, teacher, x)
    found = run("torch_float64", after, student, np.concatenate([x, new], axis=1))
    return max(
        float(np.abs(new[:, : old.shape[1]] - old).max() / max(np.abs(old).max(), 1e-3))
        for old, new in zip(expected, found, strict=True)
    )


def proof(before: Graph, teacher: Arrays, after: Graph, student: Arrays, claims: Claims) -> Proof:
    return prove(
        in_memory("teacher", before, teacher), in_memory("student", after, student), claims
    )


def assert_seen_through(
    before: Graph, teacher: Arrays, after: Graph, student: Arrays, claims: Claims
) -> None:
    assert difference(before, teacher, after, student) > 1e-3
    assert proof(before, teacher, after, student, claims).result != "proven"


def chain(*nodes: Node, size: tuple[int, ...] = (2, 3, 3), **constants: Constant) -> Graph:
    """Nodes one behind the other; the last one makes the output."""
    return Graph({"x": (BATCH, *size)}, (nodes[-1].output,), nodes, constants).check()


def conv(name: str, value: str, **attributes: object) -> Node:
    return Node("Conv", name, (value, f"{name}.w"), (name,), attributes)


def gemm(name: str, value: str) -> Node:
    return Node("Gemm", name, (value, f"{name}.w"), (name,), {"transB": 1})


def norm(name: str, value: str, **attributes: object) -> Node:
    parts = (f"{name}.{part}" for part in ("gamma", "beta", "mean", "var"))
    return Node("BatchNormalization", name, (value, *parts), (name,), attributes)


# --- labels stand for one tensor only ---------------------------------------------------------


def test_rows_of_one_new_unit_read_the_same_channels():
    """In two convolution groups the same weights are about different channels."""
    graph = chain(conv("a", "x", group=2), Node("Relu", "r", ("a",), ("r",)), conv("b", "r"))
    teacher = weights(a_w=(2, 1, 1, 1), b_w=(2, 2, 1, 1))
    unit, one = np.float32([[[[0.7]]]]), np.ones((2, 1, 1, 1), np.float32)
    parts = teacher["a.w"][:1], unit, teacher["a.w"][1:], unit
    columns = teacher["b.w"][:, :1], one, teacher["b.w"][:, 1:], -one
    student = {"a.w": np.concatenate(parts), "b.w": np.concatenate(columns, axis=1)}
    pair = Origin("a", ChannelMap.of(2, [0, -2, 1, -2]))
    assert_seen_through(graph, teacher, graph, student, claimed(graph, teacher, a=pair))


def test_a_constant_map_does_not_make_positions_equal():
    nodes = (
        conv("a", "x"),
        Node("Add", "p", ("a", "c"), ("p",)),
        Node("Flatten", "f", ("p",), ("f",)),
        gemm("g", "f"),
    )
    graph = chain(*nodes, size=(2, 2, 2), c=Constant.of(np.ones((2, 2)), "float32"))
    teacher = weights(a_w=(3, 2, 1, 1), g_w=(2, 12))
    moved = teacher["g.w"].reshape(2, 3, 4)[:, :, [1, 0, 2, 3]].reshape(2, 12)
    claims = claimed(graph, teacher)
    assert_seen_through(graph, teacher, graph, {**teacher, "g.w": moved}, claims)
    assert proof(graph, teacher, graph, teacher, claims).result == "proven"
    plan, made = grown_graph(graph, teacher, {"widen": "a", "to": 5})
    assert proof_of_graph(plan, teacher, made).result == "proven"


@pytest.mark.parametrize("behind", ["Softmax", "Pad"])
def test_a_dimension_that_is_kept_is_one_more(behind):
    """What counts dimensions from the end works on another one then."""

    def graph(keep):
        pads = [0, 0, 0, 0, 0, 0, 0, 1] if keep else [0, 0, 0, 0, 0, 1]
        nodes = (
            conv("a", "x"),
            Node("ReduceMax", "m", ("a", "last"), ("m",), {"keepdims": keep}),
            Node("Softmax", "b", ("m",), ("b",), {"axis": -1})
            if behind == "Softmax"
            else Node("Pad", "b", ("m", "pads"), ("b",)),
            Node("GlobalAveragePool", "p", ("b",), ("p",)),
            Node("Flatten", "f", ("p",), ("f",)),
            gemm("g", "f"),
        )
        return chain(*nodes, size=(2, 3, 4), last=Constant.of([3]), pads=Constant.of(pads))

    teacher = weights(a_w=(3, 2, 1, 1), g_w=(2, 3))
    claims = claimed(graph(0), teacher)
    assert_seen_through(graph(0), teacher, graph(1), teacher, claims)


def test_a_stack_of_matrices_treats_every_channel_otherwise():
    stack = Constant.of(np.stack([np.eye(3), 2 * np.eye(3)]), "float32")
    graph = chain(conv("a", "x"), Node("MatMul", "m", ("a", "c"), ("m",)), conv("b", "m"), c=stack)
    teacher = weights(a_w=(2, 2, 1, 1), b_w=(2, 2, 1, 1))
    student = {"a.w": teacher["a.w"][::-1].copy(), "b.w": teacher["b.w"][:, ::-1].copy()}
    swapped = Origin("a", ChannelMap.of(2, [1, 0]))
    assert_seen_through(graph, teacher, graph, student, claimed(graph, teacher, a=swapped))


def test_a_bound_that_is_computed_is_part_of_the_function():
    def graph(bound):
        nodes = (
            gemm("a", "x"),
            gemm("b", "x"),
            Node("ReduceMax", "u", ("a",), ("u",), {"keepdims": 0}),
            Node("ReduceMax", "v", ("b",), ("v",), {"keepdims": 0}),
            Node("Clip", "c", ("a", bound), ("c",)),
            gemm("g", "c"),
        )
        return chain(*nodes, size=(3,))

    teacher = weights(a_w=(3, 3), b_w=(3, 3), g_w=(2, 3))
    claims = claimed(graph("u"), teacher)
    assert_seen_through(graph("u"), teacher, graph("v"), teacher, claims)


def test_a_multiple_and_a_sum_are_no_multiple():
    """2 x + p is not 2 (x + p)."""
    nodes = (
        Node("MatMul", "a", ("x", "a.w"), ("a",)),
        Node("Add", "p", ("a", "p.b"), ("p",)),
        Node("Relu", "r", ("p",), ("r",)),
        Node("MatMul", "b", ("r", "b.w"), ("b",)),
    )
    graph = chain(*nodes, size=(3,))
    teacher = weights(a_w=(3, 2), p_b=(2,), b_w=(2, 2))
    student = {**teacher, "a.w": teacher["a.w"] / 2, "b.w": teacher["b.w"] * 2}
    claims = replace(claimed(graph, teacher), rescaled=True)
    assert_seen_through(graph, teacher, graph, student, claims)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_a_parameter_of_an_operation_follows_its_channel(op):
    nodes = (
        Node("MatMul", "a", ("x", "a.w"), ("a",)),
        Node(op, "p", ("a", "p.b"), ("p",)),
        Node("MatMul", "b", ("p", "b.w"), ("b",)),
    )
    graph = chain(*nodes, size=(3,))
    teacher = weights(a_w=(3, 2), p_b=(2,), b_w=(2, 2))
    plan, made = grown_graph(graph, teacher, {"widen": "a", "factor": 2})
    assert proof_of_graph(plan, teacher, made).result == "proven"
    wrong = {**made, "p.b": made["p.b"] * np.float32([1, 1, 1, 1.1])}
    assert_seen_through(graph, teacher, plan.graph, wrong, claims_of(plan))
    if op in ("Sub", "Div"):
        turned = replace(nodes[1], inputs=("p.b", "a"))
        other = chain(nodes[0], turned, nodes[2], size=(3,))
        assert_seen_through(graph, teacher, other, teacher, claimed(graph, teacher))


# --- what is inserted -------------------------------------------------------------------------


def statistics(gamma: float, beta: float, mean: float, var: float) -> Arrays:
    parts = {"n.gamma": gamma, "n.beta": beta, "n.mean": mean, "n.var": var}
    return {name: np.full(2, value, np.float32) for name, value in parts.items()}


def with_norm(**attributes: object) -> Graph:
    return chain(conv("a", "x"), norm("n", "a", **attributes), conv("b", "n"))


PLAIN = chain(conv("a", "x"), conv("b", "a"))


@pytest.mark.parametrize("defect", [1e9, 1e-7])
@pytest.mark.parametrize(
    "inserted",
    [
        (1.5, 0.3, 0.0, 1.0),
        (1.0, 0.0, 0.0, 1.1),
        (1e4, 1.0, 0.0, 1e8),  # where a shift looks small beside the variance
        (1.0, 1e-2, 0.0, 1.0),
    ],
)
def test_a_record_of_defects_excuses_no_other_function(inserted, defect):
    """A step records a few roundings at most; a record that says more is not believed."""
    teacher = weights(a_w=(2, 2, 1, 1), b_w=(2, 2, 1, 1))
    student = {**teacher, **statistics(*inserted)}
    claims = replace(claimed(PLAIN, teacher), defects={"n": defect})
    assert_seen_through(PLAIN, teacher, with_norm(), student, claims)


def test_a_batch_norm_in_training_mode_undoes_nothing():
    teacher = weights(a_w=(2, 2, 1, 1), b_w=(2, 2, 1, 1))
    student = {**teacher, **statistics(1.0, 0.0, 0.0, 1 - 1e-5)}
    claims = replace(claimed(PLAIN, teacher), defects={"n": 1e-7})
    assert proof(PLAIN, teacher, with_norm(), student, claims).result == "proven"
    training = with_norm(training_mode=1)
    assert_seen_through(PLAIN, teacher, training, student, claims)


def test_an_identity_moves_over_its_map_step_by_step():
    def graph(**attributes):
        nodes = (conv("a", "x"), conv("i", "a", **attributes))
        last = (Node("GlobalAveragePool", "p", ("i",), ("p",)), conv("b", "p"))
        return chain(*nodes, *last)

    before = chain(conv("a", "x"), Node("GlobalAveragePool", "p", ("a",), ("p",)), conv("b", "p"))
    teacher = weights(a_w=(2, 2, 1, 1), b_w=(2, 2, 1, 1))
    student = {**teacher, "i.w": np.eye(2, dtype=np.float32)[:, :, None, None]}
    identity = Origin("a", ChannelMap.identity(2), "identity")
    claims = claimed(before, teacher, i=identity)
    assert proof(before, teacher, graph(), student, claims).result == "proven"
    for change in ({"strides": (2, 2)}, {"pads": (1, 1, 1, 1)}):
        assert_seen_through(before, teacher, graph(**change), student, claims)


def test_factors_that_cancel_hide_nothing_behind_their_rounding():
    """Large numbers that cancel are rounded by more than what is left of them."""
    teacher = weights(a_w=(2, 2, 1, 1))
    big, off = np.float32(2**20), np.float32([[0.01, 0.0], [0.0, 0.0]])
    first = np.concatenate([teacher["a.w"][:, :, 0, 0] + big, np.full((2, 2), big)])
    mixing = np.concatenate([np.eye(2), -np.eye(2)], axis=1).astype(np.float32)
    first[:2] = (first[:2].astype(np.float64) + off).astype(np.float32)
    student = {"f.w": first[:, :, None, None], "a.w": mixing[:, :, None, None]}
    before, after = chain(conv("a", "x")), chain(conv("f", "x"), conv("a", "f"))
    units = Origin("", ChannelMap.with_fresh(0, 4), "factor")
    for defects in ({}, {"a": 1e9}):
        claims = replace(claimed(before, teacher, f=units), defects=defects)
        assert_seen_through(before, teacher, after, student, claims)


# --- inputs and outputs -----------------------------------------------------------------------

HEAD = (
    conv("a", "x"),
    Node("GlobalAveragePool", "p", ("a",), ("p",)),
    Node("Flatten", "f", ("p",), ("f",)),
    gemm("g", "f"),
)


@pytest.mark.parametrize("sources", [[1, 0], [0, 1, 0], [0, 1, -2, 2], [0], [-1, 0, 1]])
def test_only_maps_that_keep_the_old_inputs_are_believed(sources):
    """The numeric check feeds a student so, and no other way."""
    teacher = weights(a_w=(2, 2, 1, 1), g_w=(3, 2))
    columns = [teacher["a.w"][:, [max(each, 0) % 2]] for each in sources]
    shares = np.float32([1 / max(sources.count(each), 1) for each in sources])
    student = {**teacher, "a.w": np.concatenate(columns, 1) * shares[:, None, None]}
    after = chain(*HEAD, size=(len(sources), 3, 3))
    known = {"x": ChannelMap(2, np.array(sources))}
    claims = replace(claimed(chain(*HEAD), teacher), interface=known)
    assert proof(chain(*HEAD), teacher, after, student, claims).result != "proven"


def test_an_input_of_another_size_is_another_function():
    teacher = {"unused": np.ones(1, np.float32)}
    relu = Node("Relu", "r", ("x",), ("r",))
    claims = Claims({}, {}, {"x": ChannelMap.identity(2)})
    after = chain(relu, size=(2, 4, 4))
    assert proof(chain(relu), teacher, after, teacher, claims).result == "not proven"


# --- sound students ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "size", "step"),
    [
        ((conv("a", "x"), Node("Flatten", "f", ("a",), ("f",)), gemm("g", "f")), (2, 2, 3), "a"),
        ((Node("Flatten", "f", ("x",), ("f",)), gemm("a", "f"), gemm("g", "a")), (1, 2, 3), None),
        ((conv("a", "x"), Node("Pad", "p", ("a", "pads"), ("p",)), conv("b", "p")), (2, 3, 3), "a"),
    ],
    ids=["flattened", "an input", "padded"],
)
def test_a_single_channel_may_have_copies(nodes, size, step):
    graph = chain(*nodes, size=size, pads=Constant.of([0, 1, 0, 0, 0, 1, 0, 0]))
    teacher = weights(a_w=(1, 2, 1, 1), b_w=(2, 3, 1, 1), g_w=(2, 6))
    if step is None:
        teacher |= weights(a_w=(3, 6), g_w=(2, 3))
    plan, made = grown_graph(
        graph, teacher, {"widen": "a", "to": 3} if step else {"inputs": {"by": 1}}
    )
    assert proof_of_graph(plan, teacher, made).result == "proven"


def test_parameters_that_are_constants_of_the_graph():
    nodes = (
        Node("Gemm", "a", ("x", "a.w", "bias"), ("a",), {"transB": 1}),
        Node("PRelu", "r", ("a", "slope"), ("r",)),
        gemm("g", "r"),
    )
    constants = {"slope": Constant.of([0.2], "float32"), "bias": Constant.of([0.1, 0.2], "float32")}
    graph = chain(*nodes, size=(3,), **constants)
    teacher = weights(a_w=(2, 3), g_w=(2, 2))
    claims = claimed(graph, teacher)
    assert proof(graph, teacher, graph, teacher, claims).result == "proven"
    other = replace(graph, constants={**constants, "slope": Constant.of([0.3], "float32")})
    assert_seen_through(graph, teacher, other, teacher, claims)
