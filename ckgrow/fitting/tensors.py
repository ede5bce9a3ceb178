"""Sets a module's parameters and buffers to a student's tensors of any width."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ckgrow.errors import CheckpointError
from ckgrow.fitting.following import follow
from ckgrow.fitting.paths import joined
from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.names import first_few, nearest, shown

COUNTER = "num_batches_tracked"  # checkpoints of before torch 0.4.1 have none


def set_tensors(module: nn.Module, student: Loaded) -> None:
    """Gives a module with the student's keys its tensors, and lets attributes follow.

    Raises CheckpointError when keys or ranks do not fit.
    """
    _check_keys(module, student)
    readers: dict[str, Node] = {
        name: node for node in student.network.graph.nodes for name in node.inputs
    }
    done: dict[int, str] = {}
    for path, each in module.named_modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                key = joined(path, name)
                _set_parameter(parameter, key, student, done)
        for name, buffer in each._buffers.items():
            key = joined(path, name)
            if buffer is not None and key in student.header:
                each._buffers[name] = as_torch(student.tensor(key)).to(buffer.device)
        follow(each, path, readers.get(joined(path, "weight")))


def as_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor of the same dtype, bfloat16 and the like included, in memory of its own."""
    copied = np.array(array, order="C")
    kind = getattr(torch, copied.dtype.name)
    try:
        return torch.from_numpy(copied)
    except TypeError:  # dtypes that torch and numpy share only by their bits
        bits = {1: np.uint8, 2: np.int16}[copied.dtype.itemsize]
        return torch.from_numpy(copied.view(bits)).view(kind)


def _set_parameter(
    parameter: nn.Parameter, key: str, student: Loaded, done: dict[int, str]
) -> None:
    array = student.tensor(key)
    if id(parameter) in done:
        other = done[id(parameter)]
        if not np.array_equal(array, student.tensor(other)):
            raise CheckpointError(
                f"the module shares one tensor between {shown(other)} and {shown(key)}, but they "
                "differ in the student; untie them in the module first"
            )
        return
    done[id(parameter)] = key
    tensor = as_torch(array).to(parameter.device)
    if parameter.shape != tensor.shape or parameter.dtype != tensor.dtype:
        parameter.grad = None
    parameter.data = tensor


def _check_keys(module: nn.Module, student: Loaded) -> None:
    present = module.state_dict()
    header = student.header
    missing = [key for key in present if key not in header and not key.endswith(COUNTER)]
    surplus = [key for key in header if key not in present]
    surplus.sort(key=lambda key: key.endswith(COUNTER))  # what tells most comes first
    if missing or surplus:
        raise CheckpointError(_key_refusal(missing, surplus))
    for key, spec in header.items():
        shape = tuple(present[key].shape)
        if len(shape) != len(spec.shape):
            raise CheckpointError(
                f"{shown(key)} has shape {list(spec.shape)} in the student and {list(shape)} in "
                "the module: it is another kind of layer; give load_into a module of the "
                "teacher's class"
            )
    on_meta = next((key for key, tensor in present.items() if tensor.is_meta), None)
    if on_meta is not None:
        raise CheckpointError(
            f"{shown(on_meta)} is on the meta device; call module.to_empty(device='cpu') first"
        )


def _key_refusal(missing: list[str], surplus: list[str]) -> str:
    said = ["the student does not fit the module"]
    if surplus:
        said.append(
            f"the module has no {first_few([*map(shown, surplus)])}{_nearest(surplus[0], missing)}"
        )
    if missing:
        said.append(f"the student has no {first_few([*map(shown, missing)])}")
    said.append("give load_into a module of the teacher's class, with the same parts")
    return "; ".join(said)


def _nearest(key: str, candidates: list[str]) -> str:
    near = nearest(key, candidates, 1)
    return f" (the nearest is {shown(near[0])})" if near else ""
