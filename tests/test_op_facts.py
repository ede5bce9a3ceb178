"""What rules promise of their ops, on numbers: in torch, negative ones and zero among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from student_oracles import grown_graph, random_arrays
from test_coupling import case, layer, node
from test_runtimes import CASES
from torch import nn

from ckgrow.graph import Constant, Node
from ckgrow.ops import Site, rule, rules
from ckgrow.ops.elementwise import Clip

X = torch.linspace(-8, 8, 161, dtype=torch.float64)
ELEMENTWISE = sorted(op for op, each in rules().items() if each.elementwise and op != "Clip")
ANYWHERE = [op for op in ELEMENTWISE if op != "Sqrt"]  # its inputs are no negative numbers


def function(op):
    return lambda x: rule(op).evaluate(Node(op, "y", ("x",), ("y",)), [x])[0]


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("op", ANYWHERE)
def test_elementwise_functions_are_what_they_promise(op):
    known, f = rule(op), function(op)
    assert known.idempotent == torch.equal(f(f(X)), f(X))
    assert known.homogeneous == torch.allclose(f(3 * X), 3 * f(X), rtol=1e-14)
    zero = torch.zeros(1, dtype=torch.float64)
    assert known.keeps_zero(Node(op, "y", ("x",), ("y",)), {}) == torch.equal(f(zero), zero)


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_flat_at_zero_is_where_torch_has_no_gradient(op):
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    made = function(op)(zero)
    (slope,) = torch.autograd.grad(made.sum(), zero)
    assert rule(op).flat_at_zero(Node(op, "y", ("x",), ("y",)), {}) == (slope.item() == 0)


@pytest.mark.parametrize(
    ("module", "bounds"),
    [
        (nn.ReLU6(), (0, 6)),
        (nn.Hardtanh(), (-1, 1)),
        (nn.Hardtanh(-2, 0), (-2, 0)),
        (nn.Hardtanh(1, 2), (1, 2)),
        (nn.ReLU(), (0, None)),
        (nn.Identity(), (None, None)),
    ],
)
def test_a_clip_is_flat_where_torchs_modules_are(module, bounds):
    names = [
        ("low", "high")[index] if each is not None else "" for index, each in enumerate(bounds)
    ]
    constants = {
        name: Constant.of(float(each), "float64")
        for name, each in zip(names, bounds, strict=True)
        if each is not None
    }
    clip = Node("Clip", "y", ("x", *names), ("y",))
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    made = module(zero)
    (slope,) = torch.autograd.grad(made.sum(), zero)
    assert Clip().flat_at_zero(clip, constants) == (slope.item() == 0)
    assert Clip().keeps_zero(clip, constants) == (made.item() == 0)


@pytest.mark.parametrize("operation", CASES.values(), ids=CASES.keys())
def test_channels_by_themselves(operation):
    """The channels of such an op that do not depend on one are the same without it."""
    known = rule(operation.op)
    if not known.channelwise:
        assert not known.elementwise
        return
    graph, weights = operation.graph(), operation.weights()
    (reader,) = graph.nodes
    x = torch.rand((2, *operation.x), dtype=torch.float64)
    changed = x.clone()
    changed[:, 1] += 1
    given = {
        **{name: torch.from_numpy(each).double() for name, each in weights.items()},
        **{name: torch.from_numpy(each.array()) for name, each in graph.constants.items()},
    }
    rest = [given[name] for name in reader.inputs[1:] if name]
    (before,), (after,) = (known.evaluate(reader, [each, *rest]) for each in (x, changed))
    assert_close(after[:, [0, 2]], before[:, [0, 2]])
    assert not torch.equal(after[:, 1], before[:, 1])


def test_neutral_operands_leave_the_other_as_it_is():
    binary = {op: each for op, each in rules().items() if each.neutral is not None}
    assert set(binary) == {"Add", "Sub", "Mul", "Div"}
    for op, known in binary.items():
        operand = torch.full_like(X, known.neutral)
        (made,) = known.evaluate(Node(op, "y", ("x", "c"), ("y",)), [X, operand])
        assert torch.equal(made, X)


@pytest.mark.parametrize(
    ("reader", "x", "weight"),
    [
        (Node("Conv", "y", ("x", "w"), ("y",)), ("N", 3, 5, 5), (7, 3, 1, 1)),
        (Node("Gemm", "y", ("x", "w"), ("y",), {"transB": 1}), ("N", 3), (7, 3)),
        (Node("Gemm", "y", ("x", "w"), ("y",)), ("N", 3), (3, 7)),
        (Node("MatMul", "y", ("x", "w"), ("y",)), ("N", 5, 3), (3, 7)),
    ],
)
def test_rows_make_the_outputs(reader, x, weight):
    known = rule(reader.op)
    (made,) = known.shapes(Site(reader, (x, weight), (None, None)))
    assert weight[known.rows(reader)] == made[known.channel_dim] == 7


def test_every_layer_says_where_its_rows_are():
    assert {op for op, each in rules().items() if each.makes_channels} == {"Conv", "Gemm", "MatMul"}


@pytest.mark.parametrize(
    ("activation", "dead"),
    [("Relu", True), ("Abs", True), ("LeakyRelu", False), ("low", False), ("zero", True)],
)
def test_units_that_stay_zero_are_told(activation, dead):
    """A Clip from -1 to 1 lets zero units learn; one that begins at 0 does not."""
    bounds = {"low": Constant.of(-1.0, "float32"), "zero": Constant.of(0.0, "float32")}
    known = activation not in bounds
    active = node(activation, "r", "a") if known else node("Clip", "r", "a", activation)
    made = case(
        {"a": (4, 3, 1, 1), "b": (2, 4, 1, 1)},
        [layer("Conv", "a", "x"), active, layer("Conv", "b", "r")],
        {},
    )
    graph = replace(made.graph, constants={} if known else bounds)
    step = {"widen": "a", "by": 2, "method": "netmorph", "zero": "in"}
    plan, _ = grown_graph(graph, random_arrays(made.header), step)
    warnings = plan.steps[0].warnings
    assert [f"zero before the {active.op} r" in each for each in warnings] == [True] * dead
