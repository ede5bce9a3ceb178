"""The students of benchmarks/verdict.py: five networks, grown by many methods, in three dtypes.

A teacher's tensors are random, BatchNorm's statistics included, and drawn from a seed. Files are
written by ``ckgrow.apply``, and opened as ``ckgrow verify`` opens them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file
from student_oracles import on_meta, random_state
from torch import nn

import ckgrow
from ckgrow.loading import Loaded, Wish, load

Steps = Sequence[Mapping[str, Any]]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Subject:
    """A network: its module, the size of a sample, and the specs that it is grown by."""

    make: Callable[[], nn.Module]
    size: tuple[int, ...]
    recipes: Mapping[str, Steps]
    options: Mapping[str, Any]

    def module(self) -> nn.Module:
        """Without memory of its own: it computes on the tensors that it is given."""
        return on_meta(self.make)


@dataclass(frozen=True)
class Case:
    """One student: which network, in which dtype, grown how, from which seeds.

    ``shrink`` divides the widths of the large networks.
    """

    network: str
    recipe: str
    dtype: str
    teacher_seed: int
    spec_seed: int
    shrink: int = 1

    @property
    def subject(self) -> Subject:
        """The network that is grown."""
        return SUBJECTS[self.network]

    @property
    def next_recipe(self) -> str:
        """Another spec for the same network."""
        names = list(self.subject.recipes)
        return names[(names.index(self.recipe) + 1) % len(names)]

    @property
    def teacher_name(self) -> str:
        """What the teacher's file is called; students of one teacher share it."""
        return f"{self.network}-{self.dtype}-{self.teacher_seed}.safetensors"

    @property
    def student_name(self) -> str:
        """What the student's file is called."""
        recipe = self.recipe.replace(" ", "-").replace(":", "")
        return f"{recipe}-{self.spec_seed}-of-{self.teacher_name}"

    def opened(self, folder: Path) -> tuple[Loaded, Loaded]:
        """Teacher and student, whose files are made in ``folder`` if they are not there yet."""
        teacher, student = folder / self.teacher_name, folder / self.student_name
        subject = self.subject
        options = dict(subject.options)
        if not teacher.exists():
            state = random_state(subject.module(), self.teacher_seed, self._shrink)
            kind = DTYPES[self.dtype]
            save_file(
                {n: t.to(kind) if t.is_floating_point() else t for n, t in state.items()}, teacher
            )
        if not student.exists():
            steps = [dict(step) for step in subject.recipes[self.recipe]]
            spec = {"seed": self.spec_seed, "teacher": {"options": options}, "steps": steps}
            ckgrow.apply(teacher, spec, student, check=False)
        wish = Wish(options=options)
        return load(teacher, wish), load(student, Wish())

    @property
    def _shrink(self) -> int:
        return self.shrink if self.network in LARGE else 1


def chain(*widths: int) -> nn.Module:
    """Linear layers with ReLU in between."""
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*[each for layer in layers for each in (layer, nn.ReLU())][:-1])


def convnet() -> nn.Module:
    """Three convolutions with BatchNorm, two pools, three dense layers."""
    norm = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    norm += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    norm += [nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)]
    return nn.Sequential(*norm, nn.Flatten(), *dense)


def widened(pattern: str, *, method: str = "net2wider", **size: Any) -> dict[str, Any]:
    """A step of that verb."""
    return {"widen": pattern, "method": method, **size}


def widenings(pattern: str, **more: Steps) -> dict[str, Steps]:
    """One spec for each method that widens, and others."""
    half, twice = {"factor": 1.5}, {"factor": 2}
    return {
        "net2wider": [widened(pattern, **half)],
        "net2wider select": [widened(pattern, split="select", **twice)],
        "r2wider": [widened(pattern, method="r2wider", **twice)],
        "netmorph": [widened(pattern, method="netmorph", **half)],
        "symmetric": [widened(pattern, method="symmetric", **twice)],
        "diagonal": [widened(pattern, method="diagonal", **twice)],
        "envelope": [widened(pattern, method="envelope", **half)],
        **more,
    }


def deepened(pattern: str, method: str, **more: Any) -> dict[str, Any]:
    """A step of that verb."""
    return {"deepen": pattern, "method": method, **more}


