"""Whether a student can learn, by torch's own gradients on its graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from student_oracles import Student

from ckgrow.graph import Graph
from ckgrow.ops import rule

Tensors = Mapping[str, torch.Tensor]


def forward(graph: Graph, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """The graph's first output, differentiable in ``tensors``."""
    values = {next(iter(graph.inputs)): x}

    def value(name: str) -> torch.Tensor:
        if name in values:
            return values[name]
        if name in tensors:
            return tensors[name]
        array = torch.from_numpy(graph.constants[name].array())
        return array.double() if array.is_floating_point() else array

    for node in graph.nodes:
        made = rule(node.op).evaluate(node, [value(name) for name in node.inputs if name])
        values.update(zip(node.outputs, made, strict=True))
    return values[graph.outputs[0]]


def trainable(student: Student) -> dict[str, torch.Tensor]:
    return {
        name: tensor.double().requires_grad_("running_" not in name)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in student.tensors.items()
    }


def loss_of(student: Student, tensors: Tensors, seed: int = 0) -> torch.Tensor:
    """Against random targets on random inputs."""
    generator = torch.Generator().manual_seed(seed)
    (shape,) = student.plan.graph.inputs.values()
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    x = torch.randn((64, *sizes), generator=generator, dtype=torch.double)
    made = forward(student.plan.graph, tensors, x)
    wanted = torch.randn(made.shape, generator=generator, dtype=torch.double)
    return ((made - wanted) ** 2).mean()


def unit_rank(student: Student, layer: str, reader: str) -> int:
    """Rank of the units' gradients [dW_in | db | dW_out]: how many can part from the others."""
    tensors = trainable(student)
    loss_of(student, tensors).backward()
    incoming = tensors[f"{layer}.weight"].grad.flatten(1)
    bias = tensors[f"{layer}.bias"].grad[:, None]
    outgoing = tensors[f"{reader}.weight"].grad.transpose(0, 1).flatten(1)
    rows = torch.cat([incoming, bias, outgoing], dim=1)
    return int(torch.linalg.matrix_rank(rows, rtol=1e-9))


def unmoved(student: Student, steps: int = 3, rate: float = 1e-2) -> list[str]:
    """Tensors none of whose new entries moves within a few steps of gradient descent.

    New are entries that no weight of the teacher stands in.
    """
    tensors = trainable(student)
    learned = [each for each in tensors.values() if each.requires_grad]
    start = {name: each.detach().clone() for name, each in tensors.items()}
    optimizer = torch.optim.SGD(learned, lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(student, tensors, seed=step).backward()
        optimizer.step()
    old = set(student.plan.draft.names.values())
    still: list[str] = []
    for name, tensor in tensors.items():
        new = torch.ones(tensor.shape, dtype=torch.bool)
        kept = student.plan.draft.recipes[name].kept()
        if kept is not None and name in old:
            new[np.ix_(*kept)] = False
        changed = tensor.detach() != start[name]
        if tensor.requires_grad and new.any() and not (changed & new).any():
            still.append(name)
    return still
