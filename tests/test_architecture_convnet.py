"""The convnet adapter against torchvision's and torch's own forward, and what it refuses."""

import random

import pytest
import torch
import torchvision
from architecture_oracles import images, randomized
from chain_oracle import agrees, facts, header_of
from torch import nn
from torch.nn import functional

from ckgrow.coupling import couple
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.registry import architectures

CONVNET = architectures()["convnet"]
VGGS = [f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")]


def narrow_vgg(name, *, width=4, classes=5):
    """torchvision's class with a sixteenth of the widths: recognised by names, not by widths."""
    cfgs = torchvision.models.vgg.cfgs
    letter = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    layout = [entry if entry == "M" else entry * width // 64 for entry in cfgs[letter]]
    features = torchvision.models.vgg.make_layers(layout, batch_norm=name.endswith("_bn"))
    module = torchvision.models.VGG(features, num_classes=classes, init_weights=False)
    hidden = 12
    module.classifier[0] = nn.Linear(layout[-2] * 49, hidden)
    module.classifier[3] = nn.Linear(hidden, hidden)
    module.classifier[6] = nn.Linear(hidden, classes)
    return module


class Digits(nn.Module):
    """Three convolutions, two pools, two dense layers; rectangular maps too."""

    def __init__(self, positions=4, pool=functional.max_pool2d):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 5, 3, padding=1)
        self.fc1 = nn.Linear(5 * positions, 7)
        self.fc2 = nn.Linear(7, 3)
        self.pool = pool

    def forward(self, x):
        x = self.pool(self.conv1(x).relu(), 2)
        x = self.pool(self.conv2(x).relu(), 2)
        x = self.conv3(x).relu().flatten(1)
        return self.fc2(self.fc1(x).relu())


@pytest.mark.parametrize("name", VGGS)
def test_torchvision_vgg_is_recognised_from_its_header(name):
    with torch.device("meta"):
        header = header_of(getattr(torchvision.models, name)().state_dict())
    assert CONVNET.explain(header).complete
    assert CONVNET.stock(header) == f"torchvision's {name}"
    network = CONVNET.build(header, {})
    found = facts(network)
    assert found["input"] == ("[3, 224, 224]", "architecture")
    assert found["order"][1] == "checkpoint"
    sources = {source for fact, (_, source) in found.items() if fact != "order"}
    assert sources <= {"architecture", "checkpoint"}
    assert sum(node.op == "MaxPool" for node in network.graph.nodes) == 5
    assert sum(node.op == "Dropout" for node in network.graph.nodes) == 2


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "vgg13_bn", "vgg16", "vgg19"])
@pytest.mark.parametrize("size", [(64, 64), (96, 32)])
def test_vgg_of_other_widths(name, size):
    module = randomized(narrow_vgg(name))
    network = agrees(CONVNET, module, images(2, (3, *size)), {"input": [3, *size]})
    assert CONVNET.stock(header_of(module.state_dict())) is None
    paths = dict(module.named_modules())
    for node in network.graph.nodes:
        if "/" not in node.name:
            kind = type(paths[node.name]).__name__
            expected = {
                "Conv": "Conv2d",
                "BatchNormalization": "BatchNorm2d",
                "Relu": "ReLU",
                "MaxPool": "MaxPool2d",
                "MatMul": "AdaptiveAvgPool2d",
                "Dropout": "Dropout",
                "Gemm": "Linear",
            }
            assert kind == expected[node.op], node.name


def test_vgg_at_its_own_size_needs_no_option():
    agrees(CONVNET, randomized(narrow_vgg("vgg11")), images(2, (3, 224, 224)))


