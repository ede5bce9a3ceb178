"""The networks of the matrix of methods: small, random, one of each kind that ckgrow knows by name.

Every network says where in it a step can act: ``inner`` (a layer whose channels stay inside a block
or chain), ``stream`` (a layer on a residual stream), ``branch`` (a layer before a concatenation),
``all``, ``stage``, ``block``. What it lacks is left out, but for ``stage``: asking for blocks where
there are none is a cell of the matrix, and a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torchvision
from student_oracles import on_meta, random_state
from test_architecture_convnet import Digits
from test_architecture_resnet import CifarResNet
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


@dataclass(frozen=True)
class Subject:
    """A network of the matrix: its module, the input of one sample, and places to grow at.

    ``deeper`` makes the module with one block more in the place ``stage``.
    """

    make: Callable[[], nn.Module]
    size: tuple[int, ...]
    places: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    shrink: int = 1
    deeper: Callable[[], nn.Module] | None = None

    def module(self) -> nn.Module:
        """Without memory of its own: it computes on the tensors that it is given."""
        return on_meta(self.make)

    def state(self, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random tensors, statistics of BatchNorm included."""
        return random_state(self.module(), seed, self.shrink)


def chain(*widths: int, activation: Callable[[], nn.Module]) -> nn.Module:
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*[each for layer in layers for each in (layer, activation())][:-1])


def resnet(block: Any, first: int = 2, **arguments: Any) -> Callable[[], nn.Module]:
    return lambda: ResNet(block, [first, 1, 1, 1], num_classes=16, **arguments)


def cifar(option: str, first: int = 2) -> Callable[[], nn.Module]:
    return lambda: CifarResNet((8, 16, 32), (first, 1, 1), option=option)


MLP = {"inner": "2", "all": "*", "stage": "2"}
RESIDUAL = {
    "inner": "layer1.0.conv1",
    "stream": "layer2.0.conv2",
    "all": "*",
    "stage": "layer1",
    "block": "layer1.1",
}
GOOGLENET = {
    "inner": "inception4a.branch2.0.conv",
    "branch": "inception4a.branch2.1.conv",
    "all": "*",
    "stage": "inception4a.branch2.1.conv",
}

SUBJECTS: Mapping[str, Subject] = {
    "mlp relu": Subject(
        lambda: chain(5, 6, 8, 4, activation=nn.ReLU), (5,), MLP, {"activation": "relu"}
    ),
    "mlp tanh": Subject(
        lambda: chain(5, 6, 8, 4, activation=nn.Tanh), (5,), MLP, {"activation": "tanh"}
    ),
    "mlp hardswish": Subject(
        lambda: chain(5, 6, 8, 4, activation=nn.Hardswish), (5,), MLP, {"activation": "hardswish"}
    ),
    "mlp sigmoid": Subject(
        lambda: chain(5, 6, 8, 4, activation=nn.Sigmoid), (5,), MLP, {"activation": "sigmoid"}
    ),
    "convnet": Subject(
        lambda: Digits(positions=6),
        (1, 8, 12),
        {"inner": "conv2", "flatten": "conv3", "all": "*", "stage": "conv2"},
        {
            "input": [1, 8, 12],
            "pool": {"conv1": "max 2", "conv2": "max 2"},
            "activation": "relu",
        },
    ),
    "resnet basic": Subject(
        resnet(BasicBlock), (3, 32, 32), RESIDUAL, shrink=8, deeper=resnet(BasicBlock, 3)
    ),
    "resnet bottleneck": Subject(
        resnet(Bottleneck),
        (3, 32, 32),
        {**RESIDUAL, "stream": "layer2.0.conv3"},
        shrink=8,
        deeper=resnet(Bottleneck, 3),
    ),
    "resnet grouped": Subject(
        resnet(Bottleneck, groups=4, width_per_group=16),
        (3, 32, 32),
        {**RESIDUAL, "stream": "layer2.0.conv3", "grouped": "layer1.0.conv2"},
        shrink=4,
        deeper=resnet(Bottleneck, 3, groups=4, width_per_group=16),
    ),
    "resnet option A": Subject(cifar("A"), (3, 16, 16), RESIDUAL, deeper=cifar("A", 3)),
    "resnet option B": Subject(cifar("B"), (3, 16, 16), RESIDUAL, deeper=cifar("B", 3)),
    "googlenet": Subject(
        lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False, num_classes=16),
        (3, 64, 64),
        GOOGLENET,
        shrink=4,
    ),
    "inception_v3": Subject(
        lambda: torchvision.models.inception_v3(
            init_weights=False, aux_logits=False, num_classes=16
        ),
        (3, 75, 75),
        {
            "inner": "Mixed_5b.branch3x3dbl_1.conv",
            "branch": "Mixed_5b.branch3x3dbl_3.conv",
            "all": "*",
            "stage": "Mixed_5b.branch1x1.conv",
        },
        shrink=4,
    ),
}
