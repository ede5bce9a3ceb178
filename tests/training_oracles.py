"""What the tests of training share: both sides of a student in memory, and torch's own training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from student_oracles import State, Student
from torch.func import functional_call

from ckgrow.learning.ancestry import Ancestry
from ckgrow.learning.learning import learn
from ckgrow.learning.report import Learning
from ckgrow.memory import MemoryReader
from ckgrow.spec import canonical
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.running import Side


def side(graph: Any, tensors: State) -> Side:
    arrays = {name: each.numpy() for name, each in tensors.items()}
    return Side("test", graph, MemoryReader(arrays).header, arrays.__getitem__)


def sides(student: Student, state: State) -> tuple[Side, Side]:
    plan = student.plan
    return side(plan.teacher.network.graph, state), side(plan.graph, student.tensors)


def ancestry_of(student: Student) -> Ancestry:
    """As the student's file would tell it."""
    plan = student.plan
    layers = {name: each.of for name, each in plan.draft.origins.items() if each.of}
    return Ancestry(plan.kept, layers, tuple(canonical(plan.spec)["steps"]))


def learned(student: Student, state: State, **options: Any) -> Learning:
    interface = Interface(student.plan.draft.interface)
    return learn(*sides(student, state), ancestry_of(student), interface=interface, **options)


def trained(
    module: torch.nn.Module, tensors: State, x: np.ndarray, labels: np.ndarray, rate: float
) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Losses around three steps of torch's SGD on cross-entropy, and the gradients of each.

    The module is in the mode that it is given in; it may be of another width than the tensors.
    """
    doubled = {k: v.double() if v.is_floating_point() else v.clone() for k, v in tensors.items()}
    names = [name for name, _ in module.named_parameters() if name in doubled]
    weights = {name: doubled[name].requires_grad_() for name in names}
    optimizer = torch.optim.SGD(weights.values(), lr=rate)
    losses: list[float] = []
    gradients: list[dict[str, torch.Tensor]] = []
    for step in range(4):
        made = functional_call(module, doubled, (torch.from_numpy(x).double(),))
        loss = torch.nn.functional.cross_entropy(made, torch.from_numpy(labels))
        losses.append(float(loss.detach()))
        if step == 3:
            break
        optimizer.zero_grad()
        loss.backward()
        gradients.append({name: each.grad.clone() for name, each in weights.items()})
        optimizer.step()
    return losses, gradients


def unit_rank(gradients: Mapping[str, torch.Tensor], layer: str, reader: str) -> int:
    """Of [dW_in | db | dW_out], by torch's own singular values."""
    incoming = gradients[f"{layer}.weight"].flatten(1)
    bias = gradients[f"{layer}.bias"][:, None]
    outgoing = gradients[f"{reader}.weight"].transpose(0, 1).flatten(1)
    return int(torch.linalg.matrix_rank(torch.cat([incoming, bias, outgoing], 1), rtol=1e-9))