def test_deepened_vgg_shifts_its_indices_and_is_still_one():
    module = narrow_vgg("vgg11_bn")
    layers = list(module.features)
    layers[3:3] = [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    module.features = nn.Sequential(*layers)
    classifier = list(module.classifier)
    classifier[2:2] = [nn.Linear(12, 12), nn.ReLU()]
    module.classifier = nn.Sequential(*classifier)
    network = agrees(CONVNET, randomized(module), images(2, (3, 64, 64)), {"input": [3, 64, 64]})
    assert facts(network)["pool"][1] == "architecture"


def test_alexnet():
    with torch.device("meta"):
        header = header_of(torchvision.models.alexnet().state_dict())
    assert CONVNET.stock(header) == "torchvision's alexnet"
    module = torchvision.models.alexnet(num_classes=4)
    module.classifier[1] = nn.Linear(256 * 36, 20)
    module.classifier[4] = nn.Linear(20, 20)
    module.classifier[6] = nn.Linear(20, 4)
    module = randomized(module)
    network = agrees(CONVNET, module, images(2, (3, 224, 224)))
    assert facts(network)["stride"][1] == "architecture"
    names = {node.name: node.op for node in network.graph.nodes}
    assert [names[f"classifier.{index}"] for index in (0, 2, 3)] == ["Dropout", "Relu", "Dropout"]
    agrees(CONVNET, module, images(2, (3, 80, 100)), {"input": [3, 80, 100]})


def test_a_wider_alexnet_is_recognised_but_not_stock():
    with torch.device("meta"):
        tensors = torchvision.models.alexnet().state_dict()
    tensors["features.0.weight"] = torch.empty(96, 3, 11, 11, device="meta")
    tensors["features.0.bias"] = torch.empty(96, device="meta")
    tensors["features.3.weight"] = torch.empty(192, 96, 5, 5, device="meta")
    header = header_of(tensors)
    assert facts(CONVNET.build(header, {}))["padding"][1] == "architecture"
    assert CONVNET.stock(header) is None


def test_digits_convnet_with_its_options():
    options = {"input": [1, 8, 8], "pool": {"conv1": "max 2", "conv2": "max 2"}}
    network = agrees(CONVNET, randomized(Digits()), images(2, (1, 8, 8)), options)
    assert facts(network) == {
        "order": ("conv1, conv2, conv3, fc1, fc2", "checkpoint"),
        "input": ("[1, 8, 8]", "spec"),
        "stride": ("1", "default"),
        "padding": ("1", "default"),
        "pool": ("conv1: max 2, conv2: max 2", "spec"),
        "head": ("flatten", "checkpoint"),
        "activation": ("relu", "default"),
    }
    assert "fc1/flatten" in [node.name for node in network.graph.nodes]


@pytest.mark.parametrize(
    "options", [{"input": [1, 8, 8]}, {"pool": {"conv1": "max 2", "conv2": "max 2"}}]
)
def test_pools_follow_from_the_input_and_the_input_from_the_pools(options):
    network = agrees(CONVNET, randomized(Digits()), images(2, (1, 8, 8)), options)
    assert facts(network)["pool"][0] == "conv1: max 2, conv2: max 2"
    assert facts(network)["input"][0] == "[1, 8, 8]"


def test_without_options_every_convolution_has_a_pool_and_that_is_a_default():
    header = header_of(Digits().state_dict())
    found = facts(CONVNET.build(header, {}))
    assert found["input"] == ("[1, 16, 16]", "default")
    assert found["pool"] == ("conv1: max 2, conv2: max 2, conv3: max 2", "default")


def test_maps_need_not_be_square():
    module = randomized(Digits(positions=6, pool=functional.avg_pool2d))
    options = {"input": [1, 8, 12], "pool": {"conv1": "average 2", "conv2": "average 2"}}
    agrees(CONVNET, module, images(2, (1, 8, 12)), options)


def test_shuffled_keys_give_the_same_graph():
    tensors = list(Digits().state_dict().items())
    graph = CONVNET.build(header_of(dict(tensors)), {}).graph
    random.Random(5).shuffle(tensors)
    assert CONVNET.build(header_of(dict(tensors)), {}).graph == graph


def test_one_sequential_shows_its_pools_and_its_flatten():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, (1, 5), padding=(0, 2)), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(6 * 9, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    network = agrees(CONVNET, randomized(module), images(2, (2, 12, 12)))
    assert [node.name for node in network.graph.nodes] == [str(index) for index in range(13)]
    found = facts(network)
    assert found["pool"] == ("0: max 2, 6: max 2", "default")
    assert found["normalization"] == ("before the activation", "checkpoint")
    stated = agrees(CONVNET, module, images(2, (2, 12, 12)), {"pool": {0: "max 2", 6: "max 2"}})
    assert stated.graph == network.graph


def test_a_global_average_in_a_sequential():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip
    network = agrees(CONVNET, randomized(module), images(2, (2, 32, 32)))
    assert [node.name for node in network.graph.nodes] == [str(index) for index in range(7)]
    assert facts(network)["pool"] == ("none", "default")
    agrees(CONVNET, module, images(2, (2, 9, 5)), {"input": [2, 9, 5]})


def test_batch_norm_behind_the_activation_leaves_the_next_index_to_the_pool():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )  # fmt: skip
    network = agrees(CONVNET, randomized(module), images(2, (2, 8, 8)))
    assert [node.name for node in network.graph.nodes] == [str(index) for index in range(9)]
    assert facts(network)["normalization"] == ("after the activation", "checkpoint")


