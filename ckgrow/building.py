"""Emits a graph node by node: what an architecture adapter writes with.

Values are named after the nodes that make them. Layers are read off the header: a bias is used
where the checkpoint has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ckgrow.graph import Attribute, Constant, Graph, Node, Shape
from ckgrow.header import Header
from ckgrow.ops import Site, rule


class Builder:
    """Collects nodes; every method returns the name of the value it made."""

    def __init__(self, header: Header, inputs: Mapping[str, Shape]) -> None:
        self._header = header
        self._inputs = dict(inputs)
        self._nodes: list[Node] = []
        self._constants: dict[str, Constant] = {}
        self._shapes: dict[str, Shape] = dict(inputs)

    def shape(self, value: str) -> Shape:
        """The shape of a value made so far."""
        return self._shapes[value]

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[str],
        *,
        output: str = "",
        **attributes: Attribute,
    ) -> str:
        """Any op with one output; the value is called ``output``, or like the node."""
        return self._emit(op, name, inputs, output or self._free(name), attributes)

    def constant(self, name: str, values: object, dtype: str = "int64") -> str:
        """A constant input of a node."""
        self._constants[name] = Constant.of(values, dtype)
        self._shapes[name] = self._constants[name].shape
        return name

    def conv(
        self,
        name: str,
        x: str,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
    ) -> str:
        """A convolution with ``name.weight`` and perhaps ``name.bias``; groups by shape."""
        weight = self._header.shape(f"{name}.weight")
        spatial = len(weight) - 2
        channels = self._shapes[x][1]
        group = channels // weight[1] if isinstance(channels, int) and weight[1] else 1
        pads = _each(padding, spatial)
        return self.node(
            "Conv",
            name,
            [x, f"{name}.weight", *self._bias(name)],
            strides=_each(stride, spatial),
            pads=(*pads, *pads),
            dilations=_each(dilation, spatial),
            group=max(group, 1),
            kernel_shape=weight[2:],
        )

    def linear(self, name: str, x: str, *, output: str = "") -> str:
        """A linear layer with weight "out in" and perhaps a bias."""
        inputs = [x, f"{name}.weight", *self._bias(name)]
        return self.node("Gemm", name, inputs, output=output, transB=1)

    def batch_norm(self, name: str, x: str, *, epsilon: float = 1e-5) -> str:
        """A BatchNorm in eval mode with torch's four names."""
        names = ("weight", "bias", "running_mean", "running_var")
        inputs = [x, *(f"{name}.{part}" for part in names)]
        return self.node("BatchNormalization", name, inputs, epsilon=epsilon)

    def pool(
        self,
        op: str,
        name: str,
        x: str,
        kernel: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...],
        padding: int | tuple[int, ...] = 0,
        **attributes: Attribute,
    ) -> str:
        """MaxPool or AveragePool; further attributes as in ONNX (ceil_mode, ...)."""
        spatial = len(self._shapes[x]) - 2
        pads = _each(padding, spatial)
        window: dict[str, Attribute] = {
            "kernel_shape": _each(kernel, spatial),
            "strides": _each(stride, spatial),
            "pads": (*pads, *pads),
        }
        return self._emit(op, name, [x], self._free(name), {**window, **attributes})

    def adaptive_average_pool(self, name: str, x: str, size: tuple[int, int]) -> str:
        """Adaptive average pooling: one constant matrix per spatial axis says it exactly."""
        height, width = (int(side) for side in self._shapes[x][2:])
        if (height, width) == tuple(size):
            return x
        if tuple(size) == (1, 1):
            return self.node("GlobalAveragePool", name, [x])
        rows = self.constant(f"{name}/rows", _averaging(height, size[0]), "float64")
        columns = self.constant(f"{name}/columns", _averaging(width, size[1]).T, "float64")
        inner = self.node("MatMul", f"{name}/over_width", [x, columns])
        return self.node("MatMul", name, [rows, inner])

    def graph(self, *outputs: str) -> Graph:
        """The finished, checked graph."""
        constants = dict(self._constants)
        return Graph(dict(self._inputs), tuple(outputs), tuple(self._nodes), constants).check()

    def _bias(self, name: str) -> list[str]:
        return [f"{name}.bias"] if f"{name}.bias" in self._header else []

    def _free(self, name: str) -> str:
        """A value's name: its node's, unless something else (a graph input) is called that."""
        while name in self._shapes:
            name += "/value"
        return name

    def _emit(
        self,
        op: str,
        name: str,
        inputs: Sequence[str],
        output: str,
        attributes: Mapping[str, Attribute],
    ) -> str:
        node = Node(op, name, tuple(inputs), (output,), dict(attributes))
        for each in node.inputs:
            if each and each not in self._shapes and each in self._header:
                self._shapes[each] = self._header.shape(each)
        site = Site.of(node, self._shapes, self._constants)
        self._shapes.update(zip(node.outputs, rule(op).shapes(site), strict=True))
        self._nodes.append(node)
        return output


def _each(value: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _averaging(size: int, target: int) -> np.ndarray:
    """The "target size" matrix whose row i averages entries floor(i s/t) to ceil((i+1) s/t)."""
    matrix = np.zeros((target, size))
    for row in range(target):
        start, stop = row * size // target, -(-(row + 1) * size // target)
        matrix[row, start:stop] = 1.0 / (stop - start)
    return matrix
