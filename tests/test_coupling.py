"""What each op does to channels: small graphs, the groups found in them, and students of them.

Every network is widened in all ways its groups allow and compared in two runtimes that share no
code: the op rules in float64, and ONNX Runtime in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from student_oracles import assert_same_function, grown_graph, random_arrays

from ckgrow.coupling import couple
from ckgrow.errors import CheckpointError, GraphError, SpecError
from ckgrow.graph import BATCH, Constant, Graph, Node
from ckgrow.groups import group_channels
from ckgrow.header import Header, TensorSpec

IMAGE = (3, 4, 5)
END = 2**63 - 1  # what exporters write for "to the end"


@dataclass(frozen=True)
class Case:
    """A network, and for each group that can grow its width, its runs and its layers."""

    graph: Graph
    header: Header
    groups: dict[str, tuple[int, int, str]]


def layer(op, name, x, **attributes):
    return Node(op, name, (x, f"{name}.w"), (name,), attributes)


def node(op, name, *inputs, outputs=(), **attributes):
    return Node(op, name, inputs, tuple(outputs) or (name,), attributes)


def case(weights, nodes, groups, *, x=IMAGE, outputs=(), **constants):
    """``weights`` are shapes by layer; the last node makes the output."""
    header = Header(
        {
            name if "." in name else f"{name}.w": TensorSpec("float32", shape)
            for name, shape in weights.items()
        }
    )
    made = {name: Constant.of(*value) for name, value in constants.items()}
    graph = Graph({"x": (BATCH, *x)}, tuple(outputs) or (nodes[-1].output,), tuple(nodes), made)
    return Case(graph.check(), header, groups)


def ints(*values):
    return (values, "int64")


def floats(*values):
    return (values, "float32")


A = layer("Conv", "a", "x")
B = layer("Conv", "b", "a")

CASES = {
    "one conv behind another": case(
        {"a": (4, 3, 3, 3), "b": (2, 4, 1, 1)}, [A, B], {"a": (4, 1, "a")}
    ),
    "an activation, pooling and dropout pass through": case(
        {"a": (4, 3, 1, 1), "b": (2, 4, 1, 1)},
        [
            A,
            node("Relu", "r", "a"),
            node("MaxPool", "m", "r", kernel_shape=(2, 2), strides=(1, 1)),
            node("Dropout", "d", "m"),
            layer("Conv", "b", "d"),
        ],
        {"a": (4, 1, "a")},
    ),
    "a concatenation with itself": case(
        {"a": (3, 3, 1, 1), "b": (2, 6, 1, 1)},
        [A, node("Concat", "c", "a", "a", axis=1), layer("Conv", "b", "c")],
        {"a": (3, 1, "a")},
    ),
    "a sum with itself": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, node("Add", "s", "a", "a"), layer("Conv", "b", "s")],
        {"a": (3, 1, "a")},
    ),
    "a product with itself": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, node("Mul", "s", "a", "a"), layer("Conv", "b", "s")],
        {"a": (3, 1, "a")},
    ),
    "a gate": case(
        {"a": (3, 3, 1, 1), "g": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("GlobalAveragePool", "p", "a"),
            layer("Conv", "g", "p"),
            node("Sigmoid", "o", "g"),
            node("Mul", "s", "a", "o"),
            layer("Conv", "b", "s"),
        ],
        {"a": (3, 1, "a g")},
    ),
    "a sum of concatenations with different boundaries": case(
        {
            "a": (2, 3, 1, 1),
            "b": (4, 3, 1, 1),
            "c": (3, 3, 1, 1),
            "d": (3, 3, 1, 1),
            "e": (2, 6, 3, 3),
        },
        [
            *(layer("Conv", name, "x") for name in "abcd"),
            node("Concat", "left", "a", "b", axis=1),
            node("Concat", "right", "c", "d", axis=1),
            node("Add", "s", "left", "right"),
            layer("Conv", "e", "s"),
        ],
        {"a": (2, 1, "a c"), "b": (1, 1, "b c"), "b#2": (3, 1, "b d")},
    ),
    "a sum with its own channels shifted": case(
        {"a": (4, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("Slice", "left", "a", "zero", "three", "one"),
            node("Slice", "right", "a", "one", "four", "one"),
            node("Add", "s", "left", "right"),
            layer("Conv", "b", "s"),
        ],
        {},  # filled below: one group of four equal-length parts
        zero=ints(0),
        one=ints(1),
        three=ints(3),
        four=ints(4),
    ),
    "a slice of channels": case(
        {"a": (6, 3, 1, 1), "b": (2, 3, 1, 1), "c": (2, 6, 1, 1)},
        [
            A,
            node("Slice", "s", "a", "from", "to", "axis"),
            layer("Conv", "b", "s"),
            layer("Conv", "c", "a"),
            node("Add", "y", "b", "c"),
        ],
        {"a": (1, 1, "a"), "a#2": (3, 1, "a"), "a#3": (2, 1, "a")},
        **{"from": ints(-5), "to": ints(4), "axis": ints(1)},
    ),
    "a slice to the end of channels and space": case(
        {"a": (6, 3, 1, 1), "b": (2, 4, 1, 1)},
        [
            A,
            node("Slice", "s", "a", "from", "to", "axes", "steps"),
            layer("Conv", "b", "s"),
        ],
        {"a": (2, 1, "a"), "a#2": (4, 1, "a")},
        **{
            "from": ints(2, 0),
            "to": ints(END, END),
            "axes": ints(1, 3),
            "steps": ints(1, 2),
        },
    ),
    "a slice of every other channel": case(
        {"a": (6, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("Slice", "s", "a", "from", "to", "axes", "steps"),
            layer("Conv", "b", "s"),
        ],
        {},
        **{"from": ints(0), "to": ints(END), "axes": ints(1), "steps": ints(2)},
    ),
    "a split into stated parts": case(
        {"a": (6, 3, 1, 1), "b": (2, 2, 1, 1), "c": (2, 4, 1, 1)},
        [
            A,
            node("Split", "s", "a", "sizes", outputs=("s0", "s1"), axis=1),
            layer("Conv", "b", "s0"),
            layer("Conv", "c", "s1"),
            node("Add", "y", "b", "c"),
        ],
        {"a": (2, 1, "a"), "a#2": (4, 1, "a")},
        sizes=ints(2, 4),
    ),
    "a split into equal parts": case(
        {"a": (6, 3, 1, 1), "b": (2, 3, 1, 1), "c": (2, 3, 1, 1)},
        [
            A,
            node("Split", "s", "a", outputs=("s0", "s1"), axis=1, num_outputs=2),
            layer("Conv", "b", "s0"),
            layer("Conv", "c", "s1"),
            node("Add", "y", "b", "c"),
        ],
        {"a": (3, 1, "a"), "a#2": (3, 1, "a")},
    ),
    "a split of space": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("Split", "s", "a", "sizes", outputs=("s0", "s1"), axis=2),
            node("Concat", "c", "s1", "s0", "s1", axis=2),
            layer("Conv", "b", "c"),
        ],
        {"a": (3, 1, "a")},
        sizes=ints(1, 3),
    ),
    "padding of channels on both sides": case(
        {"a": (2, 3, 1, 1), "b": (4, 3, 1, 1), "c": (2, 4, 3, 3)},
        [
            A,
            node("Pad", "p", "a", "pads"),
            layer("Conv", "b", "x"),
            node("Add", "s", "p", "b"),
            layer("Conv", "c", "s"),
        ],
        {"a": (2, 1, "a b"), "b": (2, 2, "b")},
        pads=ints(0, 1, 0, 0, 0, 1, 0, 0),
    ),
    "padding of channels on one side, of space on all": case(
        {"a": (2, 3, 1, 1), "b": (2, 5, 3, 3)},
        [A, node("Pad", "p", "a", "pads"), layer("Conv", "b", "p")],
        {"a": (2, 1, "a"), "p": (3, 1, "")},
        pads=ints(0, 0, 1, 1, 0, 3, 1, 1),
    ),
    "flattening": case(
        {"a": (3, 3, 1, 1), "b": (5, 60), "c": (2, 5)},
        [
            A,
            node("Flatten", "f", "a"),
            layer("Gemm", "b", "f", transB=1),
            layer("Gemm", "c", "b", transB=1),
        ],
        {"a": (3, 1, "a"), "b": (5, 1, "b")},
    ),
    "reshaping to two dimensions": case(
        {"a": (3, 3, 1, 1), "b": (60, 4)},
        [A, node("Reshape", "f", "a", "shape"), layer("Gemm", "b", "f")],
        {"a": (3, 1, "a")},
        shape=ints(-1, 60),
    ),
    "reshaping and back": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("Reshape", "f", "a", "flat"),
            node("Reshape", "g", "f", "full"),
            layer("Conv", "b", "g"),
        ],
        {"a": (3, 1, "a")},
        flat=ints(0, 60),
        full=ints(0, 3, 4, 5),
    ),
    "reshaping to another number of channels": case(
        {"a": (4, 3, 1, 1), "b": (2, 5, 1, 1)},
        [A, node("Reshape", "g", "a", "shape"), layer("Conv", "b", "g")],
        {},
        shape=ints(0, 5, 4, 4),
    ),
    "the largest of every two channels": case(
        {"a": (6, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("Reshape", "p", "a", "pieces"),
            node("ReduceMax", "m", "p", "axes", keepdims=0),
            layer("Conv", "b", "m"),
        ],
        {"a": (6, 1, "a")},
        pieces=ints(0, 3, 2, 4, 5),
        axes=ints(2),
    ),
    "units that three channels fill": case(
        {"a": (6, 3, 1, 1), "b": (2, 10)},
        [
            A,
            node("Flatten", "f", "a"),
            node("Reshape", "p", "f", "pieces"),
            node("ReduceMax", "m", "p", "axes", keepdims=0),
            layer("Gemm", "b", "m", transB=1),
        ],
        {"a": (6, 1, "a")},
        pieces=ints(-1, 10, 12),
        axes=ints(2),
    ),
    "a flattened map plus a linear layer": case(
        {"a": (3, 3, 1, 1), "e": (60, 60), "b": (2, 60)},
        [
            A,
            node("Flatten", "f", "a"),
            node("Flatten", "g", "x"),
            layer("Gemm", "e", "g", transB=1),
            node("Add", "s", "f", "e"),
            layer("Gemm", "b", "s", transB=1),
        ],
        {"a": (3, 1, "a e")},
    ),
    "the mean over space": case(
        {"a": (3, 3, 1, 1), "b": (2, 3)},
        [A, node("ReduceMean", "m", "a", "axes", keepdims=0), layer("Gemm", "b", "m", transB=1)],
        {"a": (3, 1, "a")},
        axes=ints(2, 3),
    ),
    "the mean over channels": case(
        {"a": (3, 3, 1, 1), "b": (2, 1, 1, 1)},
        [A, node("ReduceMean", "m", "a", "axes"), layer("Conv", "b", "m")],
        {},
        axes=ints(1),
    ),
    "a grouped convolution": case(
        {"a": (6, 3, 1, 1), "g": (4, 3, 3, 3), "b": (2, 4, 1, 1)},
        [A, layer("Conv", "g", "a", group=2), layer("Conv", "b", "g")],
        {"a": (6, 2, "a"), "g": (4, 2, "g")},
    ),
    "a depthwise convolution": case(
        {"a": (3, 3, 1, 1), "g": (3, 1, 3, 3), "g.b": (3,), "b": (2, 3, 1, 1)},
        [
            A,
            Node("Conv", "g", ("a", "g.w", "g.b"), ("g",), {"group": 3}),
            layer("Conv", "b", "g"),
        ],
        {"a": (3, 1, "a g")},
    ),
    "a depthwise convolution with a multiplier": case(
        {"a": (3, 3, 1, 1), "g": (6, 1, 3, 3), "b": (2, 6, 1, 1)},
        [A, layer("Conv", "g", "a", group=3), layer("Conv", "b", "g")],
        {"a": (3, 1, "a g")},
    ),
    "a grouped convolution behind a multiplied depthwise one": case(
        {"a": (4, 3, 1, 1), "g": (8, 1, 1, 1), "h": (4, 4, 1, 1), "b": (2, 4, 1, 1)},
        [
            A,
            layer("Conv", "g", "a", group=4),
            layer("Conv", "h", "g", group=2),
            layer("Conv", "b", "h"),
        ],
        {"a": (4, 2, "a g"), "h": (4, 2, "h")},
    ),
    "one filter per group behind a concatenation": case(
        {"a": (2, 3, 1, 1), "c": (4, 3, 1, 1), "g": (4, 3, 1, 1), "b": (2, 4, 1, 1)},
        [
            A,
            layer("Conv", "c", "x"),
            node("Concat", "k", "a", "c", axis=1),
            layer("Conv", "g", "k", group=2),
            layer("Conv", "b", "g"),
        ],
        {"a": (4, 2, "a c"), "c": (2, 2, "c"), "g": (4, 2, "g")},
    ),
    "softmax over channels": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, node("Softmax", "s", "a", axis=1), layer("Conv", "b", "s")],
        {},
    ),
    "softmax over space": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, node("Softmax", "s", "a", axis=3), layer("Conv", "b", "s")],
        {"a": (3, 1, "a")},
    ),
    "a parameter per channel": case(
        {"a": (3, 3, 1, 1), "k.scale": (3, 1, 1), "k.shift": (1, 3, 1, 1), "b": (2, 3, 1, 1)},
        [
            A,
            node("Mul", "m", "a", "k.scale"),
            node("Add", "s", "m", "k.shift"),
            layer("Conv", "b", "s"),
        ],
        {"a": (3, 1, "a")},
    ),
    "a constant per channel, and one for all": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, node("Mul", "m", "a", "k"), node("Sub", "s", "m", "one"), layer("Conv", "b", "s")],
        {"a": (3, 1, "a")},
        k=([[[1.0]], [[2.0]], [[-3.0]]], "float32"),
        one=floats(1.0),
    ),
    "a mask of one channel": case(
        {"a": (3, 3, 1, 1), "m": (1, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, layer("Conv", "m", "x"), node("Mul", "s", "a", "m"), layer("Conv", "b", "s")],
        {"a": (3, 1, "a")},
    ),
    "BatchNorm and PRelu": case(
        {
            "a": (3, 3, 1, 1),
            "n.weight": (3,),
            "n.bias": (3,),
            "n.running_mean": (3,),
            "n.running_var": (3,),
            "r.slope": (3, 1, 1),
            "b": (2, 3, 1, 1),
        },
        [
            A,
            node(
                "BatchNormalization",
                "n",
                "a",
                *(f"n.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
            ),
            node("PRelu", "r", "n", "r.slope"),
            layer("Conv", "b", "r"),
        ],
        {"a": (3, 1, "a")},
    ),
    "a weight that is used twice": case(
        {"a": (3, 3, 1, 1), "b": (3, 3, 3, 3), "c": (2, 3, 1, 1)},
        [
            A,
            Node("Conv", "b", ("a", "b.w"), ("b",), {"pads": (1, 1, 1, 1)}),
            node("Relu", "r", "b"),
            Node("Conv", "again", ("r", "b.w"), ("again",), {"pads": (1, 1, 1, 1)}),
            layer("Conv", "c", "again"),
        ],
        {"a": (3, 1, "a b again")},
    ),
    "a weight that is used in two ways": case(
        {"a": (4, 3), "b": (4, 4), "c": (2, 4)},
        [
            layer("Gemm", "a", "x", transB=1),
            layer("Gemm", "b", "a", transB=1),
            node("Relu", "r", "b"),
            Node("Gemm", "again", ("r", "b.w"), ("again",)),
            layer("Gemm", "c", "again", transB=1),
        ],
        {},
        x=(3,),
    ),
    "a bias in a row of its own": case(
        {"a": (3, 4), "a.b": (1, 4), "b": (4, 2)},
        [Node("Gemm", "a", ("x", "a.w", "a.b"), ("a",)), layer("MatMul", "b", "a")],
        {"a": (4, 1, "a")},
        x=(3,),
    ),
    "one bias for all outputs": case(
        {"a": (3, 4), "a.b": (1,), "b": (4, 2)},
        [Node("Gemm", "a", ("x", "a.w", "a.b"), ("a",)), layer("Gemm", "b", "a")],
        {},
        x=(3,),
    ),
    "products in three dimensions": case(
        {"a": (3, 4), "b": (4, 2)},
        [layer("MatMul", "a", "x"), node("Gelu", "g", "a"), layer("MatMul", "b", "g")],
        {"a": (4, 1, "a")},
        x=(6, 3),
    ),
    "a constant matrix over space": case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [A, node("MatMul", "m", "a", "k"), layer("Conv", "b", "m")],
        {"a": (3, 1, "a")},
        k=([[1.0, 0.5], [0.25, 2.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 3.0]], "float32"),
    ),
    "a slice through a repeated channel": case(
        {"a": (3, 3, 1, 1), "g": (6, 1, 1, 1), "b": (4, 3, 1, 1), "c": (2, 4, 1, 1)},
        [
            A,
            layer("Conv", "g", "a", group=3),
            node("Slice", "s", "g", "from", "to", "axis"),
            layer("Conv", "b", "s"),
            layer("Conv", "c", "b"),
        ],
        {"b": (4, 1, "b")},
        **{"from": ints(0), "to": ints(3), "axis": ints(1)},
    ),
    "a concatenation in space with what was rearranged": case(
        {"a": (4, 3, 1, 1), "e": (5, 3, 1, 1), "b": (2, 4, 1, 1)},
        [
            A,
            layer("Conv", "e", "x"),
            node("Reshape", "g", "e", "shape"),
            node("Concat", "k", "g", "a", axis=2),
            layer("Conv", "b", "k"),
        ],
        {},
        shape=ints(0, 4, 5, 5),
    ),
    "the same channels in different layouts": case(
        {"a": (3, 3, 1, 1), "b": (2, 6)},
        [
            A,
            node("AveragePool", "p", "a", kernel_shape=(4, 4), strides=(1, 1)),
            node("Flatten", "f", "p"),
            node("GlobalAveragePool", "q", "a"),
            node("Flatten", "g", "q"),
            node("Concat", "c", "g", "g", axis=1),
            node("Add", "s", "f", "c"),
            layer("Gemm", "b", "s", transB=1),
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_groups(name):
    made = CASES[name]
    grouping = group_channels(made.graph, couple(made.graph, made.header))
    found = {
        group.name: (group.width, group.runs, " ".join(group.layers))
        for group in grouping.groups.values()
        if group.growable
    }
    if name == "a sum with its own channels shifted":
        assert [width for width, _, _ in found.values()] == [1]
    else:
        assert found == made.groups
    assert all(g.growable or g.reason for g in grouping.groups.values())


@pytest.mark.parametrize("name", CASES)
def test_students_compute_the_same(name):
    made = CASES[name]
    tensors = random_arrays(made.header)
    layers = group_channels(made.graph, couple(made.graph, made.header)).layers
    for pattern in ("*", *layers):
        for factor in (2, 3):
            step = {"widen": pattern, "factor": factor}
            if not _growable(made, layers, pattern):
                with pytest.raises(SpecError, match="widened"):
                    grown_graph(made.graph, tensors, step)
                continue
            plan, student = grown_graph(made.graph, tensors, step, seed=factor)
            assert plan.preserves == "exact"
            assert_same_function(made.graph, tensors, plan, student)


def _growable(made, layers, pattern):
    grouping = group_channels(made.graph, couple(made.graph, made.header))
    names = layers if pattern == "*" else [pattern]
    return any(
        all(grouping.groups[own].growable for own in grouping.own_groups(layers[name]))
        for name in names
    )


def test_an_op_without_a_rule_is_refused():
    made = CASES["one conv behind another"]
    nodes = (A, node("Einsum", "e", "a"), layer("Conv", "b", "e"))
    graph = Graph(made.graph.inputs, ("b",), nodes)
    with pytest.raises(GraphError, match="op 'Einsum' has no rule"):
        couple(graph, made.header)


def test_integer_weights_are_refused():
    made = CASES["one conv behind another"]
    tensors = random_arrays(made.header)
    tensors["b.w"] = np.ones((2, 4, 1, 1), np.int8)
    with pytest.raises(CheckpointError, match=r"b\.w is int8, in which nothing grows"):
        grown_graph(made.graph, tensors, {"widen": "a", "factor": 2})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("softmax over channels", "Softmax 's' runs over it"),
        ("the mean over channels", "'m' takes the mean over channels"),
        ("a slice of every other channel", "Slice 's' takes every other channel"),
        ("reshaping to another number of channels", "Reshape 'g' rearranges it"),
        ("one bias for all outputs", "'a' has one bias for all outputs"),
        ("the same channels in different layouts", "joins channels of different layouts"),
    ],
)
def test_the_reason_is_told(name, said):
    made = CASES[name]
    with pytest.raises(SpecError, match=said):
        grown_graph(made.graph, random_arrays(made.header), {"widen": "a", "factor": 2})


def test_an_output_cannot_grow():
    made = CASES["one conv behind another"]
    with pytest.raises(SpecError, match="b cannot be widened: graph output 'b'"):
        grown_graph(made.graph, random_arrays(made.header), {"widen": "b", "factor": 2})
