"""Both runtimes against each other, op by op, and against torch's own modules."""

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from student_oracles import grown, images, on_meta, random_state
from student_oracles import run as outputs_in
from test_architecture_mlp import TORCH_ACTIVATIONS
from torch import nn

from ckgrow.building import Builder
from ckgrow.errors import CheckpointError
from ckgrow.graph import BATCH, Constant, Graph, Node
from ckgrow.header import Header, TensorSpec
from ckgrow.ops import rules
from ckgrow.registry import runtime
from ckgrow.shapes import infer_shapes

IMAGE = (3, 6, 7)
INT64_MIN = -(2**63)


@dataclass(frozen=True)
class Case:
    op: str
    x: tuple[int, ...] = IMAGE
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)
    attributes: dict[str, Any] = field(default_factory=dict)
    positive: bool = False

    def graph(self) -> Graph:
        node = Node(self.op, "node", self.inputs, self.outputs, self.attributes)
        return Graph({"x": (BATCH, *self.x)}, self.outputs, (node,), self.constants).check()

    def weights(self) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(1)
        made = {
            name: generator.standard_normal(shape).astype(np.float32)
            for name, shape in self.parameters.items()
        }
        return {name: np.abs(a) + 0.1 if name == "var" else a for name, a in made.items()}


def conv(weight, x=IMAGE, *, bias=False, **attributes):
    parameters = {"w": weight} | ({"b": weight[:1]} if bias else {})
    return Case("Conv", x, parameters, inputs=("x", *parameters), attributes=attributes)


def pool(op, x=IMAGE, **attributes):
    return Case(op, x, attributes=attributes)


def with_constants(op, x=IMAGE, outputs=("y",), inputs=(), attributes=None, **constants):
    made = {name: Constant.of(value) for name, value in constants.items()}
    return Case(
        op,
        x,
        constants=made,
        inputs=("x", *(inputs or made)),
        outputs=outputs,
        attributes=attributes or {},
    )


def clip(*names, **bounds):
    constants = {name: Constant.of(value, "float64") for name, value in bounds.items()}
    return Case("Clip", constants=constants, inputs=("x", *names))


