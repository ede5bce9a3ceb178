"""Students of torchvision's models, run in torchvision's own forward.

Teachers have random weights and random BatchNorm statistics. Their modules stand on the meta
device; the tensors that run are exactly the teacher's and the student's.
"""

from __future__ import annotations

import pytest
import torch
import torchvision
from student_oracles import deviation, grown, images, on_meta, outputs_of, random_state
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

EXACT = 1e-12  # of the output's scale, in float64: shares sum to the weight exactly

BASIC = {
    "inner": ({"widen": "layer*.conv1", "factor": 1.5},),
    "streams": ({"widen": ["conv1", "layer*.conv2"], "factor": 1.25},),
    "alone": ({"widen": "layer3.1.conv1", "by": 5},),
}
BOTTLENECK = {
    "inner": ({"widen": "layer*.conv[12]", "factor": 1.5},),
    "streams": ({"widen": ["conv1", "layer*.conv3"], "factor": 1.25},),
    "alone": ({"widen": "layer3.1.conv2", "factor": 1.5},),
}
RESNETS = {
    "resnet18": BASIC,
    "resnet34": BASIC,
    "resnet50": BOTTLENECK,
    "resnet101": BOTTLENECK,
    "resnet152": BOTTLENECK,
    "wide_resnet50_2": BOTTLENECK,
    "wide_resnet101_2": BOTTLENECK,
    "resnext50_32x4d": BOTTLENECK,
    "resnext101_32x8d": BOTTLENECK,
    "resnext101_64x4d": BOTTLENECK,
}
CHAINS = {
    "inner": ({"widen": "features.*", "factor": 1.5},),
    "dense": ({"widen": "classifier.*", "factor": 1.25},),
    "alone": ({"widen": "features.[78]", "by": 3},),
}
BRANCHES = {
    "googlenet": {
        "branches": (
            {"widen": "inception*.{branch1,branch2.1,branch3.1,branch4.1}.conv", "factor": 1.5},
        ),
        "inner": ({"widen": "inception*.branch[23].0.conv", "factor": 1.5},),
        "heads": ({"widen": ["aux*.conv.conv", "aux*.fc1"], "factor": 1.25},),
        "alone": ({"widen": "inception4c.branch3.1.conv", "by": 5},),
        "stem": ({"widen": "conv*.conv", "factor": 1.25},),
    },
    "inception_v3": {
        "everything": ({"widen": "{Conv2d,Mixed}*", "factor": 1.5},),
        "alone": ({"widen": "Mixed_6c.branch7x7_2.conv", "by": 5},),
        "heads": ({"widen": "AuxLogits.conv*.conv", "factor": 1.25},),
    },
}
QUICK = ("resnet18", "resnet50", "resnext50_32x4d")


def sampled(names, quick):
    """Test parameters: those in ``quick`` always, the others with --full."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.full) for name in names]


def stock(name, **options):
    return on_meta(getattr(torchvision.models, name), **options)


# Widened: the same function, through torchvision's own forward


@pytest.mark.parametrize("name", sampled(RESNETS, QUICK))
def test_widened_resnet(name, amount):
    assert_widened_exactly(stock(name), RESNETS[name], (3, 64, 64), shrink=amount(2, 1))


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn"])
def test_widened_chain_of_few_channels(name):
    assert_widened_exactly(stock(name), CHAINS, (3, 64, 64), shrink=16)


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["alexnet", *(f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn"))]
)
def test_widened_chain(name):
    assert_widened_exactly(stock(name), CHAINS, (3, 64, 64))


@pytest.mark.parametrize("name", sampled(BRANCHES, ["googlenet"]))
def test_widened_branches_with_auxiliary_heads(name):
    module = stock(name, init_weights=False)
    module.training = True  # only the module itself: heads run, BatchNorm and Dropout do not
    size = 299 if name == "inception_v3" else 96
    outputs = assert_widened_exactly(module, BRANCHES[name], (3, size, size))
    assert outputs == (2 if name == "inception_v3" else 3)


@pytest.mark.full
def test_widened_inception_without_heads():
    module = stock("inception_v3", aux_logits=False, init_weights=False, transform_input=True)
    steps = {"everything": ({"widen": "{Conv2d,Mixed}*", "factor": 1.25},)}
    assert_widened_exactly(module, steps, (3, 75, 75), transform_input=True)


@pytest.mark.parametrize("split", ["unequal", "select", "per-channel", "uniform"])
@pytest.mark.parametrize("copies", ["even", "random"])
def test_every_split_is_exact(split, copies):
    step = {"widen": "*", "factor": 1.4, "split": split, "copies": copies}
    cases = {"everything": ({**step, "multiple_of": 2},)}
    assert_widened_exactly(small_resnet(), cases, (3, 32, 32), shrink=4)


def test_zero_sum_noise_is_exact():
    noise = {"kind": "zero-sum", "scale": 0.3}
    cases = {"noise": ({"widen": "*", "factor": 2.3, "multiple_of": 2, "noise": noise},)}
    assert_widened_exactly(small_resnet(), cases, (3, 32, 32), shrink=4)


def assert_widened_exactly(module, cases, size, *, shrink=1, **options):
    """Returns the number of outputs."""
    state = random_state(module, shrink=shrink)
    x = images(2, *size)
    expected = outputs_of(module, state, x)
    for steps in cases.values():
        student = grown(state, *steps, options={"input": list(size), **options})
        assert student.plan.preserves == "exact"
        assert any(student.tensors[key].shape != state[key].shape for key in state)
        assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT
    return len(expected)


def small_resnet(depths=(1, 2), block=Bottleneck):
    """Torchvision's class with one block in each of the last two stages."""
    return on_meta(ResNet, block, [*depths, 1, 1], num_classes=7)


