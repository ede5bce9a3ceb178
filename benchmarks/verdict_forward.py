"""The independent judge of benchmarks/verdict.py: plain torch in float64, none of ckgrow's runs.

Where a student has its teacher's layers (it is merely wider), torchvision's own forward computes it
(``functional_call`` on tensors of other widths). Any other student is computed by a list of its
graph's operations, each by the function of torch that is called like it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional

from ckgrow.graph import Graph, Node

Tensors = Mapping[str, torch.Tensor]
Call = Callable[..., torch.Tensor]


def doubles(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors in float64; counters of batches stay whole numbers."""
    return {name: double(array) for name, array in arrays.items()}


def double(array: np.ndarray) -> torch.Tensor:
    """One tensor in float64, in memory of its own."""
    whole = np.issubdtype(array.dtype, np.integer)
    return torch.from_numpy(np.array(array, dtype=array.dtype if whole else np.float64))


def same_layers(teacher: Graph, student: Graph) -> bool:
    """Whether one module's forward computes both."""
    return [_plain(node) for node in teacher.nodes] == [_plain(node) for node in student.nodes]


def _plain(node: Node) -> tuple[Any, ...]:
    return node.op, node.name, node.inputs, node.outputs, dict(node.attributes)


def by_module(module: torch.nn.Module, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """The output of the module's own forward."""
    with torch.inference_mode():
        made: torch.Tensor = functional_call(module, dict(tensors), (x,), strict=True)
    return made


def by_graph(graph: Graph, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """The output of a graph of one input and one output."""
    constants = {name: double(each.array()) for name, each in graph.constants.items()}
    known = {**constants, **dict.fromkeys(graph.inputs, x)}
    with torch.inference_mode():
        for node in graph.nodes:
            inputs = [known[n] if n in known else tensors[n] for n in node.inputs if n]
            known[node.output] = OPS[node.op](node, *inputs)
    (output,) = graph.outputs
    return known[output]


def _conv(node: Node, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
    return functional.conv2d(
        functional.pad(x, (left, right, top, bottom)),
        *parameters,
        stride=node.get("strides", (1, 1)),
        dilation=node.get("dilations", (1, 1)),
        groups=node.get("group", 1),
    )


def _max_pool(node: Node, x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
    kernel, stride = node.attributes["kernel_shape"], node.get("strides", (1, 1))
    if node.get("ceil_mode", 0):
        sizes = zip(x.shape[2:], kernel, stride, (top + bottom, left + right), strict=True)
        # windows begin inside the input or its padding before; what they lack is added behind it
        short = [-(-(n + p - k) // s) * s + k - n - p for n, k, s, p in sizes]
        bottom, right = bottom + max(short[0], 0), right + max(short[1], 0)
    padded = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
    return functional.max_pool2d(padded, kernel, stride)


def _gemm(node: Node, x: torch.Tensor, weight: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, weight if node.get("transB", 0) else weight.T, *bias)


def _batch_norm(node: Node, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    gamma, beta, mean, var = parameters
    return functional.batch_norm(x, mean, var, gamma, beta, eps=node.get("epsilon", 1e-5))


OPS: Mapping[str, Call] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "MaxPool": _max_pool,
    "Relu": lambda node, x: functional.relu(x),
    "PRelu": lambda node, x, slope: torch.where(x >= 0, x, slope * x),
    "Add": lambda node, a, b: a + b,
    "MatMul": lambda node, a, b: a @ b,
    "Concat": lambda node, *parts: torch.cat(parts, node.attributes["axis"]),
    "Flatten": lambda node, x: x.flatten(node.get("axis", 1)),
    "GlobalAveragePool": lambda node, x: x.mean((2, 3), keepdim=True),
    "Dropout": lambda node, x, *ratio: x,
    "Identity": lambda node, x: x,
}
