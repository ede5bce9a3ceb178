"""Published networks that cannot be reached: each reason in its own words."""

from __future__ import annotations

import pytest
import torch
from architecture_oracles import header_of, without
from student_oracles import on_meta, random_state
from target_oracles import planned, published, stock
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from ckgrow.errors import SpecError


def assert_refused(why, before, *steps, **teacher):
    with pytest.raises(SpecError) as refusal:
        planned(before, *steps, **teacher)
    assert str(refusal.value) == f"step {len(steps)}: {why}"


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
            "growth adds whole blocks to stages, no parts",
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


def test_method_that_makes_other_layers():
    why = "cannot be reached: netmorph makes other layers than the target has; leave it out; this"
    with pytest.raises(SpecError, match=why):
        planned(stock("vgg11"), {"target": "torchvision/vgg13", "deepen": "netmorph"})


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
    with pytest.raises(SpecError, match="this network lacks fc; growth adds whole blocks"):
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
    pools = dict.fromkeys(("f0", "f3", "f8", "f13", "f18"), "max 2")
    why = "cannot be reached: this network, grown, lacks features.0.weight, features.0.bias"
    with pytest.raises(SpecError, match=why):
        planned(
            state,
            {"target": "torchvision/vgg13"},
            input=[3, 256, 256],
            head="average 7",
            pool=pools,
            activation="relu",
        )


def test_input_that_is_too_small():
    state = random_state(on_meta(nn.Sequential, *tiny_convnet()))
    with pytest.raises(SpecError, match=r"does not work on inputs of 1 x 8 x 8"):
        planned(state, {"target": "torchvision/vgg11"}, input=[1, 8, 8])


def tiny_convnet():
    return nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
