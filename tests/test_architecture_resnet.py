from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from architecture_oracles import (
    assert_close,
    assert_complete,
    assert_computes,
    evaluate,
    header_of,
    images,
    randomized,
    reshaped,
    without,
)
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ckgrow.coupling import couple
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import Node
from ckgrow.header import Header
from ckgrow.registry import architectures

RESNET = architectures()["resnet"]

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
)
QUICK = ("resnet18", "resnet34", "resnet50", "resnext50_32x4d")


def torchvision_header(name: str) -> Header:
    with torch.device("meta"):
        return header_of(getattr(torchvision.models, name)().state_dict())


class CifarBlock(nn.Module):
    """The basic block of the CIFAR ResNets that people train, option A or B."""

    def __init__(self, before: int, planes: int, stride: int, shortcut: str, option: str):
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut_name, self.option, self.added = shortcut, option, planes - before
        if stride != 1 and option == "B":
            path = nn.Sequential(
                nn.Conv2d(before, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )
            setattr(self, shortcut, path)

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if hasattr(self, self.shortcut_name):
            x = getattr(self, self.shortcut_name)(x)
        elif self.added:
            side = len(out[0]) // 4
            sides = (side, side) if self.option == "A" else (0, self.added)
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *sides))
        return functional.relu(out + x)