# In float32, widening differs by no more than rounding does


@pytest.mark.parametrize("name", sampled(RESNETS, ["resnet18"]))
def test_widened_in_single_precision(name, amount):
    module, x = stock(name), images(2, 3, 64, 64)
    state = random_state(module, shrink=amount(2, 1))
    truth = outputs_of(module, state, x)
    single = outputs_of(module, state, x, torch.float32)
    yardstick = deviation(truth, [each.double() for each in single])
    for steps in RESNETS[name].values():
        student = grown(state, *steps, options={"input": [3, 64, 64]})
        found = outputs_of(module, student.tensors, x, torch.float32)
        assert deviation(single, found) <= 4 * yardstick


# Deepened by whole blocks: the same bits in float32, in torchvision's own module


@pytest.mark.parametrize(
    ("name", "after", "added"),
    [
        ("resnet18", [3, 4, 6, 3], {"layer1": 1, "layer2": 2, "layer3": 4, "layer4": 1}),
        ("resnext50_32x4d", [3, 4, 7, 5], {"layer3": 1, "layer4": 2}),
        pytest.param("resnet50", [4, 5, 7, 4], {"layer?": 1}, marks=pytest.mark.full),
    ],
)
def test_deepened_stages(name, after, added):
    module, x = stock(name), images(2, 3, 64, 64)
    state = random_state(module, shrink=2)
    steps = [{"deepen": stage, "blocks": blocks} for stage, blocks in added.items()]
    student = grown(state, *steps, options={"input": [3, 64, 64]})
    grouped = {"groups": 32, "width_per_group": 4} if name.startswith("resnext") else {}
    deeper = on_meta(ResNet, BasicBlock if name == "resnet18" else Bottleneck, after, **grouped)
    assert_same_bits(module, state, deeper, student, x)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_deepened_in_the_middle_of_a_stage(after):
    module, x = small_resnet((3, 1), BasicBlock), images(2, 3, 32, 32)
    state = random_state(module, shrink=2)
    student = grown(state, {"deepen": "layer1", "blocks": 2, "after": after})
    deeper = small_resnet((5, 1), BasicBlock)
    assert_same_bits(module, state, deeper, student, x)
    assert torch.equal(
        student.tensors[f"layer1.{2 if after > 2 else 4}.conv1.weight"],
        state["layer1.2.conv1.weight"],
    )


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_deepened_stage_of_one_strided_block(block):
    module, x = small_resnet((1, 1), block), images(2, 3, 32, 32)
    state = random_state(module, shrink=2)
    student = grown(state, {"deepen": "layer2", "blocks": 1})
    assert_same_bits(module, state, small_resnet((1, 2), block), student, x)


@pytest.mark.parametrize("fill", ["match-std", "he", "xavier", "copy"])
def test_deepened_by_blocks_that_can_learn(fill):
    module, x = small_resnet((2, 1), Bottleneck), images(2, 3, 32, 32)
    state = random_state(module, shrink=2)
    student = grown(state, {"deepen": "layer1", "blocks": 1, "fill": fill})
    assert_same_bits(module, state, small_resnet((3, 1), Bottleneck), student, x)
    new = student.tensors["layer1.2.conv2.weight"]
    fan = new.shape[1] * 9
    wanted = {
        "match-std": state["layer1.1.conv2.weight"].std(),
        "copy": state["layer1.1.conv2.weight"].std(),
        "he": (2 / fan) ** 0.5,
        "xavier": (2 / (2 * fan)) ** 0.5,
    }
    assert float(new.std()) == pytest.approx(float(wanted[fill]), rel=0.02)
    assert student.tensors["layer1.2.bn3.weight"].count_nonzero() == 0
    assert student.tensors["layer1.2.bn2.weight"].count_nonzero() == len(new)


