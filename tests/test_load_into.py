"""load_into: a stock module becomes the student, and still computes what the teacher's does.

The oracle is the teacher's own module, in float64 and float32.
"""

from __future__ import annotations

import copy
import io
import itertools
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from architecture_oracles import images, randomized
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

import ckgrow
from ckgrow.errors import CheckpointError, CkgrowError, SpecError
from ckgrow.fitting.following import follow
from ckgrow.fitting.tensors import as_torch

models = torchvision.models
PAGE = Path(__file__).parents[1] / "docs" / "load_into.md"
SIZE = (3, 32, 32)
RELU = {"activation": "relu"}


def googlenet():
    return models.googlenet(init_weights=False)


def small_vgg():
    """VGG's naming with four convolutions and small dense layers."""
    widths = (3, 8, "max", 12, "max")
    features: list[nn.Module] = []
    for before, width in zip((3, 3, 8, 8, 12), widths, strict=True):
        if width == "max":
            features.append(nn.MaxPool2d(2, 2))
        else:
            features += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
    dense = [nn.Linear(12 * 4 * 4, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5)]
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features), flat=nn.Flatten(), classifier=nn.Sequential(*dense)
        )
    )


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))


def normalized_mlp():
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)),
    )


def named_mlp():
    return nn.Sequential(
        OrderedDict(fc1=nn.Linear(6, 8), act1=nn.ReLU(), fc2=nn.Linear(8, 8), act2=nn.ReLU())
        | OrderedDict(out=nn.Linear(8, 3))
    )


def early_dropout_mlp():
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.Dropout(), nn.ReLU()), *(nn.Linear(8, 7), nn.ReLU()), nn.Linear(7, 3)
    )


def depthwise_convnet():
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()),
                *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()),
                *(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.MaxPool2d(2)),
            ),
            flat=nn.Flatten(),
            classifier=nn.Sequential(nn.Linear(6 * 4 * 4, 12), nn.ReLU(), nn.Linear(12, 4)),
        )
    )


class LoopingMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class PaddedBlock(nn.Module):
    """A CIFAR block whose shortcut has its width written into a lambda (option A)."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        side = planes // 4
        self.shortcut = lambda x: (
            functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side)) if stride > 1 else x
        )

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class CifarResnet(nn.Module):
    def __init__(self, widths=(8, 16, 32), blocks=2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for number, width in enumerate(widths, start=1):
            stage = nn.Sequential()
            for index in range(blocks):
                stride = 2 if number > 1 and index == 0 else 1
                stage.append(PaddedBlock(inputs, width, stride))
                inputs = width
            self.add_module(f"layer{number}", stage)
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def grow(teacher, steps, folder, *, options=None, name="student"):
    """The path of a student of a module, or of a student of an earlier run."""
    source = teacher
    if isinstance(teacher, nn.Module):
        source = folder / "teacher.safetensors"
        save_file(teacher.float().state_dict(), source)
    path = folder / f"{name}.safetensors"
    spec = {"teacher": {"options": options or {}}, "steps": steps}
    ckgrow.apply(source, spec, path, check=False)
    return path


def assert_same_function(module, teacher, x):
    module.eval()
    for each, tolerance in ((x.float(), 2e-5), (x.double(), 1e-10)):
        module.to(each.dtype)
        teacher.to(each.dtype)
        with torch.no_grad():
            expected, found = teacher(each), module(each)
        assert found.shape == expected.shape
        assert (expected - expected[0]).abs().max() > 0
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    module.float()
    teacher.float()


def assert_holds(module, path):
    """Exactly the student's tensors, and a strict load of them."""
    student = load_file(path)
    state = module.state_dict()
    assert set(state) == set(student)
    assert all(torch.equal(state[name], tensor) for name, tensor in student.items())
    module.load_state_dict(student, strict=True)


def train(module, x):
    """Three steps of SGD; the names of the parameters that they changed."""
    module.train()
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        output = module(x.float())
        output = output if isinstance(output, torch.Tensor) else output[0]
        output.square().mean().backward()
        optimizer.step()
    return {name for name, each in module.named_parameters() if not torch.equal(each, before[name])}


