"""Torch modules for nodes of a graph, without their tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ckgrow.errors import CheckpointError
from ckgrow.graph import Constant, Graph, Node
from ckgrow.loading import Loaded
from ckgrow.names import shown
from ckgrow.ops import rule
from ckgrow.ops.batch_normalization import EPSILON
from ckgrow.ops.conv import window
from ckgrow.ops.elementwise import Passing
from ckgrow.shapes import infer_shapes

CONVOLUTIONS: Mapping[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
BATCH_NORMS: Mapping[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    0: nn.BatchNorm1d,
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def is_activation(node: Node) -> bool:
    """Whether a node is a function of single elements that does something."""
    known = rule(node.op)
    return known.elementwise and not isinstance(known, Passing)


ACTIVATIONS: Mapping[str, Callable[[Node], nn.Module]] = {
    "Relu": lambda _: nn.ReLU(),
    "LeakyRelu": lambda node: nn.LeakyReLU(node.get("alpha", 0.01)),
    "Elu": lambda node: nn.ELU(node.get("alpha", 1.0)),
    "Selu": lambda _: nn.SELU(),
    "Gelu": lambda node: nn.GELU(node.get("approximate", "none")),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Tanh": lambda _: nn.Tanh(),
    "HardSwish": lambda _: nn.Hardswish(),
    "Mish": lambda _: nn.Mish(),
    "Softplus": lambda _: nn.Softplus(),
    "Softsign": lambda _: nn.Softsign(),
}


def make_activation(node: Node, graph: Graph) -> nn.Module:
    """The module of an activation, given the last of its nodes."""
    if node.op in ACTIVATIONS:
        return ACTIVATIONS[node.op](node)
    if node.op == "Clip" and [_scalar(name, graph) for name in node.inputs[1:]] == [0.0, 6.0]:
        return nn.ReLU6()
    if node.op == "Mul":
        gates = [each for each in graph.nodes if each.output in node.inputs]
        if any(each.op == "Sigmoid" and each.inputs[0] in node.inputs for each in gates):
            return nn.SiLU()
    raise CheckpointError(
        f"the student has a new {node.op} at {shown(node.name)}, for which load_into knows no "
        "module; add it to the module's own code first"
    )


class LayerMaker:
    """Makes layers in the shapes and conventions of a student's graph.

    They stand on the CPU, in float32; the tensors that are set later bring their own dtype.
    """

    def __init__(self, student: Loaded) -> None:
        self._student = student
        self._shapes = infer_shapes(student.network.graph, student.header)

    def make(self, node: Node) -> nn.Module:
        """The module of a node with tensors."""
        makers: Mapping[str, Callable[[Node], nn.Module]] = {
            "Conv": self._convolution,
            "Gemm": self._linear,
            "BatchNormalization": self._batch_norm,
            "PRelu": self._prelu,
        }
        if node.op not in makers:
            raise CheckpointError(
                f"the student has a new {node.op} at {shown(node.name)}, for which load_into "
                "knows no module; add it to the module's own code first"
            )
        return makers[node.op](node)

    def _convolution(self, node: Node) -> nn.Module:
        rows, columns, *kernel = self._sizes(node.inputs[1])
        strides, dilations, before, after = window(node, len(kernel))
        if before != after or len(kernel) not in CONVOLUTIONS:
            raise CheckpointError(
                f"the new convolution {shown(node.name)} pads its sides differently; "
                "torch's own modules cannot do that"
            )
        group = node.get("group", 1)
        return CONVOLUTIONS[len(kernel)](
            columns * group,
            rows,
            tuple(kernel),  # type: ignore[arg-type]  # a tuple as long as the class has dimensions
            strides,  # type: ignore[arg-type]  # the same
            before,  # type: ignore[arg-type]  # the same
            dilations,  # type: ignore[arg-type]  # the same
            group,
            bias=bool(node.input(2)),
        )

    def _linear(self, node: Node) -> nn.Module:
        if not node.get("transB", 0):
            raise CheckpointError(
                f"the weight of the new layer {shown(node.name)} lies transposed; nn.Linear holds "
                "it as [out, in]"
            )
        outputs, inputs = self._sizes(node.inputs[1])
        return nn.Linear(inputs, outputs, bias=bool(node.input(2)))

    def _batch_norm(self, node: Node) -> nn.Module:
        spatial = len(self._shapes[node.inputs[0]]) - 2
        (width,) = self._sizes(node.inputs[1])
        return BATCH_NORMS[spatial](width, eps=node.get("epsilon", EPSILON))

    def _prelu(self, node: Node) -> nn.Module:
        return nn.PReLU(math.prod(self._sizes(node.inputs[1])))

    def _sizes(self, name: str) -> Sequence[int]:
        return self._student.header.shape(name)


def _scalar(name: str, graph: Graph) -> float | None:
    constant: Constant | None = graph.constants.get(name)
    return float(constant.values[0]) if constant is not None else None


def strides_of(node: Node, convolution: _ConvNd) -> tuple[int, ...]:
    """Strides that a node has for a convolution of that many dimensions."""
    return window(node, convolution.weight.dim() - 2)[0]
