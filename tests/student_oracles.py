"""What the tests of students share: teachers with random weights, students made in memory, and
torch's own modules to run both in.

A module may stand on the meta device: ``outputs_of`` gives it all its tensors, of any width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from ckgrow import spec
from ckgrow.draft import Draft
from ckgrow.execute import execute
from ckgrow.graph import Graph
from ckgrow.header import Header, TensorSpec
from ckgrow.loading import Wish, load
from ckgrow.memory import MemoryReader
from ckgrow.planning import Plan, make_plan
from ckgrow.recipes import Recipe

State = Mapping[str, torch.Tensor]
Step = Mapping[str, Any]


@dataclass(frozen=True)
class Student:
    """A plan and what came of it."""

    plan: Plan
    tensors: dict[str, torch.Tensor]


@dataclass
class MemoryWriter:
    """A checkpoint that is written into arrays."""

    header: Header
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, each in self.header.items():
            self.arrays[name] = np.empty(each.shape, each.dtype if each.dtype != "bfloat16" else 2)

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        array = self.arrays[name].reshape(self.header.shape(name) or (1,))
        array[start : start + len(rows)] = rows

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Nothing waits to be flushed."""

    def abandon(self) -> None:
        """Nothing waits to be removed."""


def made(recipes: Mapping[str, Recipe], tensors: Mapping[str, Any], workers: int = 2):
    """The arrays of ``recipes`` over a teacher in memory."""
    writer = MemoryWriter(Header({name: recipe.spec for name, recipe in recipes.items()}))
    execute(recipes, MemoryReader(tensors).read, writer, workers)
    return writer.arrays


def grown(
    state: State, *steps: Step, seed: int = 0, workers: int = 2, **teacher: Any
) -> Student:
    """The student of a teacher in memory; ``teacher`` is that section of a spec."""
    read = spec.from_dict({"seed": seed, "teacher": teacher, "steps": list(steps)})
    with load(state, Wish(read.teacher.architecture, read.teacher.options)) as loaded:
        plan = make_plan(loaded, read)
        prefix = loaded.prefix
    recipes = {prefix + name: recipe for name, recipe in plan.draft.recipes.items()}
    arrays = made(plan.draft.recipes, {n.removeprefix(prefix): t for n, t in state.items()})
    assert arrays.keys() == plan.draft.recipes.keys()
    return Student(plan, {name: torch.from_numpy(arrays[name.removeprefix(prefix)]) for name in recipes})
