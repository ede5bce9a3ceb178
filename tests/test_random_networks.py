"""Random small networks, grown by random specs: the same function in float64 to 1e-10.

Steps that a network refuses must be refused as :class:`SpecError`; those that it takes are applied
one upon the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from student_oracles import grown_graph, random_arrays, run

from ckgrow.errors import SpecError
from ckgrow.graph import BATCH, Constant, Graph, Node
from ckgrow.header import Header, TensorSpec

SIDE = 3  # every map is 3 x 3, so that any two can be joined
NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass
class Network:
    """Nodes and parameters so far; every value has its channels."""

    draw: Callable
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    def add(self, op, inputs, channels, parameters=None, **attributes):
        """A node whose parameters are shapes by their last names; returns its value."""
        name = f"n{len(self.nodes)}"
        keys = [f"{name}.{part}" for part in parameters or ()]
        self.shapes |= dict(zip(keys, (parameters or {}).values(), strict=True))
        self.nodes.append(Node(op, name, (*inputs, *keys), (name,), attributes))
        self.channels[name] = channels
        return name

    def constant(self, values, dtype="int64"):
        name = f"c{len(self.constants)}"
        self.constants[name] = Constant.of(values, dtype)
        return name

    def conv(self, x, channels, group=1):
        kernel = self.draw(st.sampled_from([(1, 1), (3, 3), (1, 3)]))
        before = self.channels[x]
        shapes = {"weight": (channels, before // group, *kernel)}
        if self.draw(st.booleans()):
            shapes["bias"] = (channels,)
        pads = tuple(size // 2 for size in kernel)
        return self.add("Conv", [x], channels, shapes, group=group, pads=pads * 2)

    def norm(self, x):
        channels = self.channels[x]
        shapes = dict.fromkeys(NORM, (channels,))
        return self.add("BatchNormalization", [x], channels, shapes)

    def activation(self, x):
        channels = self.channels[x]
        op = self.draw(st.sampled_from(["Relu", "Relu", "LeakyRelu", "Tanh", "PRelu", "Mish"]))
        shapes = {"slope": (channels, 1, 1)} if op == "PRelu" else {}
        return self.add(op, [x], channels, shapes)


def widened_by_conv(net, x):
    return net.conv(x, net.draw(st.integers(1, 5)))


def grouped(net, x):
    group = net.draw(st.sampled_from([g for g in (2, 3) if net.channels[x] % g == 0] or [1]))
    return net.conv(x, group * net.draw(st.integers(1, 3)), group)


def depthwise(net, x):
    channels = net.channels[x]
    return net.conv(x, channels * net.draw(st.integers(1, 2)), channels)


def residual(net, x):
    inner = net.activation(net.norm(net.conv(x, net.draw(st.integers(1, 4)))))
    return net.add("Add", [net.conv(inner, net.channels[x]), x], net.channels[x])


def gated(net, x):
    channels = net.channels[x]
    pixel = net.add("GlobalAveragePool", [x], channels)
    gate = net.add("Conv", [pixel], channels, {"weight": (channels, channels, 1, 1)})
    gate = net.add("Sigmoid", [gate], channels)
    for small in list(net.channels)[-3:]:
        del net.channels[small]  # a single pixel cannot be joined with a map
    return net.add("Mul", [x, gate], channels)


def concatenated(net, x):
    other = net.draw(st.sampled_from(list(net.channels)))
    return net.add("Concat", [x, other], net.channels[x] + net.channels[other], axis=1)


def joined(net, x):
    """A sum of two concatenations whose boundaries differ."""
    total = net.channels[x] + net.draw(st.integers(1, 3))
    one = net.conv(x, total - net.channels[x])
    first = net.add("Concat", [x, one], total, axis=1)
    cut = net.draw(st.integers(1, total - 1))
    second = net.add("Concat", [net.conv(x, cut), net.conv(x, total - cut)], total, axis=1)
    return net.add(net.draw(st.sampled_from(["Add", "Mul"])), [first, second], total)


def sliced(net, x):
    start = net.draw(st.integers(0, net.channels[x] - 1))
    stop = net.draw(st.integers(start + 1, net.channels[x]))
    bounds = [net.constant([each]) for each in (start, stop, 1)]
    return net.add("Slice", [x, *bounds], stop - start)


def padded(net, x):
    before, after = net.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    pads = net.constant([0, before, 0, 0, 0, after, 0, 0])
    return net.add("Pad", [x, pads], before + net.channels[x] + after)


def scaled(net, x):
    shapes = {"scale": (net.channels[x], 1, 1)}
    return net.add("Mul", [x], net.channels[x], shapes)


def pooled(net, x):
    op = net.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    return net.add(op, [x], net.channels[x], kernel_shape=(3, 3), pads=(1, 1, 1, 1))


PARTS = (
    widened_by_conv,
    widened_by_conv,
    grouped,
    depthwise,
    residual,
    gated,
    concatenated,
    joined,
    sliced,
    padded,
    scaled,
    pooled,
    Network.norm,
    Network.activation,
    Network.activation,
)


@st.composite
def networks(draw):
    net = Network(draw, channels={"x": 2})
    value = net.conv("x", draw(st.integers(2, 5)))
    for part in draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6)):
        if net.channels[value] <= 12:
            value = part(net, value)
    width, channels = draw(st.integers(2, 4)), net.channels[value]
    if draw(st.booleans()):
        value = net.add("Flatten", [value], channels * SIDE * SIDE)
    else:
        axes = net.constant([2, 3])
        value = net.add("ReduceMean", [value, axes], channels, keepdims=0)
    shapes = {"weight": (width, net.channels[value]), "bias": (width,)}
    value = net.add("Gemm", [value], width, shapes, transB=1)
    value = net.add("Relu", [value], width)
    value = net.add("MatMul", [value], 2, {"weight": (width, 2)})
    header = Header({name: TensorSpec("float32", shape) for name, shape in net.shapes.items()})
    inputs = {"x": (BATCH, 2, SIDE, SIDE)}
    return Graph(inputs, (value,), tuple(net.nodes), net.constants).check(), header


def steps(layers):
    noise = st.sampled_from(["none", {"kind": "zero-sum", "scale": 0.3}])
    widening = st.fixed_dictionaries(
        {
            "widen": st.one_of(st.just("*"), st.lists(st.sampled_from(layers), min_size=1)),
            "split": st.sampled_from(["unequal", "select", "per-channel", "uniform"]),
            "copies": st.sampled_from(["even", "random"]),
            "noise": noise,
        },
        optional={"rescale": st.sampled_from([0.5, 4.0]), "multiple_of": st.integers(1, 3)},
    )
    size = st.one_of(
        st.fixed_dictionaries({"factor": st.sampled_from([1.3, 1.5, 2.0, 3.7])}),
        st.fixed_dictionaries({"by": st.integers(1, 5)}),
        st.fixed_dictionaries({"to": st.integers(4, 12)}),
    )
    deepening = st.fixed_dictionaries(
        {"deepen": st.sampled_from(layers), "layers": st.integers(1, 2)}
    )
    return st.one_of(st.builds(lambda a, b: a | b, widening, size), deepening)


@given(st.data())
def test_students_of_random_networks(data):
    graph, header = data.draw(networks())
    tensors = random_arrays(header, data.draw(st.integers(0, 99)))
    layers = [node.name for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul")]
    taken: list[dict] = []
    plan, student = None, tensors
    for step in data.draw(st.lists(steps(layers), min_size=1, max_size=4)):
        try:
            plan, student = grown_graph(graph, tensors, *taken, step, seed=7)
            taken.append(step)
        except SpecError:
            hypothesis.event("refused")
    hypothesis.assume(plan is not None)
    hypothesis.event(f"{len(taken)} steps")
    x = np.random.default_rng(5).standard_normal((4, 2, SIDE, SIDE)).astype(np.float32)
    (before,), (after,) = (
        run("torch_float64", graph, tensors, x),
        run("torch_float64", plan.graph, student, x),
    )
    assert before.shape == after.shape
    scale = max(float(np.abs(before).max()), 1e-3)
    bound = 1e-10 if plan.preserves == "eval" else 1e-12
    assert float(np.abs(after - before).max()) <= bound * scale
    (single,) = run("onnxruntime", plan.graph, student, x)
    assert float(np.abs(single - before).max()) <= 1e-3 * max(scale, 1.0)
