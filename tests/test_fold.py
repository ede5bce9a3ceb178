"""``fold``: one volume of a residual stream widened alone.

The oracle has the fold as the paper writes it, x + xL - xR, in blocks that are written out here:
no 1x1 convolution, and none of the tensors that ckgrow puts on the shortcuts.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from student_oracles import (
    assert_same_function,
    deviation,
    grown,
    grown_graph,
    images,
    on_meta,
    outputs_of,
    random_arrays,
    random_state,
)
from test_architecture_resnet import CifarResNet
from test_coupling import case, floats, ints, layer, node
from test_methods import STATED, mlp, option_a
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18, resnet34, resnet50, resnext50_32x4d

import ckgrow
from ckgrow.coupling import couple
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.groups import group_channels

EXACT = 1e-12


def fold(volume, **options):
    return {"widen": volume, "method": "fold", **options}


# The oracle


def folded(x, channels):
    """x + xL - xR of a volume [x; xL; xR]; pairs in excess start again at the first channel."""
    pairs = (x.shape[1] - channels) // 2
    left, right = x[:, channels : channels + pairs], x[:, channels + pairs :]
    parts = list(x[:, :channels].unbind(1))
    for pair in range(pairs):
        parts[pair % channels] = parts[pair % channels] + left[:, pair] - right[:, pair]
    return torch.stack(parts, 1)


def as_wide(shortcut, volume):
    """The shortcut with nothing for the new channels of the volume that it enters."""
    return functional.pad(shortcut, (0, 0, 0, 0, 0, volume.shape[1] - shortcut.shape[1]))


class Folding(nn.Module):
    """The layers of a stock block, whose identity shortcut folds."""

    def __init__(self, block, channels):
        super().__init__()
        for name, child in block.named_children():
            setattr(self, name, child)
        self.channels, self.last = channels, len([n for n in vars(self)["_modules"] if "bn" in n])
        self.pads = getattr(block, "added", 0)

    def forward(self, x):
        y = x
        for number in range(1, self.last + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = functional.relu(y) if number < self.last else y
        own = getattr(self, "downsample", None) or getattr(self, "shortcut", None)
        if own is not None:
            return functional.relu(y + own(x))
        x = folded(x, self.channels)
        if self.pads:
            side = self.pads // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return functional.relu(y + as_wide(x, y))


def folding(module, state):
    """The module with explicit folds; ``state`` is the teacher's, for the streams' widths."""
    module = copy.deepcopy(module)
    before = state["conv1.weight"].shape[0]
    for name, stage in module.named_children():
        if not name.startswith("layer"):
            continue
        for index, block in enumerate(stage):
            stage[index] = Folding(block, before)
            last = f"{name}.{index}.conv{stage[index].last}.weight"
            before = state[last].shape[0]
    return module


def assert_folds(module, state, *steps, size=(3, 64, 64), oracle=True):
    student = grown(state, *steps)
    x = images(3, *size)
    expected = outputs_of(module, state, x)
    plain = {name: each for name, each in student.tensors.items() if "fold_grown" not in name}
    assert len(plain) < len(student.tensors)
    explicit = folding(module, state)
    assert deviation(expected, outputs_of(explicit, state, x)) == 0
    assert deviation(expected, outputs_of(explicit, plain, x)) <= EXACT
    # and what ckgrow put on the shortcuts does the same, in torchvision's blocks and their like
    assert student.plan.preserves == "exact"
    return student


TORCHVISION = {
    "resnet18": (resnet18, 8),
    "resnet34": (resnet34, 8),
    "resnet50": (resnet50, 16),
    "resnext50": (resnext50_32x4d, 4),
}
VOLUMES = {
    "the first, behind the stem": ("resnet18", "conv1", 4),
    "one": ("resnet18", "layer1.0.conv2", 2),
    "more pairs than channels": ("resnet18", "layer1.0.conv2", 36),
    "the last of a stage": ("resnet18", "layer1.1.conv2", 4),
    "behind a down-sampling shortcut": ("resnet18", "layer2.0.conv2", 4),
    "named by that shortcut": ("resnet18", "layer2.0.downsample.0", 4),
    "the last of all": ("resnet18", "layer4.1.conv2", 4),
    "all of a stage": ("resnet34", "layer3.*.conv2", 6),
    "all": ("resnet18", "*", 8),
    "a bottleneck's": ("resnet50", "layer2.2.conv3", 4),
    "all bottlenecks of a stage": ("resnet50", "layer1.*.conv3", 4),
    "grouped bottlenecks'": ("resnext50", "layer3.[12].conv3", 4),
}


@pytest.mark.parametrize("which", VOLUMES)
def test_a_volume_of_torchvisions(which):
    name, volume, by = VOLUMES[which]
    constructor, shrink = TORCHVISION[name]
    module = on_meta(constructor)
    assert_folds(module, random_state(module, shrink=shrink), fold(volume, by=by))


@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize(
    "volume",
    ["conv1", "layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer2.*", "layer*.1.conv2"],
)
def test_a_volume_of_a_cifar_network(volume, option):
    module = on_meta(CifarResNet, (16, 32, 64), (2, 2, 2), option=option)
    assert_folds(module, random_state(module), fold(volume, by=4), size=(3, 32, 32))


def test_the_shapes_and_values_of_the_definition():
    module = on_meta(resnet18)
    state = random_state(module, shrink=8)
    made = grown(state, fold("layer1.0.conv2", by=6)).tensors
    rows, columns = made["layer1.0.conv2.weight"], made["layer1.1.conv1.weight"]
    assert rows.shape[:2] == (14, 8) and columns.shape[:2] == (8, 14)
    assert rows[8:11].equal(rows[11:14]) and columns[:, 8:11].equal(-columns[:, 11:14])
    assert rows[8:11].abs().min() > 0 and columns[:, 8:11].abs().min() > 0
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        entries = made[f"layer1.0.bn2.{tensor}"]
        assert entries[8:11].equal(entries[11:14])
    eye, added = torch.eye(8), torch.eye(8)[:, :3]
    leaving = made["layer1.1.fold_grown1.weight"][:, :, 0, 0]
    assert leaving.equal(torch.cat([eye, added, -added], 1))
    entering = made["layer1.0.fold_grown1.weight"][:, :, 0, 0]
    assert entering.equal(torch.cat([eye, torch.zeros(6, 8)]))


def test_only_the_neighbours_of_the_volume_change():
    module = on_meta(resnet18)
    state = random_state(module, shrink=8)
    made = grown(state, fold("layer2.0.conv2", by=6)).tensors
    changed = {n for n, each in state.items() if not torch.equal(each, made[n])}
    neighbours = ("layer2.0.conv2", "layer2.0.bn2", "layer2.0.downsample", "layer2.1.conv1")
    assert changed == {
        n for n in state if n.startswith(neighbours) and not n.endswith("num_batches_tracked")
    }
    assert set(made) - set(state) == {"layer2.1.fold_grown1.weight"}
    for name in changed:
        kept = tuple(slice(size) for size in state[name].shape)
        assert torch.equal(made[name][kept], state[name])  # the teacher can be cut out again


def test_a_volume_is_a_group_of_its_own_once_it_is_folded():
    module = on_meta(resnet18)
    plan = grown(random_state(module, shrink=8), fold("layer1.0.conv2", by=4)).plan
    groups = group_channels(plan.graph, couple(plan.graph, plan.header)).groups
    assert groups["layer1.0.conv2"].layers == ("layer1.0.conv2", "layer1.0.fold_grown1")
    assert groups["conv1"].layers == ("conv1", "layer1.1.conv2", "layer1.1.fold_grown1")


# Options, compositions, students of students: torchvision's own forward in torch


def loaded(constructor, student):
    """torchvision's module as the student, in float64."""
    module = constructor(num_classes=10)
    return ckgrow.load_into(module, student).double().eval()


