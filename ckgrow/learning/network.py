"""A throw-away copy of a network that can be trained: its graph in torch, with gradients.

Training mode: BatchNorm on the statistics of the batch, Dropout on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ckgrow.graph import Graph, Node
from ckgrow.header import NUMBER_DTYPES
from ckgrow.ops import rule
from ckgrow.verdict.running import Side
from ckgrow.verdict.training import in_training

Tensors = Mapping[str, torch.Tensor]

DROPPED = 0.5
"""The part that Dropout drops: no checkpoint tells it, and this is ONNX's default."""


class Trainee:
    """Copies of all tensors in ``dtype``; ``weights`` are those that training changes.

    The same units are dropped in every call, so that losses can be compared. ``seed`` chooses them.
    """

    def __init__(self, side: Side, seed: int, dtype: torch.dtype) -> None:
        self.graph = in_training(side.graph)
        fixed = statistics(side.graph)
        self._tensors: dict[str, torch.Tensor] = {}
        for name in side.graph.parameters():
            self._tensors[name] = as_tensor(side.read(name), dtype)
        self.weights = {
            name: each.requires_grad_()
            for name, each in self._tensors.items()
            if each.is_floating_point() and name not in fixed
        }
        for name, constant in side.graph.constants.items():
            self._tensors[name] = as_tensor(constant.array(), dtype)
        self._seed = seed

    def __call__(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """The outputs for a batch, differentiable in the weights."""
        values = {name: inputs[name] for name in self.graph.inputs}
        for number, node in enumerate(self.graph.nodes):
            read = [
                values[name] if name in values else self._tensors[name]
                for name in node.inputs
                if name
            ]
            made = self._evaluated(node, number, read)
            values.update(zip(node.outputs, made, strict=True))
        return {name: values[name] for name in self.graph.outputs}

    def gradients(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of the loss, by weight; zeros for weights that it does not depend on."""
        made = torch.autograd.grad(loss, list(self.weights.values()), materialize_grads=True)
        return dict(zip(self.weights, made, strict=True))

    def _evaluated(
        self, node: Node, number: int, inputs: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        if node.op != "Dropout":
            return rule(node.op).evaluate(node, inputs)
        generator = torch.Generator().manual_seed(self._seed + number)
        kept = torch.rand(inputs[0].shape, generator=generator, dtype=torch.float64) >= DROPPED
        return (inputs[0] * kept / (1 - DROPPED),)


def as_tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """A copy; floating point in ``dtype``, integers as they are."""
    if array.dtype.name not in NUMBER_DTYPES:
        return torch.from_numpy(array.copy())
    return torch.from_numpy(array.astype("float32" if dtype == torch.float32 else "float64"))


def statistics(graph: Graph) -> frozenset[str]:
    """Tensors that are measured, not trained: running means and variances."""
    return frozenset(
        name for node in graph.nodes if node.op == "BatchNormalization" for name in node.inputs[3:5]
    )