def test_averages_count_the_padding_as_torch_does():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )  # fmt: skip
    options = {"pool": {"0": "average 3 stride 2 padding 1"}, "input": [2, 7, 8]}
    agrees(CONVNET, randomized(module), images(2, (2, 7, 8)), options)


def test_strides_paddings_and_a_stated_head():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 5, stride=2)
            self.conv2 = nn.Conv2d(4, 8, (3, 1), padding=(2, 0), groups=2, bias=False)
            self.bn2 = nn.BatchNorm2d(8)
            self.fc = nn.Linear(8 * 9, 2)

        def forward(self, x):
            x = functional.max_pool2d(self.conv1(x).tanh(), 3, 1, 1)
            x = self.bn2(self.conv2(x)).tanh()
            return self.fc(functional.adaptive_avg_pool2d(x, 3).flatten(1))

    options = {
        "input": [3, 21, 17],
        "stride": {"conv1": 2},
        "padding": {"conv1": 0, "conv2": [2, 0]},
        "pool": {"conv1": "max 3 stride 1 padding 1"},
        "head": "average 3",
        "activation": "tanh",
    }
    network = agrees(CONVNET, randomized(Net()), images(2, (3, 21, 17)), options)
    found = facts(network)
    assert found["stride"] == ("conv1: 2, conv2: 1", "spec")
    assert found["padding"] == ("conv1: 0, conv2: 2 x 0", "spec")
    assert found["head"] == ("average 3 x 3, flatten", "spec")


def test_lenet_without_padding():
    class LeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2 = nn.Linear(400, 12), nn.Linear(12, 10)

        def forward(self, x):
            x = functional.max_pool2d(self.conv1(x).relu(), 2)
            x = functional.max_pool2d(self.conv2(x).relu(), 2)
            return self.fc2(self.fc1(x.flatten(1)).relu())

    network = agrees(CONVNET, randomized(LeNet()), images(2, (1, 32, 32)), {"padding": 0})
    assert facts(network)["input"] == ("[1, 32, 32]", "default")


def test_depthwise_convolutions_and_separate_blocks():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
            )
            self.layer2 = nn.Sequential(
                nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.ReLU()
            )
            self.fc = nn.Linear(6 * 16, 4)

        def forward(self, x):
            return self.fc(self.layer2(self.layer1(x)).flatten(1))

    network = agrees(CONVNET, randomized(Net()), images(2, (3, 8, 8)), {"input": [3, 8, 8]})
    assert {"layer1.2", "layer1.3", "layer2.2"} <= {node.name for node in network.graph.nodes}


def test_a_stated_order():
    names = ["back", "front"]
    keys = {"front.weight": (4, 4, 3, 3), "back.weight": (4, 4, 3, 3), "fc.weight": (2, 4)}
    assert facts(CONVNET.build(header_of(keys), {}))["order"] == ("back, front, fc", "default")
    names = ["front", "back", "fc"]
    network = CONVNET.build(header_of(keys), {"order": names})
    assert facts(network)["order"] == ("front, back, fc", "spec")
    with pytest.raises(SpecError, match="the convolutions, then the Linear layers"):
        CONVNET.build(header_of(keys), {"order": ["fc", "front", "back"]})
    keys = {"a.weight": (8, 4, 3, 3), "b.weight": (4, 8, 3, 3), "fc.weight": (2, 4)}
    with pytest.raises(SpecError, match="no whole number for each of the 8"):
        CONVNET.build(header_of(keys), {"order": ["b", "a", "fc"]})


def test_channels_can_grow_through_the_flatten():
    header = header_of(Digits().state_dict())
    coupled = couple(CONVNET.build(header, {"input": [1, 8, 8]}).graph, header)
    growable = sorted(n for atom, n in coupled.counts.items() if atom not in coupled.fixed)
    assert growable == [4, 5, 6, 7]


def test_there_are_no_stages():
    header = header_of(Digits().state_dict())
    assert CONVNET.stages(CONVNET.build(header, {}).graph) == ()
    assert CONVNET.stock(header) is None