WINDOWS = {
    "even": {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    "uneven-pads": {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (0, 1, 2, 0)},
    "rectangular": {"kernel_shape": (1, 3), "strides": (1, 2), "pads": (0, 0, 0, 0)},
    "ceil": {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (0,) * 4, "ceil_mode": 1},
    "ceil-pads": {"kernel_shape": (2, 3), "strides": (3, 2), "pads": (1,) * 4, "ceil_mode": 1},
    "dilated": {
        "kernel_shape": (2, 3),
        "strides": (1, 2),
        "pads": (0, 1, 1, 1),
        "dilations": (2, 2),
    },
    "no-strides": {"kernel_shape": (2, 2)},
}

CASES = {
    "conv": conv((5, 3, 3, 3)),
    "conv-bias-stride": conv((5, 3, 3, 3), bias=True, strides=(2, 1), pads=(1, 1, 1, 1)),
    "conv-uneven-pads": conv((5, 3, 3, 2), pads=(0, 1, 2, 0)),
    "conv-dilated": conv((5, 3, 2, 3), dilations=(3, 2), pads=(1, 0, 1, 0)),
    "conv-grouped": conv((6, 2, 3, 3), (4, 6, 7), bias=True, group=2),
    "conv-depthwise": conv((3, 1, 3, 3), bias=True, group=3, pads=(1, 1, 1, 1)),
    "conv-depth-multiplier": conv((6, 1, 3, 3), group=3),
    "conv-one-dimension": conv((5, 3, 3), (3, 9), bias=True, strides=(2,), pads=(2, 1)),
    "conv-three-dimensions": conv((2, 3, 2, 2, 2), (3, 4, 5, 3), pads=(1, 0, 0, 0, 1, 0)),
    "gemm": Case("Gemm", (4,), {"w": (4, 5)}, inputs=("x", "w")),
    "gemm-transposed": Case(
        "Gemm", (4,), {"w": (5, 4), "b": (5,)}, inputs=("x", "w", "b"), attributes={"transB": 1}
    ),
    "gemm-scaled": Case(
        "Gemm",
        (4,),
        {"w": (5, 4), "b": (1,)},
        inputs=("x", "w", "b"),
        attributes={"transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    "gemm-row-bias": Case("Gemm", (4,), {"w": (4, 5), "b": (1, 5)}, inputs=("x", "w", "b")),
    "matmul": Case("MatMul", (4,), {"w": (4, 5)}, inputs=("x", "w")),
    "matmul-three-dimensions": Case("MatMul", (6, 4), {"w": (4, 5)}, inputs=("x", "w")),
    "matmul-right": Case(
        "MatMul",
        constants={"m": Constant.of(np.arange(14).reshape(7, 2) / 7, "float64")},
        inputs=("x", "m"),
    ),
    "matmul-left": Case(
        "MatMul",
        constants={"m": Constant.of(np.arange(12).reshape(2, 6) / 7, "float64")},
        inputs=("m", "x"),
    ),
    "matmul-values": Case("MatMul", (4, 4), inputs=("x", "x")),
    "batch-normalization": Case(
        "BatchNormalization",
        parameters=dict.fromkeys(("gamma", "beta", "mean", "var"), (3,)),
        inputs=("x", "gamma", "beta", "mean", "var"),
        attributes={"epsilon": 1e-3},
    ),
    "batch-normalization-flat": Case(
        "BatchNormalization",
        (3,),
        parameters=dict.fromkeys(("gamma", "beta", "mean", "var"), (3,)),
        inputs=("x", "gamma", "beta", "mean", "var"),
    ),
    **{
        f"{op}-{name}": pool(op, **window)
        for op in ("MaxPool", "AveragePool")
        for name, window in WINDOWS.items()
    },
    **{
        f"AveragePool-counting-{name}": pool("AveragePool", count_include_pad=1, **window)
        for name, window in WINDOWS.items()
    },
    "MaxPool-one-dimension": pool("MaxPool", (3, 8), kernel_shape=(3,), strides=(2,), pads=(1, 0)),
    "global-average": Case("GlobalAveragePool"),
    "mean-kept": with_constants("ReduceMean", axes=[2, 3]),
    "mean-dropped": with_constants("ReduceMean", axes=[-1, 2], attributes={"keepdims": 0}),
    "mean-channels": with_constants("ReduceMean", axes=[1], attributes={"keepdims": 0}),
    "maximum-kept": with_constants("ReduceMax", axes=[-1]),
    "maximum-dropped": with_constants("ReduceMax", (3, 5), axes=[2], attributes={"keepdims": 0}),
    "add-itself": Case("Add", inputs=("x", "x")),
    "add-parameter": Case("Add", parameters={"p": (3, 1, 1)}, inputs=("x", "p")),
    "sub-parameter": Case("Sub", parameters={"p": (7,)}, inputs=("p", "x")),
    "mul-parameter": Case("Mul", parameters={"p": (1, 3, 6, 7)}, inputs=("x", "p")),
    "mul-itself": Case("Mul", inputs=("x", "x")),
    "div-constant": Case("Div", constants={"c": Constant.of(3.0, "float64")}, inputs=("x", "c")),
    "concat-itself": Case("Concat", inputs=("x", "x"), attributes={"axis": 1}),
    "concat-last": Case("Concat", inputs=("x", "x", "x"), attributes={"axis": -1}),
    "flatten": Case("Flatten", attributes={"axis": 1}),
    "flatten-flat": Case("Flatten", (5,)),
    "reshape-rest": with_constants("Reshape", shape=[0, -1]),
    "reshape-batch": with_constants("Reshape", shape=[-1, 126]),
    "reshape-sizes": with_constants("Reshape", shape=[0, 0, 42]),
    "reshape-ones": with_constants("Reshape", (3,), shape=[0, 3, 1, 1]),
    "reshape-pieces": with_constants("Reshape", (6,), shape=[0, -1, 3]),
    "reshape-minus-one-inside": with_constants("Reshape", shape=[0, -1, 7, 6]),
    "split-sizes": with_constants(
        "Split", (5, 2), outputs=("y", "z"), sizes=[2, 3], attributes={"axis": 1}
    ),
    "split-equal": Case(
        "Split", (6, 2), outputs=("y", "z"), attributes={"axis": 1, "num_outputs": 2}
    ),
    "split-uneven": Case(
        "Split", (5, 2), outputs=("y", "z", "u"), attributes={"axis": -2, "num_outputs": 3}
    ),
    "slice": with_constants("Slice", starts=[1], ends=[3], axes=[1]),
    "slice-steps": with_constants(
        "Slice", starts=[0, 0], ends=[2**62, 2**62], axes=[2, 3], steps=[2, 2]
    ),
    "slice-backwards": with_constants(
        "Slice", starts=[-1, -2], ends=[INT64_MIN, 0], axes=[1, -1], steps=[-1, -2]
    ),
    "slice-all-axes": with_constants("Slice", starts=[0, 1, 2, -3], ends=[2**62, 3, -1, 7]),
    "slice-axes-omitted": with_constants(
        "Slice",
        starts=[0, 0, 1, 1],
        ends=[2**62, 3, 5, 6],
        steps=[1, 2, 2, 3],
        inputs=("starts", "ends", "", "steps"),
    ),
    "pad-channels": with_constants("Pad", pads=[0, 2, 0, 0, 0, 1, 0, 0]),
    "pad-axes": with_constants("Pad", pads=[2, 1, 0, 3], axes=[1, -1], inputs=("pads", "", "axes")),
    "pad-value": Case(
        "Pad",
        constants={
            "pads": Constant.of([0, 0, 1, 2, 0, 0, 3, 0]),
            "value": Constant.of(-1.5, "float64"),
        },
        inputs=("x", "pads", "value"),
    ),
    "pad-crop": with_constants("Pad", pads=[0, 0, -1, 0, 0, 0, -2, 1]),
    "clip": clip("low", "high", low=0.0, high=0.7),
    "clip-low": clip("low", low=-0.5),
    "clip-high": clip("", "high", high=0.5),
    "prelu-one": Case("PRelu", parameters={"s": (1,)}, inputs=("x", "s")),
    "prelu-channels": Case("PRelu", parameters={"s": (3, 1, 1)}, inputs=("x", "s")),
    "prelu-flat": Case("PRelu", (4,), parameters={"s": (4,)}, inputs=("x", "s")),
    **{
        f"{op}-{axis}": Case(op, attributes={"axis": axis})
        for op in ("Softmax", "LogSoftmax")
        for axis in (1, -1)
    },
    "softmax-flat": Case("Softmax", (5,)),
    **{op: Case(op) for op in ("Identity", "Dropout", "Relu", "LeakyRelu", "Abs", "Neg", "Elu")},
    **{op: Case(op) for op in ("Selu", "Gelu", "Sigmoid", "HardSigmoid", "HardSwish", "Mish")},
    **{op: Case(op) for op in ("Softplus", "Softsign", "Tanh", "Erf", "Exp")},
    "Sqrt": Case("Sqrt", positive=True),
    "LeakyRelu-alpha": Case("LeakyRelu", attributes={"alpha": 0.2}),
    "Elu-alpha": Case("Elu", attributes={"alpha": 0.5}),
    "Gelu-tanh": Case("Gelu", attributes={"approximate": "tanh"}),
    "HardSigmoid-torch": Case("HardSigmoid", attributes={"alpha": 1 / 6}),
}


def header_of(weights) -> Header:
    return Header({n: TensorSpec(a.dtype.name, a.shape) for n, a in weights.items()})


def run(name, graph, weights, inputs, fetch=()):
    session = runtime(name).Session(graph, header_of(weights), weights.__getitem__, fetch)
    return session.run(inputs)


def batch(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 2


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_two_runtimes_agree_on_an_op(case):
    graph, weights = case.graph(), case.weights()
    x = batch(4, *case.x)
    x = np.abs(x) if case.positive else x
    single = run("onnxruntime", graph, weights, {"x": x})
    double = run("torch_float64", graph, weights, {"x": x})
    shapes = infer_shapes(graph, header_of(weights))
    for name in graph.outputs:
        assert single[name].dtype == np.float32
        assert double[name].dtype == np.float64
        assert single[name].shape == double[name].shape == (4, *shapes[name][1:])
        np.testing.assert_allclose(single[name], double[name], rtol=1e-5, atol=1e-5)


def test_every_op_with_a_rule_has_a_case():
    assert set(rules()) == {case.op for case in CASES.values()}


@pytest.mark.parametrize(("size", "target"), [(14, 4), (7, 3), (3, 7), (5, 5), (6, 1)])
def test_adaptive_average_pooling_is_torchs(size, target):
    builder = Builder(Header({}), {"x": (BATCH, 2, size, size + 1)})
    builder.node("Identity", "y", [builder.adaptive_average_pool("pool", "x", (target, target))])
    graph = builder.graph("y")
    x = batch(3, 2, size, size + 1)
    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).double(), target).numpy()
    np.testing.assert_allclose(
        run("torch_float64", graph, {}, {"x": x})["y"], wanted, rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(
        run("onnxruntime", graph, {}, {"x": x})["y"], wanted, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_pooling_is_torchs(ceil, counted):
    x = torch.from_numpy(batch(2, 3, 10, 11)).double()
    window = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1,) * 4, "ceil_mode": int(ceil)}
    average = pool("AveragePool", (3, 10, 11), count_include_pad=int(counted), **window)
    largest = pool("MaxPool", (3, 10, 11), **window)
    functional = torch.nn.functional
    averages = functional.avg_pool2d(x, 3, 2, 1, ceil_mode=ceil, count_include_pad=counted)
    maxima = functional.max_pool2d(x, 3, 2, 1, ceil_mode=ceil)
    for case, wanted in ((average, averages), (largest, maxima)):
        made = run("torch_float64", case.graph(), {}, {"x": x.numpy()})["y"]
        np.testing.assert_allclose(made, wanted.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_low_precision_is_stored_only(dtype):
    stored = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    weights = {"w": batch(5, 40).astype(stored), "b": batch(5, seed=1).astype(stored)}
    case = Case("Gemm", (40,), inputs=("x", "w", "b"), attributes={"transB": 1})
    x = batch(6, 40)
    wanted = x.astype(np.float64) @ weights["w"].astype(np.float64).T
    wanted += weights["b"].astype(np.float64)
    single = run("onnxruntime", case.graph(), weights, {"x": x})["y"]
    double = run("torch_float64", case.graph(), weights, {"x": x})["y"]
    np.testing.assert_allclose(single, wanted, rtol=0, atol=3e-5)
    np.testing.assert_allclose(double, wanted, rtol=0, atol=1e-12)


def two_layers() -> tuple[Graph, dict[str, np.ndarray]]:
    weights = {"a.weight": batch(4, 3), "a.bias": batch(4, seed=1), "b.weight": batch(2, 4, seed=2)}
    builder = Builder(header_of(weights), {"x": (BATCH, 3)})
    hidden = builder.node("Relu", "a/relu", [builder.linear("a", "x")])
    return builder.graph(builder.linear("b", hidden, output="y")), weights


@pytest.mark.parametrize("name", ["onnxruntime", "torch_float64"])
def test_inner_values_can_be_fetched(name):
    graph, weights = two_layers()
    x = batch(5, 3)
    made = run(name, graph, weights, {"x": x}, fetch=("a", "x", "y"))
    assert list(made) == ["y", "a", "x"]
    inner = x @ weights["a.weight"].T + weights["a.bias"]
    np.testing.assert_allclose(made["a"], inner, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made["x"], x)
    np.testing.assert_allclose(
        made["y"], np.maximum(inner, 0) @ weights["b.weight"].T, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(CheckpointError, match=r"no value 'c\\x1b' to fetch"):
        run(name, graph, weights, {"x": x}, fetch=("c\x1b",))
    with pytest.raises(CheckpointError, match="no array for the graph input x"):
        run(name, graph, weights, {})


@pytest.mark.parametrize("name", ["onnxruntime", "torch_float64"])
def test_foreign_names_and_read_only_arrays_are_harmless(name):
    weights = {"../../\x00\x1b[31m": batch(5, 4), "ckgrow_value1" * 1000: batch(5)}
    for array in weights.values():
        array.flags.writeable = False
    case = Case("Gemm", (4,), inputs=("x", *weights), attributes={"transB": 1})
    x = batch(2, 4, seed=3)
    x.flags.writeable = False
    w, b = weights.values()
    made = run(name, case.graph(), weights, {"x": x})["y"]
    np.testing.assert_allclose(made, x @ w.T + b, rtol=1e-5, atol=1e-5)


def test_weights_are_read_once_in_float32_and_dropped_in_float64():
    graph, weights = two_layers()
    for name, runs in (("onnxruntime", 1), ("torch_float64", 2)):
        reads: list[str] = []

        def read(tensor, reads=reads):
            reads.append(tensor)
            return weights[tensor]

        session = runtime(name).Session(graph, header_of(weights), read)
        for _ in range(2):
            session.run({"x": batch(5, 3)})
        assert reads == graph.parameters() * runs


@pytest.mark.parametrize(
    ("graph", "weights", "message"),
    [
        (
            Case("Gemm", (4,), inputs=("x", "w\x1b")).graph(),
            {"w\x1b": np.ones((4, 5), np.int8)},
            r"^ONNX Runtime cannot load the graph: .*'w\\x1b'",
        ),
        (
            Case("Gemm", (4,), inputs=("x", "w")).graph(),
            {"w": np.ones((3, 5), np.float32)},
            r"^ONNX Runtime cannot (load|run) the graph: .*node\b",
        ),
        (
            Case("Gemm", (4,), inputs=("x", "w")).graph(),
            {"w": np.ones((4, 5), ml_dtypes.int4)},
            "tensor w is int4, which ONNX Runtime cannot be fed",
        ),
        (Case("Sorcery", (4,)).graph(), {}, "^ONNX Runtime cannot load the graph: .*Sorcery"),
    ],
)
def test_what_onnx_runtime_refuses_is_a_readable_error(graph, weights, message, capfd):
    with pytest.raises(CheckpointError, match=message) as caught:
        run("onnxruntime", graph, weights, {"x": batch(2, 4)})
    assert "ckgrow_" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_torch_refuses_is_a_readable_error():
    case = Case("Gemm", (4,), inputs=("x", "w"))
    with pytest.raises(CheckpointError, match=r"Gemm node cannot be computed on shapes \[2, 4\]"):
        run("torch_float64", case.graph(), {"w": np.ones((3, 5), np.float32)}, {"x": batch(2, 4)})


def test_labels_say_the_precision():
    assert runtime("onnxruntime").label().startswith("ONNX Runtime 1.")
    assert runtime("onnxruntime").label().endswith("(float32, CPU)")
    assert runtime("torch_float64").label().endswith("(float64, CPU)")


@pytest.mark.parametrize("activation", TORCH_ACTIVATIONS)
def test_every_activation_of_the_adapters_runs_in_both_runtimes(activation):
    """ONNX Runtime is strict about the types of attributes, which torch converts."""
    module = on_meta(lambda: nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 2)))
    state = random_state(module)
    plan = grown(state, {"widen": "0", "by": 2}, options={"activation": activation}).plan
    tensors = {name: each.numpy() for name, each in state.items()}
    x = images(3, 4).numpy()
    single, double = (
        outputs_in(name, plan.teacher.network.graph, tensors, x)[0]
        for name in ("onnxruntime", "torch_float64")
    )
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)