def written(tmp_path, constructor, *steps, seed=0, count=1):
    """A teacher and, in files, what each of the steps makes of the one before."""
    torch.manual_seed(seed)
    teacher = constructor(num_classes=10)
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


CHAINS = {
    "folded twice, more pairs than channels": (
        fold("layer1.0.conv2", by=4),
        fold("layer1.0.conv2", by=200),
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
    "deepened, then folded": ({"deepen": "layer3"}, fold("layer3.*.conv2", by=6)),
    "a layer behind the fold": (
        fold("layer1.0.conv2", by=4),
        {"deepen": "layer1.1.fold_grown1", "method": "net2deeper"},
    ),
}


@pytest.mark.parametrize("which", CHAINS)
def test_a_student_grows_again(which, tmp_path):
    teacher, files = written(tmp_path, resnet18, *CHAINS[which])
    x = images(3, 3, 32, 32).double()
    with torch.no_grad():
        expected, found = teacher(x), loaded(resnet18, files[-1])(x)
    assert deviation([expected], [found]) <= EXACT


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
    teacher, files = written(tmp_path, resnet18, step)
    x = images(3, 3, 32, 32).double()
    with torch.no_grad():
        expected, found = teacher(x), loaded(resnet18, files[-1])(x)
    assert deviation([expected], [found]) <= EXACT


def test_gaussian_noise_is_approximate_and_exact_without_it():
    module = on_meta(resnet18)
    state = random_state(module, shrink=8)
    noise = {"kind": "gaussian", "scale": 0.3}
    student = grown(state, fold("layer1.0.conv2", by=4, noise=noise))
    assert student.plan.preserves == "approximate"
    loud = student.tensors["layer1.0.conv2.weight"]
    assert not loud[8:10].equal(loud[10:12])
    quiet = student.plan.draft.recipes["layer1.0.conv2.weight"].quiet()
    assert quiet.describe() != student.plan.draft.recipes["layer1.0.conv2.weight"].describe()
    x = images(2, 3, 64, 64)
    plain = {name: each for name, each in student.tensors.items() if "fold_grown" not in name}
    explicit = folding(module, state)
    assert deviation(outputs_of(module, state, x), outputs_of(explicit, plain, x)) > 1e-6


def test_every_new_parameter_learns(tmp_path):
    teacher, files = written(tmp_path, resnet18, fold("layer2.*.conv2", by=6))
    module = ckgrow.load_into(resnet18(num_classes=10), files[-1]).train()
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
    assert compared == 13
    rows = module.layer2[0].conv2.weight
    assert not torch.allclose(rows[128:131], rows[131:134])  # the two of a pair part


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
    x = images(2, 3, 32, 32).double()
    with torch.no_grad():
        assert deviation([teacher.double()(x)], [module.double()(x)]) <= EXACT


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


# Refusals


REFUSED = {
    "a layer inside a branch": (
        fold("layer1.0.conv1", by=4),
        "layer1.0.conv1 cannot be widened: it is on no residual connection, .* r2wider",
    ),
    "nothing but layers inside": (fold("layer*.conv1", by=4), "nothing that the pattern matches"),
    "an odd number": (
        fold("layer1.0.conv2", by=3),
        "fold adds pairs, so an even number of channels; layer1.0.conv2 has 8 .* are 10 and 12",
    ),
    "the classifier": (fold("fc", by=4), "fc cannot be widened: it is on no residual connection"),
    "an option of another method": (
        fold("conv1", by=4, split="uniform"),
        "fold does not read 'split'; its own keys are fill, noise, scale",
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_refusals(which):
    step, said = REFUSED[which]
    with pytest.raises(SpecError, match=f"step 1: .*{said}"):
        grown(random_state(on_meta(resnet18), shrink=8), step)


def test_a_stem_without_an_identity_shortcut_is_refused():
    module = on_meta(resnet50)  # every shortcut behind its stem has a convolution
    with pytest.raises(SpecError, match="conv1 cannot be widened: it is on no residual"):
        grown(random_state(module, shrink=16), fold("conv1", by=4))


def test_a_chain_has_nothing_to_fold():
    net = mlp(5, 6, 7, 3)
    with pytest.raises(SpecError, match="0 cannot be widened: it is on no residual connection"):
        grown(random_state(net), fold("0", by=4), options=STATED)


def test_a_glob_passes_over_layers_inside_branches_and_lists_them():
    module = on_meta(resnet18)
    (report,) = grown(random_state(module, shrink=8), fold("layer1.*", by=4)).plan.steps
    assert report.matched == ("layer1.0.conv2", "layer1.1.conv2")
    assert list(report.skipped) == ["layer1.0.conv1", "layer1.1.conv1"]
    assert report.added == ("layer1.0.fold_grown1", "layer1.1.fold_grown1")


def test_nothing_is_put_on_a_shortcut_where_nothing_grows():
    module = on_meta(resnet18)
    state = random_state(module, shrink=8)
    for size in ({"to": 8}, {"factor": 1.05}):
        student = grown(state, fold("layer1.0.conv2", **size))
        assert student.plan.graph == student.plan.start.graph
        assert "nothing to do" in student.plan.steps[0].warnings[0]


# Other streams: small graphs, in two runtimes


STREAMS = {
    "pre-activation": case(
        {"a": (4, 3, 1, 1), "n": (4,), "c": (4, 4, 3, 3), "d": (4, 4, 1, 1), "e": (2, 4, 1, 1)},
        [
            layer("Conv", "a", "x"),
            node("Relu", "ra", "a"),
            layer("Conv", "c", "ra", pads=(1, 1, 1, 1)),
            node("Add", "s", "a", "c"),
            node("Relu", "rs", "s"),
            layer("Conv", "d", "rs"),
            node("Add", "t", "d", "s"),
            layer("Conv", "e", "t"),
        ],
        {},
    ),
    "parallel branches": case(
        {"a": (4, 3, 1, 1), "c": (4, 4, 1, 1), "d": (4, 4, 1, 1), "e": (2, 4, 1, 1)},
        [
            layer("Conv", "a", "x"),
            layer("Conv", "c", "a"),
            layer("Conv", "d", "a"),
            node("Add", "cd", "c", "d"),
            node("Add", "s", "a", "cd"),
            node("Relu", "r", "s"),
            layer("Conv", "e", "r"),
        ],
        {},
    ),
    "a gate": case(
        {"a": (4, 3, 1, 1), "c": (4, 4, 1, 1), "g": (4, 4, 1, 1), "e": (2, 4, 1, 1)},
        [
            layer("Conv", "a", "x"),
            layer("Conv", "c", "a"),
            node("GlobalAveragePool", "p", "c"),
            layer("Conv", "g", "p"),
            node("Sigmoid", "h", "g"),
            node("Mul", "m", "c", "h"),
            node("Sub", "s", "m", "a"),
            layer("Conv", "e", "s"),
        ],
        {},
    ),
    "grouped convolutions": case(
        {"a": (4, 3, 1, 1), "c": (4, 2, 1, 1), "d": (4, 2, 1, 1), "e": (2, 4, 1, 1)},
        [
            layer("Conv", "a", "x"),
            layer("Conv", "c", "a", group=2),
            node("Add", "s", "a", "c"),
            layer("Conv", "d", "s", group=2),
            node("Add", "t", "s", "d"),
            layer("Conv", "e", "t"),
        ],
        {},
    ),
    "a depthwise convolution": case(
        {"a": (4, 3, 1, 1), "w": (4, 1, 1, 1), "c": (4, 4, 1, 1), "e": (2, 4, 1, 1)},
        [
            layer("Conv", "a", "x"),
            layer("Conv", "w", "a", group=4),
            layer("Conv", "c", "w"),
            node("Add", "s", "a", "c"),
            layer("Conv", "e", "s"),
        ],
        {},
    ),
    "dense layers": case(
        {"a": (3, 4), "c": (4, 4), "d": (4, 4), "e": (4, 2)},
        [
            layer("Gemm", "a", "x"),
            node("Tanh", "ra", "a"),
            layer("Gemm", "c", "ra"),
            node("Add", "s", "ra", "c"),
            layer("Gemm", "d", "s"),
            node("Add", "t", "d", "s"),
            layer("Gemm", "e", "t"),
        ],
        {},
        x=(3,),
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_other_streams(name):
    made = STREAMS[name]
    weights = {n: each for n, each in random_arrays(made.header).items()}
    layers = [each for each in "acdw" if f"{each}.w" in weights]
    for volume in (*layers, layers):
        step = fold(volume, by=8)
        plan, student = grown_graph(made.graph, weights, step)
        assert_same_function(made.graph, weights, plan, student)
        again, grandchild = grown_graph(plan.graph, student, fold(volume, by=12))
        assert_same_function(made.graph, weights, again, grandchild)
    every = [each for each in plan.header if "fold_grown" in each]
    assert every, "nothing was folded"
