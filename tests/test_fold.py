"""``fold``: one volume of a residual stream widened alone.

The oracle has the fold as the paper writes it, x + xL - xR, in blocks that are written out here,
without the tensors that ckgrow puts on the shortcuts. Blocks with convolutions of these tensors
must compute the same, also where the two of a pair differ.
"""

from __future__ import annotations

import copy

import pytest
import torch
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
from target_oracles import planned
from test_architecture_resnet import CifarResNet
from test_coupling import case, layer, node
from test_methods import STATED, mlp
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18, resnet34, resnet50, resnext50_32x4d

from ckgrow.coupling import couple
from ckgrow.errors import SpecError
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


class Block(nn.Module):
    """The layers of a stock block. Its identity shortcut folds, or goes through ``fold_grown1``."""

    def __init__(self, block, channels, convolution):
        super().__init__()
        for name, child in block.named_children():
            setattr(self, name, child)
        if convolution:
            self.fold_grown1 = nn.Conv2d(1, 1, 1, bias=False, device="meta")
        self.channels, self.pads = channels, getattr(block, "added", 0)
        self.last = sum(name.startswith("conv") for name, _ in block.named_children())

    def forward(self, x):
        y = x
        for number in range(1, self.last + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = functional.relu(y) if number < self.last else y
        own = getattr(self, "downsample", None) or getattr(self, "shortcut", None)
        if own is not None:
            return functional.relu(y + own(x))
        convolution = getattr(self, "fold_grown1", None)
        x = x if convolution else folded(x, self.channels)
        if self.pads:
            side = self.pads // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return functional.relu(y + (convolution(x) if convolution else as_wide(x, y)))


def with_blocks(module, state, convolutions=()):
    """The module with such blocks; ``state`` is the teacher's, for the widths of its streams."""
    module = copy.deepcopy(module)
    before = state["conv1.weight"].shape[0]
    for name, stage in module.named_children():
        if not name.startswith("layer"):
            continue
        for index, block in enumerate(stage):
            path = f"{name}.{index}"
            stage[index] = Block(block, before, f"{path}.fold_grown1.weight" in convolutions)
            before = state[f"{path}.conv{stage[index].last}.weight"].shape[0]
    return module


def assert_folds(module, state, *steps, size=(3, 64, 64)):
    student = grown(state, *steps)
    assert student.plan.preserves == "exact"
    plain = {name: each for name, each in student.tensors.items() if "fold_grown" not in name}
    ours = {name: each for name, each in student.tensors.items() if name not in plain}
    assert ours
    x = images(3, *size)
    expected = outputs_of(module, state, x)
    explicit, convolving = with_blocks(module, state), with_blocks(module, state, ours)
    assert deviation(expected, outputs_of(explicit, state, x)) == 0
    assert deviation(expected, outputs_of(explicit, plain, x)) <= EXACT
    assert deviation(expected, outputs_of(convolving, student.tensors, x)) <= EXACT
    trained = {
        name: each * (1 + 0.1 * images(*each.shape)) if each.dim() > 1 else each
        for name, each in plain.items()
    }
    changed = outputs_of(explicit, trained, x)
    assert deviation(expected, changed) > 1e-3
    assert deviation(changed, outputs_of(convolving, trained | ours, x)) <= EXACT


TORCHVISION = {
    "resnet18": (resnet18, 8),
    "resnet34": (resnet34, 16),
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
    assert rows.shape[:2] == (14, 8)
    assert rows[8:11].equal(rows[11:14])
    assert columns.shape[:2] == (8, 14)
    assert columns[:, 8:11].equal(-columns[:, 11:14])
    assert min(rows[8:11].abs().min(), columns[:, 8:11].abs().min()) > 0
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
    assert groups["conv1"].layers == ("conv1",)
    assert groups["layer1.1.conv2"].layers == ("layer1.1.conv2", "layer1.1.fold_grown1")


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
    explicit = with_blocks(module, state)
    assert deviation(outputs_of(module, state, x), outputs_of(explicit, plain, x)) > 1e-6


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
        "fold does not read 'split'",
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


def test_the_volume_grows_alone_whatever_number_says_how_far():
    module = on_meta(resnet18)
    state = random_state(module, shrink=8)
    for size in ({"by": 8}, {"to": 16}, {"factor": 2}, {"factor": 1.05, "multiple_of": 16}):
        (report,) = grown(state, fold("layer1.0.conv2", **size)).plan.steps
        assert report.widths == {"layer1.0.conv2": (8, 16)}
        assert report.added == ("layer1.0.fold_grown1", "layer1.1.fold_grown1")
        assert report.warnings == ()


def test_only_volumes_that_grow_are_set_free():
    module = on_meta(resnet18)
    state = random_state(module, shrink=8)
    student = grown(state, fold(["layer1.0.conv2", "layer2.0.conv2"], to=16))
    (report,) = student.plan.steps
    assert report.matched == ("layer1.0.conv2", "layer2.0.conv2")
    assert report.widths == {"layer1.0.conv2": (8, 16)}
    assert report.added == ("layer1.0.fold_grown1", "layer1.1.fold_grown1")
    assert report.warnings == ("layer2.0.conv2 has 16 channels already: nothing to do",)


def test_a_stream_with_its_channels_last_is_refused():
    shapes = {"a": (3, 4), "c": (4, 4), "e": (4, 2)}
    nodes = [
        layer("MatMul", "a", "x"),
        layer("MatMul", "c", "a"),
        node("Add", "s", "a", "c"),
        layer("MatMul", "e", "s"),
    ]
    made = case(shapes, nodes, {}, x=(5, 3))
    said = "step 1: fold of a: the shortcut into s does not hold its channels right behind"
    with pytest.raises(SpecError, match=said):
        grown_graph(made.graph, random_arrays(made.header), fold("a", by=4))


def test_all_volumes_are_found_on_one_coupling(monkeypatch):
    state = on_meta(resnet50).state_dict()
    counts = []
    for volume in ("layer3.1.conv3", "layer*.conv3"):
        couplings = []

        def counted(*args, couplings=couplings):
            couplings.append(args)
            return couple(*args)

        monkeypatch.setattr("ckgrow.drafts.draft.couple", counted)
        planned(state, fold(volume, by=64))
        counts.append(len(couplings))
    assert counts[0] == counts[1]


# Other streams: small graphs, in two runtimes


STREAMS = {
    "pre-activation": case(
        {"a": (4, 3, 1, 1), "c": (4, 4, 3, 3), "d": (4, 4, 1, 1), "e": (2, 4, 1, 1)},
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
    "the network's own input on a shortcut": case(
        {"c": (3, 3, 1, 1), "e": (2, 3, 1, 1)},
        [layer("Conv", "c", "x"), node("Add", "s", "x", "c"), layer("Conv", "e", "s")],
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


def test_nothing_is_put_on_a_shortcut_where_no_run_of_the_volume_grows():
    """A factor is about each run that a grouped convolution reads: 2 * 1.2 rounds to 2."""
    made = STREAMS["grouped convolutions"]
    plan, _ = grown_graph(made.graph, random_arrays(made.header), fold("c", factor=1.2))
    assert plan.graph == made.graph


@pytest.mark.parametrize("name", STREAMS)
def test_other_streams(name):
    made = STREAMS[name]
    weights = random_arrays(made.header)
    layers = [each for each in "acd" if f"{each}.w" in weights]
    for volume in (*layers, layers):
        step = fold(volume, by=8)
        plan, student = grown_graph(made.graph, weights, step)
        assert_same_function(made.graph, weights, plan, student)
        again, grandchild = grown_graph(plan.graph, student, fold(volume, by=12))
        assert_same_function(made.graph, weights, again, grandchild)
    every = [each for each in plan.header if "fold_grown" in each]
    assert every, "nothing was folded"