def new_parameters(path, module):
    own = {name for name, _ in module.named_parameters()}
    return set(ckgrow.inspect(path).new_tensors) & own


def short_resnet50(**widths):
    return models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=10, **widths)


def short_resnext50():
    return short_resnet50(groups=32, width_per_group=4)


def short_resnet18():
    return models.ResNet(models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=10)


BOTTLENECKS = [{"widen": "layer*.conv[12]", "factor": 1.5}]
BOTH_ENDS = [
    {"deepen": "layer3", "blocks": 4},
    {"deepen": "layer2", "blocks": 2, "after": 1},
    {"deepen": "layer1", "blocks": 1},
    {"deepen": "layer4", "blocks": 1},
]
AFTER_A_SUBSAMPLING_BLOCK = [
    {"deepen": "layer[34]", "blocks": 2},
    {"widen": "layer3.1.conv1", "factor": 1.5},
]
INSIDE = [
    {"deepen": "layer1.0.conv1", "layers": 2},
    {"deepen": "layer2.1.conv2", "layers": 1},
    {"deepen": "conv1", "layers": 1},
    {"deepen": "layer2.0.downsample.0", "layers": 1},
    {"widen": "layer1.0.conv1_grown1", "factor": 1.5},
]
INSIDE_NEW_BLOCKS = [
    {"deepen": "layer2.1.conv1", "layers": 1},
    {"deepen": "layer2", "blocks": 1},
]
IN_A_BRANCH = [{"deepen": "inception3a.branch2.1.conv", "layers": 1}]
TORCHVISION = {
    "every width of resnet18": (models.resnet18, [{"widen": "*", "factor": 1.25}]),
    "blocks of resnet18": (models.resnet18, BOTH_ENDS),
    "blocks of a short resnet18": (short_resnet18, AFTER_A_SUBSAMPLING_BLOCK),
    "layers inside a short resnet18": (short_resnet18, INSIDE),
    "layers inside new blocks": (short_resnet18, INSIDE_NEW_BLOCKS),
    "inner widths of a short resnet50": (short_resnet50, BOTTLENECKS),
    "groups of a short resnext50": (short_resnext50, BOTTLENECKS),
    "branches of googlenet": (googlenet, [{"widen": "inception*.branch*.conv", "factor": 1.5}]),
    "layers inside googlenet": (googlenet, IN_A_BRANCH),
}
LARGE = {
    "resnet50": (models.resnet50, BOTTLENECKS),
    "resnext50": (models.resnext50_32x4d, BOTTLENECKS),
    "wide resnet50": (models.wide_resnet50_2, [{"widen": "layer[12].*", "factor": 1.25}]),
}


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        *(pytest.param(*case, id=name) for name, case in TORCHVISION.items()),
        *(pytest.param(*case, id=name, marks=pytest.mark.full) for name, case in LARGE.items()),
    ],
)
def test_torchvision_module_becomes_the_student(make, steps, tmp_path):
    teacher = randomized(make())
    path = grow(teacher, steps, tmp_path, options={"input": list(SIZE)})
    module = make()
    modes = {name: each.training for name, each in module.named_modules()}

    assert ckgrow.load_into(module, path) is module

    assert all(module.get_submodule(name).training == mode for name, mode in modes.items())
    assert_holds(module, path)
    assert_same_function(module, teacher, images(2, SIZE))


@pytest.mark.parametrize("steps", [AFTER_A_SUBSAMPLING_BLOCK, INSIDE, INSIDE_NEW_BLOCKS])
def test_everything_new_learns(steps, tmp_path):
    teacher = randomized(short_resnet18())
    path = grow(teacher, steps, tmp_path, options={"input": list(SIZE)})
    module = ckgrow.load_into(short_resnet18(), path)
    assert new_parameters(path, module) <= train(module, images(6, SIZE))


