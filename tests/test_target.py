"""Published networks by name: each is reached, in its own constructor and forward.

Constructors are torchvision's and timm's own, with their real widths; modules stand on the meta
device, and the tensors that run are exactly the teacher's and the student's.
"""

from __future__ import annotations

import pytest
import torch
from architecture_oracles import header_of
from student_oracles import deviation, grown, images, on_meta, outputs_of, random_state
from target_oracles import planned, published, stock
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from ckgrow.random import Draw
from ckgrow.registry import architectures

EXACT = 1e-12  # of the output's scale, in float64
EVAL = 1e-11  # eight inserted BatchNorms that are the identity as nearly as float32 stores it
SIZE = (3, 64, 64)

BY_TEACHER = {
    "resnet18": ("resnet34",),
    "resnet50": ("resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    "resnet101": ("resnet152", "wide_resnet101_2"),
    "wide_resnet50_2": ("wide_resnet101_2",),
    "resnext50_32x4d": ("resnext101_32x8d", "resnext101_64x4d"),
    "vgg11": ("vgg13", "vgg16", "vgg19"),
    "vgg13": ("vgg16", "vgg19"),
    "vgg16": ("vgg19",),
    "vgg11_bn": ("vgg13_bn", "vgg16_bn", "vgg19_bn"),
    "vgg13_bn": ("vgg16_bn", "vgg19_bn"),
    "vgg16_bn": ("vgg19_bn",),
}
QUICK = {
    ("resnet18", "resnet34"),
    ("resnext50_32x4d", "resnext101_64x4d"),
    ("vgg11_bn", "vgg13_bn"),
}
PAIRS = [
    pytest.param(before, after, marks=() if (before, after) in QUICK else pytest.mark.full)
    for before, targets in BY_TEACHER.items()
    for after in targets
]


def assert_reaches(teacher, state, target, module, size=SIZE, bound=EXACT, **keys):
    """The student of one step loads ``strict`` and computes what the teacher does."""
    student = grown(state, {"target": target, **keys}, options={"input": list(size)})
    module.load_state_dict(student.tensors, strict=True, assign=True)
    x = images(2, *size)
    expected = outputs_of(teacher, state, x)
    assert deviation(expected, outputs_of(module, module.state_dict(), x)) <= bound
    return student


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


# Reached


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_torchvision(before, after):
    teacher = published(f"torchvision/{before}", num_classes=7)
    module = published(f"torchvision/{after}", num_classes=7)
    bound = EVAL if after.endswith("bn") else EXACT
    student = assert_reaches(
        teacher, random_state(teacher), f"torchvision/{after}", module, bound=bound
    )
    assert student.plan.stock_loadable.startswith(f"yes (torchvision's {after}")
    assert student.plan.preserves == ("eval" if after.endswith("bn") else "exact")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("resnet18", "resnet34"),
        pytest.param("resnet26", "resnet152", marks=pytest.mark.full),
        pytest.param("resnet26", "wide_resnet50_2", marks=pytest.mark.full),
        pytest.param("resnet152", "resnet200", marks=pytest.mark.full),
        pytest.param("resnext50_32x4d", "resnext101_32x16d", marks=pytest.mark.full),
    ],
)
def test_timm(before, after):
    teacher = published(f"timm/{before}")
    assert_reaches(teacher, random_state(teacher), f"timm/{after}", published(f"timm/{after}"))


def test_timm_without_classifier():
    teacher, module = (published(f"timm/resnet{n}", num_classes=0) for n in (18, 34))
    assert_reaches(teacher, random_state(teacher), "timm/resnet34", module)


@pytest.mark.parametrize(
    ("before", "after", "size", "shrink"),
    [
        ("resnet18", "resnet34", (3, 64, 64), 2),
        ("alexnet", "alexnet", (3, 64, 64), 8),
        ("googlenet", "googlenet", (3, 96, 96), 2),
        pytest.param("vgg11", "vgg16", (3, 64, 64), 4, marks=pytest.mark.full),
        pytest.param("inception_v3", "inception_v3", (3, 299, 299), 2, marks=pytest.mark.full),
    ],
)
def test_narrow_network_becomes_the_published_one(before, after, size, shrink):
    teacher = published(f"torchvision/{before}", num_classes=7)
    module = published(f"torchvision/{after}", num_classes=7)
    if before in ("googlenet", "inception_v3"):
        teacher.training = module.training = True  # only the modules themselves: heads run
    state = random_state(teacher, shrink=shrink)
    assert_reaches(teacher, state, f"torchvision/{after}", module, size)