class CifarResNet(nn.Module):
    def __init__(self, widths, depths, *, option, shortcut="shortcut", head="linear"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        for number, (planes, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks = []
            for index in range(depth):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(CifarBlock(before, planes, stride, shortcut, option))
                before = planes
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        setattr(self, head, nn.Linear(before, 10))
        self.stages, self.head = len(widths), head

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


class PaperResNet(nn.Module):
    """The R2R paper's ResNetCifar: torchvision's stem and blocks, two stages."""

    def __init__(self, depths, ratio):
        super().__init__()
        first, second = int(64 * ratio), int(128 * ratio)
        self.conv1 = nn.Conv2d(3, first, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks = [BasicBlock(first, first) for _ in range(depths[0])]
        self.layer1 = nn.Sequential(*blocks)
        path = nn.Sequential(nn.Conv2d(first, second, 1, 2, bias=False), nn.BatchNorm2d(second))
        rest = [BasicBlock(second, second) for _ in range(depths[1] - 1)]
        self.layer2 = nn.Sequential(BasicBlock(first, second, 2, path), *rest)
        self.fc = nn.Linear(second, 10)

    def forward(self, x):
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        return self.fc(self.layer2(self.layer1(x)).mean(dim=(2, 3)))


def cifar(widths=(16, 32, 64), depths=(3, 3, 3), **arguments) -> Header:
    return header_of(CifarResNet(widths, depths, **arguments).state_dict())


# The graph computes what the model does


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in TORCHVISION],
)
def test_torchvision_forward(name):
    assert_computes(RESNET, getattr(torchvision.models, name)(num_classes=12), (3, 64, 48))


def test_epsilon_is_read_from_the_options():
    model = ResNet(BasicBlock, [1, 1, 1, 1], 10, norm_layer=lambda n: nn.BatchNorm2d(n, eps=0.01))
    network = assert_computes(RESNET, model, (3, 32, 32), epsilon=0.01)
    assert ("epsilon", "0.01", "spec") in [
        (fact.fact, fact.value, fact.source) for fact in network.assumptions
    ]


@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize(("shortcut", "head"), [("shortcut", "linear"), ("downsample", "fc")])
def test_cifar_forward(option, shortcut, head):
    model = CifarResNet((8, 16, 32), (2, 1, 2), option=option, shortcut=shortcut, head=head)
    network = assert_computes(RESNET, model, (3, 16, 16))
    assert any(fact.fact == "shortcuts without parameters" for fact in network.assumptions) == (
        option == "A"
    )


def test_padding_at_the_end():
    model = CifarResNet((6, 9, 16), (1, 1, 1), option="end")
    assert_computes(RESNET, model, (3, 16, 16), padding="end")


def test_an_odd_number_of_channels_cannot_be_padded_evenly():
    with pytest.raises(CheckpointError, match=r"layer2\.0/pad.*3 zero channels.*padding: end"):
        RESNET.build(cifar((6, 9, 16), option="A"), {})


@pytest.mark.parametrize(("depths", "ratio"), [((2, 2), 1), ((4, 4), 0.3)])
def test_the_paper_s_cifar_resnet(depths, ratio):
    network = assert_computes(RESNET, PaperResNet(depths, ratio), (3, 32, 32))
    assert [len(stage.blocks) for stage in RESNET.stages(network.graph)] == list(depths)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_timm_forward(name):
    timm = pytest.importorskip("timm", reason="timm is an optional oracle")
    assert_computes(RESNET, timm.create_model(name, num_classes=10), (3, 64, 64))


def test_bottlenecks_that_halve_the_map_in_conv1():
    model = ResNet(Bottleneck, [1, 2, 1, 1], 10)
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert_computes(RESNET, model, (3, 64, 64), stride_in="conv1")


def test_stem_stated_against_its_kernel():
    model = ResNet(BasicBlock, [1, 1, 1, 1], 10)
    model.conv1.stride, model.maxpool = (1, 1), nn.Identity()
    assert_computes(RESNET, model, (3, 16, 16), stem="cifar")


def test_grouped_bottlenecks_of_any_width():
    assert_computes(RESNET, ResNet(Bottleneck, [1, 1, 2, 1], 10, False, 8, 20), (3, 64, 64))


def test_any_widths():
    """Streams and inner widths that no constructor makes, in torchvision's own forward."""
    model = randomized(torchvision.models.resnet18(num_classes=10))
    streams = (20, 37, 30, 24)

    def size(name: str) -> tuple[int, int]:
        """Output and input channels of a convolution in a block."""
        stage, block = int(name[5]) - 1, int(name[7])
        inner = 11 + 3 * stage + block
        before = streams[max(stage - 1, 0)] if block == 0 else streams[stage]
        part = name[9:]
        return {"conv1": (inner, before), "conv2": (streams[stage], inner)}.get(
            part, (streams[stage], before)
        )

    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            made, read = (20, 3) if name == "conv1" else size(name)
            state[f"{name}.weight"] = images(made, (read, *module.kernel_size)) / read
            norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
            for part in ("weight", "bias", "running_mean", "running_var"):
                state[f"{norm}.{part}"] = 0.5 + images(1, (made,), seed=len(norm))[0].abs()
    state["fc.weight"] = state["fc.weight"][:, : streams[-1]]
    assert_complete(RESNET, header_of(state))
    x = images(2, (3, 64, 64))
    graph = RESNET.build(header_of(state), {"input": [3, 64, 64]}).graph
    theirs = torch.func.functional_call(model, state, (x,)).detach()
    assert_close(evaluate(graph, state, x)["logits"], theirs)
    assert RESNET.stock(header_of(state)) is None


def test_without_a_classifier_the_features_are_the_output():
    model = torchvision.models.resnet18()
    model.fc = nn.Identity()
    network = assert_computes(RESNET, model, (3, 64, 64))
    assert network.graph.outputs == ("features",)


# What is recognised, and as what


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_headers(name):
    header = torchvision_header(name)
    assert_complete(RESNET, header)
    network = RESNET.build(header, {})
    assert network.graph.inputs == {"input": ("N", 3, 224, 224)}
    assert set(network.graph.parameters()) | set(network.passthrough) == set(header)
    assert all(fact.source == "architecture" for fact in network.assumptions)
    assert RESNET.stock(header) == f"torchvision's {name}"


def test_stages_of_a_grown_graph():
    graph = RESNET.build(torchvision_header("resnet34"), {}).graph
    grown = [
        Node("Relu", name, ("input",), (name,))
        for name in ("layer1.0.conv1_grown1", "layer3.6.conv1", "layer3.6/out", "head/layer9.0/x")
    ]
    stages = RESNET.stages(replace(graph, nodes=(*grown, *graph.nodes)))
    assert [(stage.name, len(stage.blocks)) for stage in stages] == [
        ("layer1", 3),
        ("layer2", 4),
        ("layer3", 7),
        ("layer4", 3),
    ]
    assert stages[2].blocks == tuple(f"layer3.{number}" for number in range(7))


def test_nodes_of_a_block_stand_together_under_its_path():
    graph = RESNET.build(torchvision_header("resnet50"), {}).graph
    names = [node.name for node in graph.nodes]
    for stage in RESNET.stages(graph):
        for block in stage.blocks:
            inside = [name.startswith((f"{block}.", f"{block}/")) for name in names]
            first = inside.index(True)
            assert all(inside[first : first + sum(inside)])
            assert names[first + sum(inside) - 1] == f"{block}/out"


def test_ten_blocks_are_in_order_of_their_numbers():
    with torch.device("meta"):
        header = header_of(ResNet(BasicBlock, [12, 1, 1, 1]).state_dict())
    shuffled = Header({name: header[name] for name in sorted(header)})
    stage = RESNET.stages(RESNET.build(shuffled, {}).graph)[0]
    assert stage.blocks == tuple(f"layer1.{number}" for number in range(12))


@pytest.mark.parametrize(
    ("header", "phrase"),
    [
        (torchvision_header("resnet50"), "torchvision's resnet50"),
        (
            cifar((24, 48, 96), option="A"),
            "the stock CIFAR ResNet class at widths 24, 48, 96 with 3, 3, 3 blocks",
        ),
        (cifar((24, 40, 72), option="A"), None),
        (
            cifar((16, 40, 64), option="B"),
            "the stock CIFAR ResNet class at widths 16, 40, 64 with 3, 3, 3 blocks",
        ),
        (cifar((16, 32, 64), option="A", head="fc"), "stock"),
    ],
)
def test_stock(header, phrase):
    found = RESNET.stock(header)
    assert (found is None) if phrase is None else (found is not None and phrase in found)


def test_another_number_of_classes_is_still_stock():
    with torch.device("meta"):
        header = header_of(torchvision.models.resnet18(num_classes=7).state_dict())
    assert RESNET.stock(header) == "torchvision's resnet18 with num_classes=7"


# What is coupled


def free_atoms(header: Header, **options: object) -> int:
    coupled = couple(RESNET.build(header, options).graph, header)
    return len({coupled.ties[atom] for atom in coupled.counts if atom not in coupled.fixed})


@pytest.mark.parametrize(
    ("header", "groups"),
    [
        (torchvision_header("resnet18"), 4 + 8),  # streams (the stem in layer1's), inner widths
        (torchvision_header("resnet50"), 1 + 4 + 2 * 16),  # the stem, streams, two per bottleneck
        (torchvision_header("resnext50_32x4d"), 1 + 4 + 16 + 16),  # conv1 and conv2 are not tied
        (cifar(option="A"), 1 + 2 + 9),  # stage 1, the edges that each padding adds, inner widths
        (cifar(option="B"), 3 + 9),
    ],
)
def test_number_of_groups(header, groups):
    assert free_atoms(header) == groups


# What does not fit

RESNET18 = torchvision_header("resnet18")
RESNET50 = torchvision_header("resnet50")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            reshaped(RESNET18, "layer1.0.conv2.weight", (64, 48, 3, 3)),
            "layer1.0.conv2.weight has 48 input channels, but 64 arrive",
        ),
        (
            reshaped(RESNET18, "layer1.0.conv2.weight", (64, 32, 3, 3)),
            "layer1.0.conv2.weight has 32 input channels, but 64 arrive",
        ),
        (
            reshaped(RESNET18, "layer2.0.bn1.running_var", (127,)),
            "layer2.0.bn1.running_var has 127 entries for 128 channels",
        ),
        (
            reshaped(RESNET18, "fc.weight", (1000, 500)),
            "fc.weight has 500 inputs, but 512 arrive",
        ),
        (reshaped(RESNET18, "fc.bias", (999,)), "fc.bias has 999 entries for 1000 channels"),
        (
            reshaped(RESNET18, "layer4.0.downsample.0.weight", (256, 256, 1, 1)),
            "layer4.0/add: the branch makes 512 channels, the shortcut 256",
        ),
        (
            reshaped(RESNET50, "layer1.0.conv2.weight", (64, 48, 3, 3)),
            "layer1.0.conv2.weight of shape [64, 48, 3, 3] divides the 64 channels that arrive "
            "into no whole number of groups",
        ),
        (reshaped(RESNET18, "conv1.weight", (64, 3, 7)), "not 4 dimensions"),
        (reshaped(RESNET18, "conv1.weight", (0, 3, 7, 7)), "is empty"),
        (
            reshaped(RESNET18, "conv1.weight", (64, 3, 7, 7), "int8"),
            "conv1.weight is int8, not a floating point tensor",
        ),
        (
            cifar((16, 12, 64), option="A"),
            "layer2.0/pad: a shortcut without parameters cannot bring 16 channels to the 12 of "
            "layer2.0.conv2.weight",
        ),
        (cifar((16, 16, 16), option="A"), "cannot bring 16 channels to the 16"),
    ],
)
def test_shapes_that_do_not_fit(header, problem):
    explanation = RESNET.explain(header)
    assert not explanation.complete
    assert any(problem in each for each in explanation.problems), explanation.problems