def test_attributes_follow_widths(tmp_path):
    teacher = randomized(short_resnext50())
    path = grow(teacher, BOTTLENECKS, tmp_path, options={"input": list(SIZE)})
    block = ckgrow.load_into(short_resnext50(), path).layer1[0]
    assert (block.conv1.in_channels, block.conv1.out_channels) == (64, 192)
    assert (block.conv2.in_channels, block.conv2.out_channels) == (192, 192)
    assert (block.conv2.groups, block.conv2.kernel_size) == (32, (3, 3))
    assert (block.conv3.in_channels, block.bn2.num_features) == (192, 192)


CHAINS = {
    "mlp wider": (mlp, (6,), [{"widen": "0", "by": 5}], {}),
    "mlp deeper": (mlp, (6,), [{"deepen": "0", "layers": 2}, {"deepen": "6"}], RELU),
    "mlp with BatchNorm and Dropout deeper": (
        normalized_mlp,
        (6,),
        [{"deepen": "0"}, {"widen": "*", "factor": 1.5}],
        RELU,
    ),
    "mlp with names deeper": (named_mlp, (6,), [{"deepen": "fc1"}, {"deepen": "fc2"}], RELU),
    "mlp in a loop deeper": (LoopingMlp, (6,), [{"deepen": "layers.0"}], RELU),
    "mlp with Dropout before its activation": (early_dropout_mlp, (6,), [{"deepen": "3"}], RELU),
    "depthwise convolutions": (
        depthwise_convnet,
        (3, 8, 8),
        [{"deepen": "features.2"}, {"widen": "features.0", "factor": 1.5}],
        {"input": [3, 8, 8], "pool": {"features.4": "max 2"}, **RELU},
    ),
    "vgg wider and deeper": (
        small_vgg,
        (3, 16, 16),
        [
            {"deepen": "features.2"},
            {"deepen": "classifier.0"},
            {"widen": "*", "factor": 1.5},
        ],
        {"input": [3, 16, 16], **RELU},
    ),
}


# options that name a layer name it as it is called in the student
MOVED = {"depthwise convolutions": {"pool": {"features.6": "max 2"}}}


@pytest.mark.parametrize("case", CHAINS)
@pytest.mark.parametrize("source", ["file", "tensors"])
def test_chain_becomes_the_student(case, source, tmp_path):
    make, size, steps, options = CHAINS[case]
    teacher = randomized(make())
    path = grow(teacher, steps, tmp_path, options=options)
    module = make()
    if source == "file":
        ckgrow.load_into(module, path)
    else:  # without metadata: nothing says which tensors are new
        ckgrow.load_into(module, load_file(path), options={**options, **MOVED.get(case, {})})
    assert_holds(module, path)
    x = images(5, size)
    assert_same_function(module, teacher, x)
    changed = train(module, x)
    assert new_parameters(path, module) <= changed


class NormalizedMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(functional.relu(self.bn1(self.fc1(x))))


class DeeperNormalizedMlp(NormalizedMlp):
    """What a person would have written for two layers behind the first."""

    def __init__(self):
        super().__init__()
        self.fc1_grown1, self.bn1_grown1 = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.fc1_grown2, self.bn1_grown2 = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x):
        x = functional.relu(self.bn1(self.fc1(x)))
        x = functional.relu(self.bn1_grown1(self.fc1_grown1(x)))
        x = functional.relu(self.bn1_grown2(self.fc1_grown2(x)))
        return self.fc2(x)


def deeper_named_mlp():
    module = OrderedDict(fc1=nn.Linear(6, 8), act1=nn.ReLU())
    module |= OrderedDict(fc1_grown1=nn.Linear(8, 8), act2=nn.ReLU())
    module |= OrderedDict(fc2=nn.Linear(8, 8), act3=nn.ReLU(), out=nn.Linear(8, 3))
    return nn.Sequential(module)


def deeper_mlp():
    widths = (6, 8, 8, 7)
    hidden = [(nn.Linear(*each), nn.ReLU()) for each in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*hidden), nn.Linear(7, 3))


