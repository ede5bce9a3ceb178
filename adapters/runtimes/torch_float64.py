"""Torch in float64: the arbiter that says how much of a difference is rounding.

The graph is walked in order, each op by its rule in ``ckgrow.ops``; nothing is shared with ONNX
Runtime. A parameter is read when a node needs it and dropped afterwards, a value is dropped after
its last use, so memory holds a few activations and one layer's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ckgrow.errors import CheckpointError
from ckgrow.graph import Graph, Node
from ckgrow.header import NUMBER_DTYPES, Header
from ckgrow.names import shown
from ckgrow.ops import rule


def label() -> str:
    """What is printed of this runtime."""
    version = ".".join(torch.__version__.split(".")[:2])
    return f"PyTorch {version} (float64, CPU)"


class Session:
    """A graph with its weights, ready to run.

    ``read(name)`` returns a whole tensor in its stored dtype and is called in every ``run``, once
    per node that needs it. ``fetch`` names values that ``run`` returns besides the outputs.
    """

    def __init__(
        self,
        graph: Graph,
        header: Header,
        read: Callable[[str], np.ndarray],
        fetch: Sequence[str] = (),
    ) -> None:
        self._graph = graph
        self._read = read
        self._wanted = tuple(dict.fromkeys((*graph.outputs, *fetch)))
        self._last_readers = {
            name: node.name for node in graph.nodes for name in node.inputs if name
        }
        values = {*graph.inputs, *(value for node in graph.nodes for value in node.outputs)}
        for name in self._wanted:
            if name not in values:
                raise CheckpointError(f"the graph has no value {shown(name)} to fetch")
        for name in graph.parameters():
            if name not in header:
                raise CheckpointError(f"the checkpoint has no tensor {shown(name)}")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs (and fetched values) for a batch, in float64."""
        values: dict[str, torch.Tensor] = {}
        for name in self._graph.inputs:
            if name not in inputs:
                raise CheckpointError(f"there is no array for the graph input {shown(name)}")
            values[name] = _double(inputs[name])
        with torch.inference_mode():
            for node in self._graph.nodes:
                values.update(zip(node.outputs, self._evaluate(node, values), strict=True))
                for name in {*node.inputs, *node.outputs} - {*self._wanted}:
                    if self._last_readers.get(name, node.name) == node.name:
                        values.pop(name, None)
            return {name: values[name].numpy() for name in self._wanted}

    def _evaluate(self, node: Node, values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        tensors = [self._tensor(name, values) for name in node.inputs if name]
        try:
            return rule(node.op).evaluate(node, tensors)
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as failure:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise CheckpointError(
                f"{node.op} {shown(node.name)} cannot be computed on shapes {shapes}: "
                f"{' '.join(str(failure).split())}"
            ) from failure

    def _tensor(self, name: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if name in values:
            return values[name]
        if name in self._graph.constants:
            return _double(self._graph.constants[name].array())
        return _double(self._read(name))


def _double(array: np.ndarray) -> torch.Tensor:
    """Floating point as float64, in memory of its own; integers as they are."""
    if array.dtype.name in NUMBER_DTYPES:
        return torch.from_numpy(array.astype(np.float64, order="C"))
    return torch.from_numpy(array.copy())