def test_missing_companions_are_named():
    missing = ("bn1.running_var", "layer3.1.conv2.weight", "fc.weight")
    explanation = RESNET.explain(without(RESNET18, *missing))
    assert explanation.missing == missing
    assert not explanation.complete


@pytest.mark.parametrize(
    "name",
    [
        "layer1.0.se.fc1.weight",
        "layer6.0.conv1.weight",
        "layer1.3.conv1.weight",
        "layer01.0.conv1.weight",
        f"layer1.{'9' * 5000}.conv1.weight",
        "head.weight",
        "",
        "layer1.0.conv3\n.weight",
    ],
)
def test_keys_without_a_place(name):
    explanation = RESNET.explain(reshaped(RESNET18, name, (8, 8)))
    assert explanation.unexplained == (name,)
    assert not explanation.complete


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "densenet121", "mobilenet_v2"])
def test_other_networks_are_not_residual_networks(name):
    assert not RESNET.explain(torchvision_header(name)).complete


def test_nothing_is_not_a_residual_network():
    assert not RESNET.explain(Header({})).complete


# What an option may say


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"colour": 1}, "there is no option 'colour'; options: input, stem"),
        ({"stem": "large"}, "option 'stem' is 'large'; choices: imagenet, cifar"),
        ({"stride_in": "conv3"}, "choices: conv1, conv2"),
        ({"padding": "start"}, "choices: even, end"),
        ({"epsilon": 0}, "finite and above 0"),
        ({"epsilon": float("nan")}, "finite and above 0"),
        ({"epsilon": "small"}, "must be a number"),
        ({"epsilon": True}, "must be a number"),
        ({"input": [1, 224, 224]}, "the first layer reads 3 channels"),
        ({"input": [3, 224]}, "write [channels, height, width]"),
        ({"input": [3, 0, 224]}, "write [channels, height, width]"),
        ({"input": "3x224x224"}, "write [channels, height, width]"),
        ({"input": [3, True, 224]}, "write [channels, height, width]"),
    ],
)
def test_options_that_are_refused(options, problem):
    with pytest.raises(SpecError) as caught:
        RESNET.build(RESNET18, options)
    assert problem in str(caught.value)