@pytest.mark.parametrize(
    ("make", "deeper", "step"),
    [
        (NormalizedMlp, DeeperNormalizedMlp, {"deepen": "fc1", "layers": 2}),
        (named_mlp, deeper_named_mlp, {"deepen": "fc1"}),
        (mlp, deeper_mlp, {"deepen": "0"}),
    ],
)
def test_the_forward_is_that_of_a_deeper_module_for_any_weights(make, deeper, step, tmp_path):
    """New layers start as the identity, which would hide a missing activation."""
    path = grow(randomized(make()), [step], tmp_path, options=RELU)
    module = ckgrow.load_into(make(), path)
    by_hand = randomized(deeper(), seed=7).float()
    module.load_state_dict(by_hand.state_dict(), strict=True)
    assert_same_function(module, by_hand, images(5, (6,)))


def test_old_layers_stay_the_same_modules(tmp_path):
    path = grow(
        randomized(mlp()), [{"deepen": "0"}, {"widen": "0", "by": 4}], tmp_path, options=RELU
    )
    module = mlp()
    old = list(module)
    ckgrow.load_into(module, path)
    assert [module[number] for number in (0, 1, 4, 5, 6)] == old
    assert [(module[n].in_features, module[n].out_features) for n in (0, 2, 4)] == [
        (6, 12),
        (12, 8),
        (8, 7),
    ]


def test_a_module_may_have_some_of_the_new_blocks_already(tmp_path):
    teacher = randomized(short_resnet18())
    path = grow(teacher, BOTH_ENDS[1:2], tmp_path, options={"input": list(SIZE)})
    block = models.resnet.BasicBlock
    module = ckgrow.load_into(models.ResNet(block, [1, 3, 1, 1], num_classes=10), path)
    assert_holds(module, path)
    assert_same_function(module, teacher, images(2, SIZE))


def test_copies_and_pickles_keep_the_grown_layers(tmp_path):
    teacher = randomized(short_resnet18())
    path = grow(teacher, INSIDE, tmp_path, options={"input": list(SIZE)})
    module = ckgrow.load_into(short_resnet18(), path).eval()
    x = images(2, SIZE).float()
    with torch.no_grad():
        expected = module(x)
        copied = copy.deepcopy(module)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        for other in (copied, torch.load(file, weights_only=False)):
            assert torch.equal(other(x), expected)
            other.get_submodule("layer1.0.conv1_grown1").weight.zero_()
            assert not torch.equal(other(x), expected), "its layers are not the ones that run"
        assert torch.equal(module(x), expected)


def test_a_student_of_a_student_goes_into_the_first_module(tmp_path):
    teacher = randomized(short_resnet18())
    options = {"input": list(SIZE)}
    first = grow(teacher, BOTH_ENDS[:1], tmp_path, options=options, name="first")
    again = [*BOTH_ENDS[1:2], {"deepen": "layer3.2.conv1", "layers": 1}]
    second = grow(first, again, tmp_path, options=options, name="second")
    for module in (short_resnet18(), ckgrow.load_into(short_resnet18(), first)):
        ckgrow.load_into(module, second)
        assert_holds(module, second)
        assert_same_function(module, teacher, images(2, SIZE))


def test_loading_twice_changes_nothing(tmp_path):
    teacher = randomized(short_resnet18())
    path = grow(teacher, INSIDE, tmp_path, options={"input": list(SIZE)})
    module = ckgrow.load_into(short_resnet18(), path)
    ckgrow.load_into(module, path)
    assert_holds(module, path)
    assert_same_function(module, teacher, images(2, SIZE))


@pytest.mark.parametrize("on_the_module", [False, True])
@pytest.mark.parametrize("on_the_student", [False, True])
def test_wrapper_prefixes_are_seen_through(on_the_module, on_the_student, tmp_path):
    teacher = randomized(mlp())
    path = grow(
        nn.ModuleDict({"module": teacher}) if on_the_student else teacher,
        [{"deepen": "0"}, {"widen": "2", "factor": 2}],
        tmp_path,
        options=RELU,
    )
    module = mlp()
    ckgrow.load_into(nn.DataParallel(module) if on_the_module else module, path)
    assert_same_function(module, teacher, images(4, (6,)))


def test_parameters_stay_the_same_objects(tmp_path):
    path = grow(randomized(mlp()), [{"widen": "0", "by": 4}], tmp_path)
    module = mlp()
    module[0].weight.requires_grad_(False)
    module(torch.ones(2, 6)).sum().backward()
    before = dict(module.named_parameters())
    ckgrow.load_into(module, path)
    assert all(before[name] is each for name, each in module.named_parameters())
    assert not module[0].weight.requires_grad
    assert module[0].bias.grad is None  # of the old width
    assert module[4].weight.grad is not None