def residual(widen: str, fold: str, kernel: str) -> dict[str, Steps]:
    """The specs for a ResNet."""
    return {
        "net2wider": [widened(widen, factor=1.5)],
        "zero-init": [deepened("layer2", "zero-init", blocks=1)],
        "r2wider": [widened(widen, method="r2wider", factor=1.5)],
        "fold": [widened(fold, method="fold", factor=1.25)],
        "netmorph": [widened(widen, method="netmorph", factor=1.5)],
        "symmetric": [widened(widen, method="symmetric", factor=2)],
        "r2deeper": [deepened("layer3", "r2deeper", blocks=1)],
        "diagonal": [widened(widen, method="diagonal", factor=2)],
        "stream, then block": [
            widened("layer1.0.conv1", factor=1.5),
            widened("layer2.*", factor=1.25),
            deepened("layer2", "zero-init", blocks=1),
        ],
        "envelope": [widened(widen, method="envelope", factor=1.5)],
        "net2deeper": [deepened(kernel, "net2deeper")],
        "kernel": [{"kernel": kernel, "to": 5}, widened(kernel, factor=1.5)],
    }


SUBJECTS: Mapping[str, Subject] = {
    "mlp": Subject(
        lambda: chain(16, 24, 24, 16, 10),
        (16,),
        widenings(
            "*",
            deeper=[deepened("2", "net2deeper")],
            r2deeper=[deepened("2", "r2deeper")],
            factors=[deepened("2", "netmorph")],
            both=[widened("2", factor=1.5), widened("4", by=8), deepened("2", "r2deeper")],
        ),
        {"activation": "relu"},
    ),
    "convnet": Subject(
        convnet,
        (3, 8, 8),
        widenings(
            "*",
            net2deeper=[deepened("4", "net2deeper")],
            r2deeper=[deepened("4", "r2deeper")],
            factors=[deepened("4", "netmorph")],
            kernel=[{"kernel": "4", "to": 5}, widened("*", factor=1.5)],
            branch=[{"branch": "7", "width": 8}, widened("7", factor=1.5)],
        ),
        {"input": [3, 8, 8], "pool": {"0": "max 2", "7": "max 2"}, "activation": "relu"},
    ),
    "resnet18": Subject(
        torchvision.models.resnet18,
        (3, 64, 64),
        residual("layer*.conv1", "layer2.0.conv2", "layer1.0.conv1"),
        {"input": [3, 64, 64]},
    ),
    "resnet50": Subject(
        torchvision.models.resnet50,
        (3, 64, 64),
        residual("layer[34].*.conv2", "layer2.0.conv3", "layer1.0.conv2"),
        {"input": [3, 64, 64]},
    ),
    "googlenet": Subject(
        lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False),
        (3, 64, 64),
        widenings(
            "inception4*",
            net2deeper=[deepened("inception3a.branch2.1.conv", "net2deeper")],
            everything=[widened("*", factor=1.25)],
            appended=[
                {"branch": "inception4a.branch2.1.conv", "at": "concat", "width": 32},
                widened("inception4a.branch1.conv", factor=1.5),
            ],
        ),
        {"input": [3, 64, 64]},
    ),
}
LARGE = ("resnet18", "resnet50", "googlenet")
SINGLE_ONLY = ("factors",)
"""Recipes that are approximate in bfloat16 and float16: float32 students only."""


def cases(network: str, count: int, shrink: int = 1) -> list[Case]:
    """The first ``count`` students of a network: methods in turn, then dtypes, then seeds."""
    recipes, kinds = list(SUBJECTS[network].recipes), list(DTYPES)
    found = []
    for number in range(count):
        rounds, which = divmod(number, len(recipes))
        # neighbours differ in dtype, and a method meets another one in every round
        dtype = "float32" if recipes[which] in SINGLE_ONLY else kinds[(number + rounds) % 3]
        found.append(Case(network, recipes[which], dtype, number % 3, number, shrink))
    return found


@cache
def stock(network: str) -> nn.Module:
    """The network's own module, for its forward."""
    return SUBJECTS[network].module()


def whole(loaded: Loaded) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint."""
    return {name: loaded.tensor(name) for name in loaded.header}
