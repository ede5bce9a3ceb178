"""Published networks by name: each is reached, in its own constructor and forward, or refused.

Constructors are torchvision's and timm's own, with their real widths; modules stand on the meta
device, and the tensors that run are exactly the teacher's and the student's.
"""

from __future__ import annotations

import functools

import pytest
import torch
import torchvision
from architecture_oracles import header_of, without
from student_oracles import deviation, grown, images, on_meta, outputs_of, random_state
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from ckgrow import spec
from ckgrow.errors import SpecError
from ckgrow.loading import Loaded
from ckgrow.planning import make_plan
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
    ("resnet50", "wide_resnet101_2"),
    ("resnext50_32x4d", "resnext101_64x4d"),
    ("vgg11_bn", "vgg13_bn"),
}
PAIRS = [
    pytest.param(before, after, marks=() if (before, after) in QUICK else pytest.mark.full)
    for before, targets in BY_TEACHER.items()
    for after in targets
]


def published(name, **options):
    """The module that ``torchvision/...`` or ``timm/...`` names."""
    library, _, model = name.partition("/")
    if library == "timm":
        timm = pytest.importorskip("timm", reason="timm is an optional oracle")
        return on_meta(timm.create_model, model, **options)
    if model in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return on_meta(getattr(torchvision.models, model), **options)


def assert_reaches(teacher, state, target, module, size=SIZE, bound=EXACT, **keys):
    """The student of one step loads ``strict`` and computes what the teacher does."""
    student = grown(state, {"target": target, **keys}, options={"input": list(size)})
    module.load_state_dict(student.tensors, strict=True, assign=True)
    x = images(2, *size)
    expected = outputs_of(teacher, state, x)
    assert deviation(expected, outputs_of(module, module.state_dict(), x)) <= bound
    return student


def assert_refused(why, before, *steps, **teacher):
    with pytest.raises(SpecError) as refusal:
        planned(before, *steps, **teacher)
    assert str(refusal.value) == f"step {len(steps)}: {why}"


def planned(state, *steps, **options):
    """The plan for the header of a state; no tensor is needed."""
    header = header_of(state)
    (adapter,) = (each for each in architectures().values() if each.explain(header).complete)
    network = adapter.build(header, options)
    teacher = Loaded("test", None, None, "", header, adapter, network, None)
    return make_plan(teacher, spec.from_dict({"steps": list(steps)}))


@functools.cache
def stock(name):
    """The tensors of one of torchvision's models, as names and shapes."""
    return published(f"torchvision/{name}").state_dict()


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


@pytest.mark.parametrize("widen", ["r2wider", "netmorph", "symmetric"])
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


# Refused


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (
            "resnext101_32x8d",
            "torchvision/resnext101_64x4d",
            "layer1.0.conv2 has 32 groups of 8 channels, the target 64 groups of 4 channels (and "
            "so on, in 32 more layers): each group would get narrower",
        ),
        (
            "resnext50_32x4d",
            "torchvision/wide_resnet50_2",
            "layer1.0.conv2 has 32 groups of 4 channels, the target 1 group of 128 channels (and "
            "so on, in 15 more layers): groups can only be multiplied",
        ),
        (
            "wide_resnet50_2",
            "torchvision/resnet101",
            "layer1.0.conv1 has 128 channels, the target 64 (and so on, in 31 more layers): ckgrow "
            "only grows",
        ),
        (
            "resnet34",
            "timm/resnet18",
            "layer1 has 3 blocks, the target 2; layer2 has 4 blocks, the target 2; layer3 has 6 "
            "blocks, the target 2; and 1 more",
        ),
        (
            "resnet18",
            "torchvision/resnet50",
            "this network lacks layer1.0.conv3, layer1.0.downsample.0, layer1.1.conv3 and 6 more; "
            "growth adds nothing inside blocks",
        ),
        (
            "vgg13",
            "torchvision/vgg11",
            "features.0, features.2 stand where the target has only features.0",
        ),
        (
            "vgg11",
            "torchvision/vgg16_bn",
            "this network has no BatchNormalization, and growth adds none",
        ),
        (
            "alexnet",
            "torchvision/vgg11",
            "pools and the like cut this network into 4 runs of layers, the target into 6; growth "
            "adds none",
        ),
    ],
)
def test_unreachable(before, after, why):
    assert_refused(f"{after} cannot be reached: {why}", stock(before), {"target": after})


def test_other_family():
    assert_refused(
        "torchvision/resnet34 is of the family resnet, this network of the family inception; "
        "targets of its own are torchvision/googlenet, torchvision/inception_v3",
        stock("googlenet"),
        {"target": "torchvision/resnet34"},
    )
    mlp = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).state_dict()
    assert_refused(
        "torchvision/resnet34 is of the family resnet, this network of the family mlp; targets of "
        "its own are none",
        mlp,
        {"target": "torchvision/resnet34"},
    )