def test_tensors_take_the_dtype_of_the_student(tmp_path):
    for dtype in (torch.bfloat16, torch.float64):
        source = tmp_path / f"{dtype}.safetensors"
        save_file({name: each.to(dtype) for name, each in mlp().state_dict().items()}, source)
        path = grow(source, [{"widen": "0", "by": 4}], tmp_path, name=f"student-{dtype}")
        module = ckgrow.load_into(mlp(), path)
        assert {each.dtype for each in module.parameters()} == {dtype}
        assert_holds(module, path)


# Refusals


def fingerprint(module):
    """Everything that load_into may change: objects, contents, attributes, hooks."""
    return [
        (
            name,
            id(each),
            {k: id(v) for k, v in vars(each).items()},
            {k: (id(v), v.shape, v.dtype) for k, v in each._parameters.items() if v is not None},
            {k: id(v) for k, v in each._buffers.items()},
            list(each._modules),
            list(each._forward_hooks),
            {k: v for k, v in vars(each).items() if isinstance(v, int | tuple)},
            [None if p.grad is None else id(p.grad) for p in each.parameters()],
        )
        for name, each in module.named_modules()
    ]


def assert_refused(module, path, pattern, kind=CheckpointError, **options):
    before, state = fingerprint(module), copy.deepcopy(module.state_dict())
    with pytest.raises(kind, match=pattern) as refusal:
        ckgrow.load_into(module, path, **options)
    assert isinstance(refusal.value, CkgrowError)
    assert "\n" not in str(refusal.value)
    assert fingerprint(module) == before
    assert all(torch.equal(each, state[name]) for name, each in module.state_dict().items())
    assert set(state) == set(module.state_dict())


def test_a_module_of_another_family_is_refused(tmp_path):
    path = grow(
        randomized(short_resnet18()), BOTH_ENDS[:1], tmp_path, options={"input": list(SIZE)}
    )
    assert_refused(
        small_vgg(), path, r"the module has no bn1\.bias.*the student has no features\.0\.w"
    )


def test_a_module_without_a_part_of_the_student_is_refused(tmp_path):
    steps = [{"widen": "aux1.conv.conv", "factor": 2}, *IN_A_BRANCH]
    path = grow(randomized(googlenet()), steps, tmp_path)
    module = models.googlenet(init_weights=False, aux_logits=False)
    assert_refused(module, path, r"the module has no aux1.*with the same parts")


def test_a_forward_with_its_widths_in_its_code_is_refused(tmp_path):
    teacher = randomized(CifarResnet())
    steps = [{"widen": "*", "factor": 1.5}, {"deepen": "layer2", "blocks": 1}]
    path = grow(teacher, steps, tmp_path)
    module = CifarResnet()
    module(images(2, SIZE).float()).sum().backward()
    assert_refused(module, path, r"forward fails with RuntimeError.*construct it at the student's")
    wider = ckgrow.load_into(CifarResnet((12, 24, 48)), path)
    assert_holds(wider, path)
    assert_same_function(wider, teacher, images(2, SIZE))
    ckgrow.load_into(module, path, check=False)
    assert_holds(module, path)


