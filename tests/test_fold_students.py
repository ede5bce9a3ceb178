"""Students of ``fold``: options, growing again, learning, and torchvision's blocks as the student.

The oracle is the teacher's own module in float64, beside the module that ``load_into`` made.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from student_oracles import deviation, images
from test_architecture_resnet import CifarResNet, PaperResNet
from test_fold import EXACT, fold
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50

import ckgrow
from ckgrow.errors import CheckpointError


def small():
    """Torchvision's blocks, two in each of two stages."""
    return PaperResNet((2, 2), 1 / 8)


def written(tmp_path, constructor, *steps):
    """A teacher and, in files, what each of the steps makes of the one before."""
    torch.manual_seed(0)
    teacher = constructor()
    with torch.no_grad():
        for name, each in teacher.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                each.normal_(0, 0.2)
    files = [tmp_path / "teacher.safetensors"]
    save_file(teacher.state_dict(), files[0])
    for number, step in enumerate(steps):
        files.append(tmp_path / f"student{number}.safetensors")
        spec = {"teacher": {"options": {"input": [3, 32, 32]}}, "steps": [step]}
        spec = spec if number == 0 else {"steps": [step]}
        document = ckgrow.apply(files[-2], spec, files[-1])
        assert document.verify.preserved
    assert document.stock_loadable.startswith("no (")
    return teacher.double().eval(), files


def loaded(constructor, student):
    """A module of the teacher's class as the student, in float64."""
    return ckgrow.load_into(constructor(), student).double().eval()


def assert_same(teacher, module):
    x = images(3, 3, 32, 32).double()
    with torch.no_grad():
        assert deviation([teacher(x)], [module(x)]) <= EXACT


CHAINS = {
    "folded twice, more pairs than channels": (
        fold("layer1.0.conv2", by=4),
        fold("layer1.0.conv2", by=60),
    ),
    "folded, then neighbours": (fold("layer2.0.conv2", by=4), fold("layer2.*.conv2", by=6)),
    "folded, then widened": (fold("layer1.*.conv2", by=4), {"widen": "*", "factor": 1.25}),
    "widened by others, then folded": (
        {"widen": "layer1.0.conv2", "by": 10, "method": "netmorph"},
        fold("layer1.1.conv2", by=4, placement="interleave"),
    ),
    "the last block folded, then deepened": (fold("layer1.1.conv2", by=4), {"deepen": "layer1"}),
    "another block folded, then deepened": (
        fold("layer1.0.conv2", by=4),
        {"deepen": "layer1", "blocks": 2},
    ),
    "deepened, then folded": ({"deepen": "layer2"}, fold("layer2.*.conv2", by=6)),
    "a layer behind the fold": (
        fold("layer1.0.conv2", by=4),
        {"deepen": "layer1.1.fold_grown1", "method": "net2deeper"},
    ),
}


@pytest.mark.parametrize("which", CHAINS)
def test_a_student_grows_again(which, tmp_path):
    teacher, files = written(tmp_path, small, *CHAINS[which])
    assert_same(teacher, loaded(small, files[-1]))


@pytest.mark.parametrize(
    "options",
    [
        {"fill": "copy"},
        {"fill": "zeros"},
        {"fill": "he", "scale": 0.1},
        {"placement": "center"},
        {"placement": "interleave"},
        {"noise": {"kind": "zero-sum", "scale": 0.5}},
    ],
)
def test_options(options, tmp_path):
    step = fold("layer2.*.conv2", by=4, **options)
    teacher, files = written(tmp_path, small, step)
    assert_same(teacher, loaded(small, files[-1]))


def test_statistics_of_pairs_can_be_measured(tmp_path):
    np.savez(tmp_path / "inputs.npz", input=images(8, 3, 32, 32).numpy())
    step = fold("layer2.0.conv2", by=4, calibrate=str(tmp_path / "inputs.npz"))
    teacher, files = written(tmp_path, small, step)
    module = loaded(small, files[-1])
    assert_same(teacher, module)
    for norm in (module.layer2[0].bn2, module.layer2[0].downsample[1]):
        for entries in (norm.running_mean, norm.running_var):
            assert entries[16:18].equal(entries[18:20])
            assert not torch.isin(entries[16:18], torch.tensor([0.0, 1.0]).double()).any()


def test_every_new_parameter_learns(tmp_path):
    teacher, files = written(tmp_path, small, fold("layer2.*.conv2", by=6))
    module = ckgrow.load_into(small(), files[-1]).train()
    before = {name: each.clone() for name, each in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(images(8, 3, 32, 32, seed=step)), torch.arange(8))
        loss.backward()
        optimizer.step()
    old = {name: each.shape for name, each in teacher.named_parameters()}
    compared = 0
    for name, each in module.named_parameters():
        new = torch.ones(each.shape, dtype=torch.bool)
        if name in old:
            new[tuple(slice(size) for size in old[name])] = False
        if new.any():
            moved = (each != before[name])[new].float().mean()
            assert moved > 0.9, f"{name}: {moved:.0%} of what is new have moved"
            compared += 1
    assert compared == 12  # layers, BatchNorms, the shortcut between the two, and what reads them
    rows = module.layer2[0].conv2.weight
    assert not torch.allclose(rows[16:19], rows[19:22])  # the two of a pair part


def test_load_into_keeps_the_state_dict_and_survives_copies(tmp_path):
    teacher, files = written(tmp_path, resnet50, fold("layer1.1.conv3", by=6))
    module = loaded(resnet50, files[-1])
    assert set(module.state_dict()) == set(load_file(files[-1]))
    x = images(2, 3, 32, 32).double()
    with torch.no_grad():
        expected = teacher(x)
        for each in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            before = deviation([expected], [each(x)])
            each.layer1[2].fold_grown1.weight.zero_()
            assert before <= EXACT < deviation([expected], [each(x)])


class WithShortcut(nn.Module):
    """A CIFAR network of which each block has a module on its shortcut, with or without tensors."""

    def __init__(self):
        super().__init__()
        net = CifarResNet((8, 16), (2, 2), option="B")
        for name, child in net.named_children():
            setattr(self, name, child)
        for block in (*self.layer1, *self.layer2):
            if not hasattr(block, "shortcut"):
                block.shortcut = nn.Sequential()

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer2(self.layer1(x)).mean(dim=(2, 3)))


def test_load_into_goes_behind_a_shortcut_without_tensors(tmp_path):
    teacher = WithShortcut().eval()
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    steps = {"steps": [fold("layer*.*", by=6)]}
    ckgrow.apply(tmp_path / "teacher.safetensors", steps, tmp_path / "student.safetensors")
    module = ckgrow.load_into(copy.deepcopy(teacher), tmp_path / "student.safetensors")
    assert_same(teacher.double(), module.double())


def test_load_into_says_what_a_block_without_one_lacks(tmp_path):
    teacher = CifarResNet((8, 16), (2, 2), option="A").eval()
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    steps = {"steps": [fold("layer1.0.conv2", by=6)]}
    ckgrow.apply(tmp_path / "teacher.safetensors", steps, tmp_path / "student.safetensors")
    said = (
        r"layer1\.0\.fold_grown1 stands on a shortcut, and CifarBlock has no module there "
        r"\(downsample, shortcut\).* a child fold_grown1 = nn\.Conv2d\(8, 14, .*bias=False\)"
    )
    with pytest.raises(CheckpointError, match=said):
        ckgrow.load_into(copy.deepcopy(teacher), tmp_path / "student.safetensors")