def test_unknown_name():
    state = stock("resnet18")
    near = r"there is no target 'torchvision/resnet35'; the nearest are .*torchvision/resnet34"
    with pytest.raises(SpecError, match=near):
        planned(state, {"target": "torchvision/resnet35"})
    assert_refused(
        "there is no target 'resnet152'; the nearest are torchvision/resnet152, timm/resnet152",
        state,
        {"target": "resnet152"},
    )
    assert_refused(
        "there is no target '%'; see 'ckgrow adapters' for all there are", state, {"target": "%"}
    )


@pytest.mark.parametrize("key", ["widen", "deepen"])
def test_unknown_method_even_where_nothing_is_done_by_it(key):
    with pytest.raises(SpecError, match=r"step 1: no method 'foo' to .* by, only"):
        planned(stock("resnet18"), {"target": "torchvision/resnet18", key: "foo"})


def test_method_that_cannot():
    with pytest.raises(SpecError, match="no method 'net2deeper' to deepen a stage by, only"):
        planned(stock("resnet18"), {"target": "torchvision/resnet34", "deepen": "net2deeper"})
    state = random_state(published("torchvision/resnet18"), shrink=4)
    steps = (
        {"widen": "layer1.*.conv1", "to": 48},
        {"target": "torchvision/resnet34", "widen": "symmetric"},
    )
    with pytest.raises(SpecError, match=r"step 2: symmetric .* cannot become 64; the nearest"):
        planned(state, *steps)


def test_other_kernel():
    cifar = on_meta(ResNet, BasicBlock, [2, 2, 2, 2])
    with torch.device("meta"):
        cifar.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    why = (
        "torchvision/resnet34 cannot be reached: conv1 has a kernel of 3 x 3, the target 7 x 7: a "
        "'kernel' step must come first; the target has no GlobalAveragePool, as this network has; "
        "this network has no MaxPool, and growth adds none"
    )
    assert_refused(why, cifar.state_dict(), {"target": "torchvision/resnet34"})
    with torch.device("meta"):
        cifar.conv1 = nn.Conv2d(3, 64, 8, 2, 3, bias=False)
    why = (
        "torchvision/resnet34 cannot be reached: conv1 has a kernel of 8 x 8, the target 7 x 7: "
        "kernels grow from odd to odd sizes"
    )
    assert_refused(why, cifar.state_dict(), {"target": "torchvision/resnet34"})


def test_same_keys_that_compute_otherwise():
    target = {"target": "torchvision/resnet101"}
    strides = r"layer2\.0\.conv1 has strides \(2, 2\), in the target strides \(1, 1\); layer2"
    with pytest.raises(SpecError, match="torchvision/resnet101 cannot be reached: " + strides):
        planned(stock("resnet50"), target, stride_in="conv1")
    with pytest.raises(SpecError, match=r"bn1 has epsilon 0\.001, in the target epsilon 1e-05"):
        planned(stock("resnet50"), target, epsilon=1e-3)


def test_backbone_has_no_place_in_torchvision():
    header = without(header_of(stock("resnet18")), "fc.weight", "fc.bias")
    state = {name: stock("resnet18")[name] for name in header}
    with pytest.raises(SpecError, match="this network lacks fc; growth adds nothing inside blocks"):
        planned(state, {"target": "torchvision/resnet34"})


def test_other_stages():
    state = {n: t for n, t in stock("resnet18").items() if not n.startswith(("layer4", "fc"))}
    why = "this network has the stages layer1, layer2, layer3, the target layer1, layer2, layer3 "
    with pytest.raises(SpecError, match=why + "and 1 more"):
        planned(state, {"target": "torchvision/resnet34"})


def test_biases_that_the_target_lacks():
    state = stock("resnet18") | {"conv1.bias": torch.empty(64)}
    why = "torchvision/resnet34 cannot be reached: the target has no place for conv1.bias"
    with pytest.raises(SpecError, match=why):
        planned(state, {"target": "torchvision/resnet34"})


def test_names_of_its_own():
    state = {name.replace("features.", "f"): each for name, each in stock("vgg11").items()}
    with pytest.raises(SpecError, match="cannot be reached"):
        planned(state, {"target": "torchvision/vgg13"}, input=[3, 224, 224], head="average 7")


def test_input_that_is_too_small():
    state = random_state(on_meta(nn.Sequential, *tiny_convnet()))
    with pytest.raises(SpecError, match=r"does not work on inputs of 1 x 8 x 8"):
        planned(state, {"target": "torchvision/vgg11"}, input=[1, 8, 8])


def tiny_convnet():
    return nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