def test_a_forward_that_computes_something_else_is_refused(tmp_path):
    class Doubling(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    path = grow(randomized(mlp()), [{"widen": "0", "by": 4}], tmp_path)
    pattern = r"differs from the student's graph by .*assumed .*activation: relu"
    assert_refused(Doubling(*mlp()), path, pattern)


def test_an_activation_that_was_assumed_can_be_stated(tmp_path):
    def tanh():
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    teacher = randomized(tanh())
    path = grow(teacher, [{"widen": "0", "by": 5}], tmp_path)
    module = tanh()
    assert_refused(module, path, "activation: relu")
    ckgrow.load_into(module, path, options={"activation": "tanh"})
    assert_same_function(module, teacher, images(4, (6,)))


def test_a_layer_of_another_kind_is_refused(tmp_path):
    path = grow(randomized(mlp()), [{"widen": "0", "by": 4}], tmp_path)
    module = mlp()
    module[0] = nn.Conv1d(6, 8, 1)
    assert_refused(module, path, r"0\.weight has shape \[12, 6\] in the student and \[8, 6, 1\]")


def test_another_stride_is_refused(tmp_path):
    steps = [{"widen": "layer1.0.conv1", "by": 4}]
    path = grow(randomized(short_resnet18()), steps, tmp_path, options={"input": list(SIZE)})
    module = short_resnet18()
    module.conv1.stride = (1, 1)
    assert_refused(module, path, r"conv1 moves by \[2, 2\] in the student and by \[1, 1\]")


def test_tied_tensors_that_differ_are_refused(tmp_path):
    def square():
        return nn.Sequential(
            nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        )

    path = grow(randomized(square()), [{"widen": "0", "by": 2}], tmp_path)
    module = square()
    module[2].weight = module[0].weight
    assert_refused(module, path, r"shares one tensor between 0\.weight and 2\.weight")


def test_what_is_no_module_and_what_has_no_memory_is_refused(tmp_path):
    path = grow(randomized(mlp()), [{"widen": "0", "by": 4}], tmp_path)
    with pytest.raises(SpecError, match="not a dict"):
        ckgrow.load_into({}, path)
    with torch.device("meta"):
        module = mlp()
    with pytest.raises(CheckpointError, match="to_empty"):
        ckgrow.load_into(module, path)


def test_a_forward_without_a_tensor_is_refused(tmp_path):
    class Silent(nn.Sequential):
        def forward(self, x):
            return None

    path = grow(randomized(mlp()), [{"widen": "0", "by": 4}], tmp_path)
    assert_refused(Silent(*mlp()), path, "returns no tensor.*check=False")


# Attributes of layers that no architecture of this version has


@pytest.mark.parametrize(
    ("layer", "tensors", "attributes"),
    [
        (nn.LayerNorm(4), {"weight": (6,), "bias": (6,)}, {"normalized_shape": (6,)}),
        (nn.GroupNorm(2, 4), {"weight": (6,)}, {"num_channels": 6, "num_groups": 2}),
        (nn.PReLU(4), {"weight": (6,)}, {"num_parameters": 6}),
        (nn.Embedding(5, 4), {"weight": (5, 6)}, {"num_embeddings": 5, "embedding_dim": 6}),
        (nn.InstanceNorm2d(4, affine=True), {"weight": (6,)}, {"num_features": 6}),
        (nn.BatchNorm1d(4, affine=False), {"running_mean": (6,)}, {"num_features": 6}),
        (
            nn.ConvTranspose2d(4, 6, 3, groups=2),
            {"weight": (8, 5, 3, 3)},
            {"in_channels": 8, "out_channels": 10},
        ),
        (
            nn.MultiheadAttention(4, 2),
            {"in_proj_weight": (24, 8)},
            {"embed_dim": 8, "head_dim": 4, "num_heads": 2},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_attributes_follow_shapes(layer, tensors, attributes):
    for name, shape in tensors.items():
        getattr(layer, name).data = torch.zeros(shape)
    follow(layer, "layer", None)
    assert {name: getattr(layer, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.GroupNorm(4, 8), (10,)), (nn.Conv1d(8, 8, 1, groups=4), (10, 2, 1))]
)
def test_groups_that_do_not_divide_are_refused(layer, shape):
    layer.weight.data = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=re.escape("which does not divide the student's 10")):
        follow(layer, "layer", None)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.int8, torch.bool])
def test_tensors_of_every_dtype_come_over(dtype):
    from ckgrow.memory import MemoryReader

    tensor = torch.tensor([[1.0, 0.0], [-2.0, 0.5]]).to(dtype)
    reader = MemoryReader({"x": tensor})
    made = as_torch(reader.read("x", 0, 2))
    assert made.dtype == dtype
    assert torch.equal(made.float(), tensor.float())


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    names: dict[str, object] = {}
    for example in examples:
        exec(example, names)