@pytest.mark.parametrize(
    "widen",
    ["r2wider", *(pytest.param(n, marks=pytest.mark.full) for n in ("netmorph", "symmetric"))],
)
def test_methods_are_those_of_the_step(widen):
    teacher = published("torchvision/resnet18", num_classes=7)
    module = published("torchvision/resnet34", num_classes=7)
    state = random_state(teacher, shrink=2)
    target = "torchvision/resnet34"
    student = assert_reaches(teacher, state, target, module, widen=widen, deepen="zero-init")
    assert student.plan.steps[0].method == f"{widen}, zero-init"


def test_other_channels_other_precision_no_counters():
    teacher, module = (on_meta(ResNet, BasicBlock, n, 7) for n in ([2, 2, 2, 2], [3, 4, 6, 3]))
    for each in (teacher, module):
        with torch.device("meta"):
            each.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    state = {
        f"module.{name}": tensor.half()
        for name, tensor in random_state(teacher, shrink=2).items()
        if tensor.is_floating_point()  # as before PyTorch 0.4.1
    }
    student = grown(state, {"target": "torchvision/resnet34"})
    wanted = {f"module.{n}": s for n, s in shapes(module.state_dict()).items() if "num_b" not in n}
    assert shapes(student.tensors) == wanted
    assert {tensor.dtype for tensor in student.tensors.values()} == {torch.float16}


def test_after_other_steps():
    teacher = on_meta(ResNet, BasicBlock, [1, 2, 2, 1], num_classes=7)
    state = random_state(teacher, shrink=4)
    steps = (
        {"widen": "layer*.conv1", "factor": 1.5},
        {"deepen": "layer3", "blocks": 2, "after": 1},
        {"target": "torchvision/resnet34"},
    )
    student = grown(state, *steps, options={"input": list(SIZE)})
    module = published("torchvision/resnet34", num_classes=7)
    module.load_state_dict(student.tensors, strict=True, assign=True)
    x = images(2, *SIZE)
    expected = outputs_of(teacher, state, x)
    assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT


def test_every_target_has_the_tensors_of_its_constructor():
    for adapter in architectures().values():
        for name, target in adapter.targets.items():
            header = header_of(published(name, num_classes=7).state_dict())
            network = adapter.build(header, {})
            facts = target(network.graph, header)
            assert dict(facts.header) == dict(header), name
            assert adapter.build(facts.header, facts.options).graph == network.graph, name


# How


def test_what_is_new_has_full_width_from_its_first_value_on():
    state = random_state(published("torchvision/resnet18", num_classes=7), shrink=2)
    student = grown(state, {"target": "torchvision/resnet34", "widen": "symmetric"})
    for name, copies in (("layer1.1.conv1.weight", True), ("layer1.2.conv1.weight", False)):
        weight = student.tensors[name].double()
        sums = weight[:, :32] + weight[:, 32:]  # over the two copies of what is read
        assert torch.allclose(sums[:32], sums[32:], atol=1e-6) == copies


def test_report_says_what_was_done():
    plan = planned(stock("vgg11"), {"target": "torchvision/vgg16"})
    (report,) = plan.steps
    assert report.summary == (
        "target torchvision/vgg16: deepen features.0 by 1 layer, deepen features.3 by 1 layer, "
        "deepen features.8 by 1 layer, deepen features.13 by 1 layer, deepen features.18 by 1 layer"
    )
    assert report.method == "net2deeper"
    assert report.matched == tuple(f"features.{number}" for number in (0, 3, 8, 13, 18))
    assert report.added == ("features.2", "features.7", "features.14", "features.21", "features.28")
    plan = planned(stock("resnext50_32x4d"), {"target": "timm/resnext101_32x8d"})
    (report,) = plan.steps
    assert report.summary == (
        "target timm/resnext101_32x8d: widen 32 groups by net2wider, deepen layer3 by 17 blocks"
    )
    assert report.widths["layer1.0.conv1"] == (128, 256)
    assert report.added == tuple(f"layer3.{number}" for number in range(6, 23))


def test_warnings_name_layers_as_they_are_called_in_the_end():
    (report,) = planned(stock("vgg11_bn"), {"target": "torchvision/vgg19_bn"}).steps
    assert [text.partition(":")[0] for text in report.warnings] == list(report.added)


def test_nothing_to_do():
    plan = planned(stock("resnet50"), {"target": "timm/resnet50"})
    (report,) = plan.steps
    assert report.warnings == ("this is timm/resnet50 already: nothing to do",)
    assert plan.preserves == "exact"
    assert plan.draft is plan.start


def test_parts_of_a_step_draw_independently():
    draw = Draw(0, 1)
    streams = [each.stream("x").uniform(0, 4) for each in (draw, draw.part(0), draw.part(1))]
    assert len({tuple(each) for each in streams}) == 3