@pytest.mark.parametrize(
    "key",
    [
        "layer1.0.conv1.weight",
        "conv2.downsample.0.weight",
        "shortcut.0.weight",
        "inception3a.branch1.conv.weight",
        "aux1.conv.conv.weight",
    ],
)
def test_branched_networks_are_left_to_others(key):
    keys = {name: tuple(tensor.shape) for name, tensor in Digits().state_dict().items()}
    explanation = CONVNET.explain(header_of(keys | {key: (4, 4, 3, 3)}))
    assert explanation.unexplained == (key,)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "densenet121",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "mnasnet0_5",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "efficientnet_b0",
        "vit_b_32",
    ],
)
def test_other_architectures_are_not_taken_for_a_plain_stack(name):
    with torch.device("meta"):
        header = header_of(getattr(torchvision.models, name)().state_dict())
    assert not CONVNET.explain(header).complete
    assert not architectures()["mlp"].explain(header).complete


def test_it_explains_nothing_without_a_convolution():
    explanation = CONVNET.explain(header_of({"fc.weight": (3, 4)}))
    assert not explanation.explained
    assert explanation.unexplained == ("fc.weight",)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"conv.weight": (4, 1, 3, 3)}, "there is no Linear layer behind the convolutions"),
        ({"conv.weight": (4, 1, 3, 3), "fc.weight": (2, 9)}, "no whole number for each of the 4"),
        (
            {"a.weight": (4, 1, 3, 3), "b.weight": (4, 3, 3, 3), "fc.weight": (2, 4)},
            "in no order does each of the 2 layers",
        ),
        (
            {"conv.weight": (4, 1, 3, 3), "fc1.weight": (2, 4), "fc2.weight": (2, 4)},
            "in no order does each of the 2 layers",
        ),
        (
            {"conv.weight": (4, 1, 3, 3), "fc.weight": (2, 4)}
            | {f"bn.{part}": (7,) for part in ("weight", "bias", "running_mean", "running_var")},
            "bn has 7 channels and fits behind no layer",
        ),
    ],
)  # fmt: skip
def test_problems_are_sentences(keys, text):
    explanation = CONVNET.explain(header_of(keys))
    assert not explanation.complete
    assert text in " ".join(explanation.problems)


def test_build_refuses_what_explain_finds():
    keys = {"conv.weight": (4, 1, 3, 3), "fc.weight": (2, 9)}
    with pytest.raises(CheckpointError, match="no whole number"):
        CONVNET.build(header_of(keys), {})
    loose = {f"bn.{part}": (7,) for part in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(CheckpointError, match="bn has 7 channels and fits behind no layer"):
        CONVNET.build(header_of({**keys, "fc.weight": (2, 4), **loose}), {})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input": [1, 9, 40]}, "leaves 9 x 40 positions without pools"),
        ({"input": [1, 1, 1], "pool": {"conv1": "max 2"}}, "leaves nothing with conv1: max 2"),
        ({"input": [1, 8, 8], "pool": {"conv1": "max 2"}}, "4 x 4 positions with conv1: max 2"),
        ({"input": [3, 8, 8]}, "the first layer reads 1 channels"),
        ({"input": 8}, "write [channels, height, width]"),
        ({"input": [1, 8, 0]}, "write [channels, height, width]"),
        ({"pool": "max 2"}, "write a mapping"),
        ({"pool": {"conv9": "max 2"}}, "names conv9, which is no convolution"),
        ({"pool": {"fc1": "max 2"}}, "names fc1, which is no convolution"),
        ({"pool": {"conv1": "max"}}, "write 'max 2'"),
        ({"pool": {"conv1": "max 0"}}, "write 'max 2'"),
        ({"pool": {"conv1": "max 2 padding 2"}}, "at most half"),
        ({"stride": 0}, "a whole number from 1 on"),
        ({"stride": {"conv1": True}}, "a whole number from 1 on"),
        ({"stride": {"convl": 2}}, "names convl, which is no convolution"),
        ({"padding": [1, 2, 3]}, "a whole number from 0 on"),
        ({"head": "squash"}, "write flatten, global-average"),
        ({"head": "average 0"}, "write flatten, global-average"),
        ({"head": "average 3"}, "no square input leaves so many"),
        ({"head": "global-average"}, "4 for each of 5 channels"),
    ],
)
def test_wrong_options(options, text):
    header = header_of(Digits().state_dict())
    with pytest.raises(SpecError) as failure:
        CONVNET.build(header, options)
    assert text in str(failure.value)


def test_an_input_that_is_not_square_must_be_stated():
    header = header_of(Digits(positions=6).state_dict())
    assert CONVNET.explain(header).complete
    with pytest.raises(SpecError, match="state the option pool"):
        CONVNET.build(header, {})
