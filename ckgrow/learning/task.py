"""What a network is trained on: a batch, and a loss.

Without labels the targets are what the network computes already, plus normal noise of a tenth of
the outputs' deviation: gradients have a random direction, as with any random targets, but the
network begins near a minimum, as a trained one does. So it shows when a step destroys what was
learned. Losses are in units of the noise: they begin near 1 for teacher and student alike. They are
computed in float64, whatever the networks compute in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ckgrow.learning.network import Tensors, Trainee, as_tensor
from ckgrow.verdict.interface import Interface

NOISE = 0.1
IGNORED = -100
"""The class of a sample that a network has no output for."""

Loss = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Task:
    """``loss(outputs)`` of a network that was fed ``inputs``."""

    inputs: Tensors
    loss: Loss


def batch_of(arrays: Mapping[str, np.ndarray], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The arrays in ``dtype``."""
    return {name: as_tensor(array, dtype) for name, array in arrays.items()}


def random_tasks(
    teacher: Trainee,
    student: Trainee,
    inputs: tuple[Tensors, Tensors],
    interface: Interface,
    seed: int,
) -> tuple[Task, Task]:
    """Near what each network computes, with the same noise for both."""
    with torch.no_grad():
        before, after = _doubled(teacher(inputs[0])), _doubled(student(inputs[1]))
    generator = torch.Generator().manual_seed(seed)
    targets: tuple[dict[str, torch.Tensor], ...] = ({}, {})
    scales: dict[str, float] = {}
    for name, made in after.items():
        noise = torch.randn(made.shape, generator=generator, dtype=torch.float64)
        deviation = float(before.get(name, made).std())
        scales[name] = NOISE * deviation if deviation > 0 else 1.0
        targets[1][name] = made + scales[name] * noise
        if name in before:
            old = interface.old(name, noise.numpy(), tuple(before[name].shape))
            targets[0][name] = before[name] + scales[name] * torch.from_numpy(old)
    return (
        Task(inputs[0], _squares(targets[0], scales)),
        Task(inputs[1], _squares(targets[1], scales)),
    )


def labelled_tasks(
    labels: Mapping[str, np.ndarray], inputs: tuple[Tensors, Tensors]
) -> tuple[Task, Task]:
    """Cross-entropy for class indices, mean square for arrays of the outputs' shapes."""
    kept = {name: torch.from_numpy(array) for name, array in labels.items()}
    return Task(inputs[0], _of_labels(kept)), Task(inputs[1], _of_labels(kept))


def _squares(targets: Tensors, scales: Mapping[str, float]) -> Loss:
    def loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        made = _doubled(outputs)
        terms = [
            ((made[name] - target) / scales[name]).square().mean()
            for name, target in targets.items()
        ]
        return torch.stack(terms).sum()

    return loss


def _of_labels(labels: Tensors) -> Loss:
    def loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        made = _doubled(outputs)
        return torch.stack([_term(made[name], each) for name, each in labels.items()]).sum()

    return loss


def _doubled(outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: each.double() for name, each in outputs.items()}


def _term(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    functional = torch.nn.functional
    if label.is_floating_point():  # on the channels that both have
        shared = tuple(slice(min(sizes)) for sizes in zip(output.shape, label.shape, strict=True))
        return functional.mse_loss(output[shared], label[shared])
    known = torch.where(label < output.shape[1], label.long(), IGNORED)
    return functional.cross_entropy(output, known, ignore_index=IGNORED)
