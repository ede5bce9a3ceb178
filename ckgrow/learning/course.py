"""A few steps of gradient descent, and how long they may be.

The rate is the teacher's to choose: half of the first of c, c/2, c/4, ... at which the teacher's
own loss falls in every step, where a step of c would lower it by a tenth if it were linear. So a
rate that is too large is not blamed on the student, and none depends on the scale of weights or
losses. (Half, because a loss is steeper in more weights: twice the units, about twice.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ckgrow.learning.network import Trainee
from ckgrow.learning.task import Task

STEPS = 3
FIRST = 0.1
"""The part of the loss that the first rate to be tried would take away."""
SHORTER = 2.0
TRIALS = 20
MARGIN = 0.5

Observe = Callable[[int, dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Course:
    """The loss before and after every step, while it is finite, and the first gradient's norm."""

    losses: tuple[float, ...]
    gradient: float

    @property
    def falls(self) -> bool:
        """Whether the loss is lower after every step than before it."""
        pairs = zip(self.losses, self.losses[1:], strict=False)
        return len(self.losses) == STEPS + 1 and all(b < a for a, b in pairs)


def train(
    network: Trainee,
    task: Task,
    rate: Callable[[float, float], float],
    observe: Observe = lambda step, gradients: None,
    *,
    only_falling: bool = False,
) -> Course:
    """Trains ``network`` for three steps; ``observe`` sees the gradients of each.

    ``rate(loss, gradient)`` is asked once, before the first step. ``only_falling`` stops when the
    loss does not fall.
    """
    losses: list[float] = []
    gradient = step_size = 0.0
    for step in range(STEPS + 1):
        loss = task.loss(network(task.inputs))
        losses.append(float(loss.detach()))
        risen = step > 0 and not losses[-1] < losses[-2]
        if step == STEPS or not math.isfinite(losses[-1]) or (only_falling and risen):
            break
        gradients = network.gradients(loss)
        if step == 0:
            gradient = math.sqrt(sum(float(each.square().sum()) for each in gradients.values()))
            step_size = rate(losses[0], gradient)
        observe(step, gradients)
        with torch.no_grad():
            for name, weight in network.weights.items():
                weight -= step_size * gradients[name]
    return Course(tuple(losses), gradient)


def safe_rate(make: Callable[[], Trainee], task: Task) -> float:
    """The rate for the teacher ``make`` makes; 0 where it receives no gradient."""
    for trial in range(TRIALS):
        rate = _Falling(1 / SHORTER**trial)
        course = train(make(), task, rate, only_falling=True)
        if course.falls:
            break
    return rate.chosen * MARGIN


@dataclass
class _Falling:
    """The rate at which a linear loss would fall by a part of FIRST; remembers it."""

    part: float
    chosen: float = 0.0

    def __call__(self, loss: float, gradient: float) -> float:
        self.chosen = FIRST * loss / gradient**2 * self.part if gradient else 0.0
        return self.chosen
