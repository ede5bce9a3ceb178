"""Every spec in specs/ grows its teacher into the same function, as plain torch modules find.

The student's tensors run in modules of train.py, extended by hand where the spec deepens.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from shipped import SPECS, TEACHERS, training
from torch import nn
from torch.func import functional_call
from torch.nn import functional

import ckgrow

train = training()


class DeeperResnet(train.Resnet):
    def __init__(self):
        super().__init__()
        for stage, width in ((self.layer1, 16), (self.layer2, 32), (self.layer3, 64)):
            stage.append(train.BasicBlock(width, width, 1))


class DeeperMlp(nn.Sequential):
    def __init__(self):
        layers = [nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 32)]
        super().__init__(*(each for layer in layers for each in (layer, nn.ReLU())))
        self.append(nn.Linear(32, 10))

    def forward(self, x):
        return super().forward(x.flatten(1))


class DeeperConvnet(train.Convnet):
    def __init__(self):
        super().__init__()
        self.conv1_grown1 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv3_grown1 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc1_grown1 = nn.Linear(48, 48)

    def forward(self, x):
        relu, pool = functional.relu, functional.max_pool2d
        x = pool(relu(self.conv1_grown1(relu(self.conv1(x)))), 2)
        x = pool(relu(self.conv2(x)), 2)
        x = relu(self.conv3_grown1(relu(self.conv3(x))))
        x = relu(self.fc1(x.flatten(1)))
        return self.fc2(relu(self.fc1_grown1(x)))


class BranchedConvnet(train.Convnet):
    """A 5 x 5 kernel, a path beside conv3, and a residual block behind fc1."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(16, 24, 5, padding=2)
        self.conv3_grown1 = nn.Sequential(
            nn.Conv2d(24, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1)
        )
        self.fc1_grown1 = nn.Module()
        self.fc1_grown1.branch = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48))

    def forward(self, x):
        relu, pool = functional.relu, functional.max_pool2d
        x = pool(relu(self.conv1(x)), 2)
        x = pool(relu(self.conv2(x)), 2)
        x = relu(self.conv3(x) + self.conv3_grown1(x))
        x = relu(self.fc1(x.flatten(1)))
        return self.fc2(x + self.fc1_grown1.branch(x))


class LifelongResnet(train.Resnet):
    """A second input channel, about which the old classes know nothing."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 16, 3, padding=1, bias=False)
        self.fc = nn.Linear(64, 12)

    def forward(self, x):
        return super().forward(torch.cat([x, torch.sin(7 * x)], dim=1))[:, :10]


# by spec: the teacher's class, the student's, and widths that the spec's comments promise
CASES = {
    "widen_resnet": (
        train.Resnet,
        DeeperResnet,
        {"conv1": 20, "layer1.0.conv1": 24, "layer2.0.downsample.0": 40, "layer3.2.conv1": 96},
    ),
    "widen_inception": (
        train.Inception,
        train.Inception,
        {"conv1.conv": 24, "inception3a.branch3.0.conv": 6, "inception4a.branch2.1.conv": 48},
    ),
    "widen_mlp": (train.Mlp, train.Mlp, {"0": 72, "2": 48}),
    "deepen_mlp": (train.Mlp, DeeperMlp, {"0": 48, "2": 96, "4": 32}),
    "deepen_convnet": (
        train.Convnet,
        DeeperConvnet,
        {"conv1_grown1": 16, "conv3": 48, "conv3_grown1": 48, "fc1": 64, "fc1_grown1": 48},
    ),
    "branch_convnet": (train.Convnet, BranchedConvnet, {"conv2": 24, "conv3_grown1.0": 8}),
    "lifelong_resnet": (train.Resnet, LifelongResnet, {"fc": 12, "layer3.1.conv1": 96}),
}


def test_every_spec_is_tried():
    assert {path.stem for path in SPECS.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_student_computes_the_same_in_torch(name, tmp_path):
    before, after, widths = CASES[name]
    file = f"{name.partition('_')[2]}.safetensors"
    done = ckgrow.apply(TEACHERS / file, SPECS / f"{name}.yaml", tmp_path / file)
    assert done.status == "written"

    student = load_file(tmp_path / file)
    assert {layer: len(student[f"{layer}.weight"]) for layer in widths} == widths
    images = train.digits(test=True)[0].double()
    expected = outputs(before(), load_file(TEACHERS / file), images)
    difference = (outputs(after(), student, images) - expected).abs().max()
    assert difference <= 1e-12 * expected.abs().max()


def outputs(module, tensors, images):
    """In float64; the tensors must be exactly the module's own, whatever their widths."""
    exact = {name: each.double() for name, each in tensors.items()}
    with torch.no_grad():
        return functional_call(module.double().eval(), exact, (images,), strict=True)