def assert_same_bits(module, state, deeper, student, x):
    before = outputs_of(module, state, x, torch.float32)
    after = outputs_of(deeper, student.tensors, x, torch.float32)
    assert deviation(before, after) == 0.0


# Deepened by single layers: torch's modules stand where the plan says


@pytest.mark.parametrize("kernel", ["layer2.0.conv1", "layer2.0.conv2"])
def test_deepened_behind_a_convolution_with_batch_norm(kernel):
    module, x = small_resnet((1, 1), Bottleneck), images(2, 3, 32, 32)
    state = random_state(module, shrink=2)
    student = grown(state, {"deepen": kernel, "layers": 2})
    assert student.plan.preserves == "eval"
    norm = kernel.replace("conv", "bn")
    width = len(state[f"{norm}.weight"])
    size = state[f"{kernel}.weight"].shape[2]
    chain, renamed = [nn.BatchNorm2d(width)], {norm: f"{norm}.0"}
    for number in (1, 2):
        renamed[f"{kernel}_grown{number}"] = f"{norm}.{len(chain) + 1}"
        renamed[f"{norm}_grown{number}"] = f"{norm}.{len(chain) + 2}"
        layer = nn.Conv2d(width, width, size, padding=size // 2, bias=False)
        chain += [nn.ReLU(), layer, nn.BatchNorm2d(width)]
    module_path, _, attribute = norm.rpartition(".")
    expected = outputs_of(module, state, x)
    setattr(module.get_submodule(module_path), attribute, nn.Sequential(*chain).to("meta").eval())
    tensors = {}
    for key, each in student.tensors.items():
        path, _, last = key.rpartition(".")
        tensors[f"{renamed.get(path, path)}.{last}"] = each
    assert deviation(expected, outputs_of(module, tensors, x)) <= EXACT


def test_deepened_chain_shifts_the_later_modules():
    module, x = stock("vgg11_bn"), images(2, 3, 64, 64)
    state = random_state(module, shrink=16)
    student = grown(
        state,
        {"deepen": "features.4"},
        {"deepen": "classifier.0", "layers": 2},
        options={"input": [3, 64, 64]},
    )
    deeper = stock("vgg11_bn")
    layer = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    deeper.features = nn.Sequential(*deeper.features[:7], *layer, *deeper.features[7:])
    first, *rest = deeper.classifier
    dense = [nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)]
    deeper.classifier = nn.Sequential(first, *dense, *rest)
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(deeper.eval(), student.tensors, x)) <= EXACT


# Students that load into stock constructors


def test_resnet18_becomes_resnet34():
    assert_becomes(
        "resnet18",
        "resnet34",
        *({"deepen": f"layer{n}", "blocks": b} for n, b in ((1, 1), (2, 2), (3, 4), (4, 1))),
    )


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet101", {"layer3": 17}), ("resnet152", {"layer2": 4, "layer3": 30})],
)
@pytest.mark.full
def test_resnet50_becomes_deeper(name, blocks):
    steps = ({"deepen": stage, "blocks": count} for stage, count in blocks.items())
    assert_becomes("resnet50", name, *steps)


def test_resnet50_becomes_wide():
    assert_becomes(
        "resnet50", "wide_resnet50_2", {"widen": "layer*.conv[12]", "factor": 2}, exactly=False
    )


@pytest.mark.full
def test_resnext50_becomes_resnext101():
    assert_becomes(
        "resnext50_32x4d",
        "resnext101_32x8d",
        {"widen": "layer*.conv[12]", "factor": 2},
        {"deepen": "layer3", "blocks": 17},
        exactly=False,
    )


def assert_becomes(name, other, *steps, exactly=True):
    module, x = stock(name), images(2, 3, 64, 64)
    state = random_state(module)
    student = grown(state, *steps, options={"input": [3, 64, 64]})
    assert student.plan.stock_loadable.startswith("yes")
    assert other in student.plan.stock_loadable
    grown_module = stock(other)
    grown_module.load_state_dict(student.tensors, strict=True, assign=True)
    if exactly:
        assert_same_bits(module, state, grown_module, student, x)
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(grown_module, student.tensors, x)) <= EXACT
