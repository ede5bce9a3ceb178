"""load_into: layers, residual blocks and paths that grew beside one and the same layer.

What is computed behind the layer is written by hand here, for random tensors: new parts start as
the identity or as nothing, which would hide that they run in a wrong order or not at all.
"""

from __future__ import annotations

from typing import Any

import pytest
from architecture_oracles import randomized
from student_oracles import deviation, images
from torch import nn
from torch.nn import functional

import ckgrow
from ckgrow.errors import CheckpointError

SIZE = (3, 6, 6)
NETMORPH = {"deepen": "conv1", "method": "netmorph"}
P_ACTIVATION = {**NETMORPH, "activation": "p-activation"}
BLOCK = {"deepen": "conv1", "method": "zero-init"}
IDENTITY = {"deepen": "conv1", "method": "net2deeper"}
PATH = {"branch": "conv1"}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.fc = nn.Conv2d(4, 5, 3, padding=1), nn.Linear(5, 3)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.fc(functional.relu(self.conv2(x)).mean((2, 3)))


class ByHand:
    """A student's tensors, and the layers that they are of."""

    def __init__(self, tensors):
        self.tensors = tensors

    def conv(self, name, x):
        weight = self.tensors[f"{name}.weight"]
        return functional.conv2d(x, weight, self.tensors.get(f"{name}.bias"), padding="same")

    def norm(self, name, x):
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(self.tensors[f"{name}.{part}"] for part in parts))

    def prelu(self, name, x):
        return functional.prelu(x, self.tensors[f"{name}.weight"])

    def block(self, name, x):
        return x + self.conv(f"{name}.branch.1", self.conv(f"{name}.branch.0", x))

    def rectified_block(self, name, x):
        inside = self.norm(f"{name}.branch.1", self.conv(f"{name}.branch.0", x))
        return x + self.conv(f"{name}.branch.3", functional.relu(inside))

    def path(self, name, x):
        inside = self.conv(f"{name}.0", x)
        prelu = f"{name}.1.weight" in self.tensors
        inside = self.prelu(f"{name}.1", inside) if prelu else functional.relu(inside)
        return self.conv(f"{name}.2", inside)

    def output(self, x):
        x = functional.relu(self.conv("conv2", x)).mean((2, 3))
        return functional.linear(x, self.tensors["fc.weight"], self.tensors["fc.bias"])


def rectified(student, x):
    return functional.relu(student.norm("bn1", x))


def block_in_front_of_a_layer(s, x):
    return rectified(s, s.conv("conv1_grown1", s.block("conv1_grown2", s.conv("conv1", x))))


def path_in_front_of_a_layer(s, x):
    total = s.conv("conv1", x) + s.path("conv1_grown2", x)
    return rectified(s, s.conv("conv1_grown1", total))


def path_in_front_of_an_activation(s, x):
    total = s.conv("conv1", x) + s.path("conv1_grown2", x)
    return rectified(s, s.conv("conv1_grown1", s.prelu("conv1_prelu_grown1", total)))


def path_around_a_layer(s, x):
    return rectified(s, s.conv("conv1_grown2", s.conv("conv1", x)) + s.path("conv1_grown1", x))


def path_beside_a_grown_layer(s, x):
    x = s.conv("conv1", x)
    return rectified(s, s.conv("conv1_grown1", x) + s.path("conv1_grown2", x))


def layer_behind_a_block(s, x):
    x = s.rectified_block("conv1_grown2", rectified(s, s.conv("conv1", x)))
    return functional.relu(s.norm("bn1_grown1", s.conv("conv1_grown1", x)))


CASES: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "block, then layer": ([NETMORPH, BLOCK], block_in_front_of_a_layer),
    "path, then layer": ([NETMORPH, PATH], path_in_front_of_a_layer),
    "path, then activation": ([P_ACTIVATION, PATH], path_in_front_of_an_activation),
    "path around a layer": ([PATH, NETMORPH], path_around_a_layer),
    "path beside a grown layer": (
        [NETMORPH, {"branch": "conv1_grown1"}],
        path_beside_a_grown_layer,
    ),
    "layer behind a block": ([IDENTITY, BLOCK], layer_behind_a_block),
}


def grow(source, steps, path):
    options: dict[str, Any] = {"input": list(SIZE), "activation": "relu"}
    options |= {"pool": {}, "head": "global-average"}
    spec = {"teacher": {"options": options}, "steps": steps}
    ckgrow.apply(source, spec, path, check=False)
    return path


def assert_computes(module, by_hand, x):
    shaken = randomized(module, seed=5).double().eval()
    tensors = shaken.state_dict()
    student = ByHand(tensors)
    expected, found = student.output(by_hand(student, x)), shaken(x).detach()
    assert deviation([expected], [found]) <= 1e-12


@pytest.mark.parametrize("case", CASES)
def test_what_grew_beside_one_layer_runs_in_the_order_of_the_graph(case, tmp_path):
    steps, by_hand = CASES[case]
    teacher = randomized(Network()).double().eval()
    path = grow(teacher.state_dict(), steps, tmp_path / "student.safetensors")
    module = ckgrow.load_into(Network(), path).double().eval()
    x = images(4, *SIZE).double()
    assert deviation([teacher(x).detach()], [module(x).detach()]) <= 1e-12
    assert_computes(module, by_hand, x)
    ckgrow.load_into(module, path)  # what is there already is not put there once more
    assert_computes(module, by_hand, x)


@pytest.mark.parametrize("case", CASES)
def test_a_student_s_student_goes_where_the_student_was(case, tmp_path):
    (first, second), by_hand = CASES[case]
    state = randomized(Network()).double().state_dict()
    once = grow(state, [first], tmp_path / "once.safetensors")
    twice = grow(once, [second], tmp_path / "twice.safetensors")
    module = ckgrow.load_into(ckgrow.load_into(Network(), once), twice)
    assert_computes(module, by_hand, images(4, *SIZE).double())


class InOneModule(Network):
    """The same layers, the first two as one child: conv1 is no module of it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(self.conv1, self.bn1)
        del self.conv1, self.bn1


def test_a_layer_whose_anchor_is_no_module_is_refused(tmp_path):
    state = randomized(Network()).state_dict()
    path = grow(state, [IDENTITY], tmp_path / "student.safetensors")
    with pytest.raises(CheckpointError, match=r"conv1_grown1 has no place.*bn1, is no module"):
        ckgrow.load_into(InOneModule(), path)
